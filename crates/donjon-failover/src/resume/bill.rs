//! What the attempts of one stream have used together.

use donjon_core::{Chunk, Usage};

/// What the attempts of one stream have used together, as they said, or as far as can be told.
#[derive(Debug, Default)]
pub(crate) struct Bill {
    /// Of those before.
    earlier: Usage,
    /// How many there were.
    closed: u32,
    /// What the one that is read has said.
    told: Option<Usage>,
    /// What it has streamed, shown or not.
    bytes: u64,
}

impl Bill {
    /// The one that is read has streamed this.
    #[inline]
    pub(crate) fn note(&mut self, chunk: &Chunk) {
        self.bytes += chunk.bytes() as u64;
        if chunk.usage.is_some() {
            self.told = chunk.usage;
        }
    }

    /// The one that was read is left for another one; its prompt had so many tokens, as far as is known.
    pub(crate) fn close(&mut self, prompt: u64) {
        self.earlier = self.total(prompt);
        self.closed += 1;
        self.told = None;
        self.bytes = 0;
    }

    /// The same of all, where the one that is read says `usage` of itself.
    pub(crate) const fn with(&self, usage: Usage) -> Usage {
        self.earlier.plus(usage)
    }

    /// What all have used up to here.
    pub(crate) fn total(&self, prompt: u64) -> Usage {
        let Some(mut usage) = self.told else {
            return self.with(Usage::new(prompt, tokens(self.bytes)));
        };
        // What was told before the end is less than what was used in the end.
        usage.output = usage.output.max(tokens(self.bytes));
        if usage.input == 0 {
            usage.input = prompt;
        }
        self.with(usage)
    }

    /// Whether several were left, and nobody but us knows what they have used together.
    pub(crate) const fn is_owed(&self) -> bool {
        self.closed > 1
    }

    /// What those that were left have used, which is told now.
    pub(crate) const fn settle(&mut self) -> Usage {
        self.closed = 0;
        self.earlier
    }

    /// How many tokens of answer the first has said to have given, while it is alone.
    pub(crate) fn output(&self) -> u64 {
        let told = self.told.filter(|_| self.closed == 0);
        told.map_or(0, |usage| usage.output)
    }
}

/// About so many tokens are in so many bytes of text.
pub(crate) const fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_counts_as_it_said_or_else_by_what_it_streamed() {
        let mut bill = Bill::default();
        bill.note(&Chunk::text("x".repeat(40)));
        assert_eq!(bill.total(100), Usage::new(100, 10));
        bill.close(100);
        assert!(!bill.is_owed(), "whoever hears it knows it all");
        bill.note(&Chunk::usage(Usage::new(7, 1)));
        assert_eq!(bill.total(50), Usage::new(107, 11));
        // It broke after that, and so used more than it had said.
        bill.note(&Chunk::text("x".repeat(80)));
        bill.close(50);
        assert_eq!(bill.with(Usage::new(3, 4)), Usage::new(110, 34));
        assert!(bill.is_owed());
        assert_eq!(
            (bill.settle(), bill.is_owed()),
            (Usage::new(107, 30), false)
        );
    }
}
