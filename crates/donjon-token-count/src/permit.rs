//! Hearing what a call really used.

use std::sync::Arc;

use donjon_core::{End, Head, Observer, Origin, Outcome};

use crate::{count::Count, shared::Asked};

/// Hears how many tokens the provider says that the prompt had, and learns from it.
pub struct Permit {
    asked: Arc<Asked>,
    raw: Count,
    count: Count,
    upstream: bool,
}

impl Permit {
    pub(crate) const fn new(asked: Arc<Asked>, raw: Count, count: Count) -> Self {
        Self {
            asked,
            raw,
            count,
            upstream: false,
        }
    }
}

impl Observer for Permit {
    fn committed(&mut self, head: &Head) {
        self.upstream = head.origin == Origin::Upstream;
    }

    fn end(&mut self, end: &End<'_>) {
        let (Outcome::Success, true, Some(usage)) = (end.outcome, self.upstream, end.usage) else {
            return;
        };
        // Sounds are no texts.
        let actual = usage.input.saturating_sub(usage.input_audio);
        if actual == 0 {
            return;
        }
        self.asked.tally.reported(self.count, actual);
        self.asked.facts.ruler.calibration.learn(self.raw, actual);
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
