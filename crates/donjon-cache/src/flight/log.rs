//! The chunks of a stream that its members have not all read.

use std::{collections::VecDeque, sync::Arc};

use donjon_core::{Chunk, Dialect};

/// The chunks of a stream, from the first one on as long as others may join, and then from the first
/// one that somebody has not read.
#[derive(Debug, Default)]
pub(crate) struct Log {
    kept: VecDeque<Kept>,
    /// The number of the first one that is kept.
    first: u64,
    bytes: usize,
    /// Whether it is counted who has not read a chunk, so that it can be let go of.
    releases: bool,
}

#[derive(Debug)]
struct Kept {
    chunk: Arc<Chunk>,
    bytes: usize,
    unread: usize,
}

impl Log {
    /// How much it keeps, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a chunk that so many members are to read.
    pub(crate) fn push(&mut self, chunk: Arc<Chunk>, members: usize) {
        let bytes = weight(&chunk);
        self.bytes += bytes;
        self.kept.push_back(Kept {
            chunk,
            bytes,
            unread: members,
        });
        self.trim();
    }

    /// Reads the chunk of this number, for good.
    pub(crate) fn read(&mut self, number: u64) -> Option<Arc<Chunk>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let kept = self.kept.get_mut(at)?;
        kept.unread = kept.unread.saturating_sub(1);
        let chunk = kept.chunk.clone();
        self.trim();
        Some(chunk)
    }

    /// Whoever was to read from this number on does not.
    pub(crate) fn give_up(&mut self, number: u64) {
        let from = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for kept in self.kept.iter_mut().skip(from) {
            kept.unread = kept.unread.saturating_sub(1);
        }
        self.trim();
    }

    /// Nobody joins any more: what all members, who stand at these numbers, have read is let go of
    /// from now on.
    pub(crate) fn release(&mut self, members: impl Iterator<Item = u64>) {
        if std::mem::replace(&mut self.releases, true) {
            return;
        }
        for kept in &mut self.kept {
            kept.unread = 0;
        }
        // First how many begin to read at each chunk, then how many read it.
        for number in members {
            let at = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            if let Some(kept) = self.kept.get_mut(at) {
                kept.unread += 1;
            }
        }
        let mut readers = 0;
        for kept in &mut self.kept {
            readers += kept.unread;
            kept.unread = readers;
        }
        self.trim();
    }

    fn trim(&mut self) {
        if !self.releases {
            return;
        }
        while self.kept.front().is_some_and(|kept| kept.unread == 0) {
            if let Some(kept) = self.kept.pop_front() {
                self.bytes -= kept.bytes;
                self.first += 1;
            }
        }
    }
}

/// About how many bytes a chunk takes.
fn weight(chunk: &Chunk) -> usize {
    let wire = [Dialect::OpenAi, Dialect::Anthropic];
    let wire = wire.into_iter().find_map(|dialect| chunk.wire(dialect));
    size_of::<Kept>() + size_of::<Chunk>() + chunk.bytes() + wire.map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Read(usize),
        Leave(usize),
        Join,
        Release,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            4 => (0..4_usize).prop_map(Step::Read),
            1 => (0..4_usize).prop_map(Step::Leave),
            1 => Just(Step::Join),
            1 => Just(Step::Release),
        ]
    }

    proptest! {
        /// Each member reads every chunk from where it began, in order; and what is kept is what a
        /// naive look at all members says.
        #[test]
        fn it_keeps_what_somebody_has_to_read(steps in prop::collection::vec(step(), 1..80)) {
            let mut log = Log::default();
            let mut members = vec![0_u64];
            let (mut pushed, mut released) = (0_u64, false);
            for step in steps {
                match step {
                    Step::Push => {
                        log.push(Chunk::text(pushed.to_string()).into(), members.len());
                        pushed += 1;
                    }
                    Step::Read(at) => {
                        let Some(number) = members.get_mut(at) else { continue };
                        let chunk = log.read(*number);
                        prop_assert_eq!(chunk.is_some(), *number < pushed);
                        if let Some(chunk) = chunk {
                            prop_assert_eq!(chunk.text_of_first(), number.to_string());
                            *number += 1;
                        }
                    }
                    Step::Leave(at) if at < members.len() => {
                        log.give_up(members.remove(at));
                    }
                    Step::Join if !released => members.push(0),
                    Step::Release => {
                        released = true;
                        log.release(members.iter().copied());
                    }
                    _ => {}
                }
                let first = members.iter().copied().min().unwrap_or(pushed);
                let first = if released { first } else { 0 };
                prop_assert_eq!(log.first, first);
                prop_assert_eq!(log.first + log.kept.len() as u64, pushed);
                let bytes: usize = log.kept.iter().map(|kept| kept.bytes).sum();
                prop_assert_eq!(log.bytes(), bytes);
            }
        }
    }

    trait First {
        fn text_of_first(&self) -> String;
    }

    impl First for Chunk {
        fn text_of_first(&self) -> String {
            self.choices[0]
                .content
                .as_deref()
                .unwrap_or_default()
                .into()
        }
    }
}
