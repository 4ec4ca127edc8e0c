//! What is counted of models.

use std::sync::Arc;

use donjon_core::Counts;

use crate::count::Count;

/// What happened to the calls of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Calls that were counted and passed.
    pub calls: u64,
    /// Calls that were refused because they do not fit.
    pub refused: u64,
    /// Calls of which the oldest messages were left out.
    pub trimmed: u64,
    /// Answers that said how many tokens the prompt had.
    pub reports: u64,
    /// Tokens of the prompts of these, as they were counted.
    pub estimated: u64,
    /// Tokens of the prompts of these, as the provider reported them.
    pub actual: u64,
    /// How far the two were from one another, call by call, added up.
    pub off: u64,
    /// Answers of these whose number lay within what the count had stated.
    pub within: u64,
}

impl Figures {
    /// The mean distance of the count from what was reported, as a share of it; `None` before the first
    /// report.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn mean_error(&self) -> Option<f64> {
        (self.actual > 0).then(|| self.off as f64 / self.actual as f64)
    }
}

const CALLS: usize = 0;
const REFUSED: usize = 1;
const TRIMMED: usize = 2;
const REPORTS: usize = 3;
const ESTIMATED: usize = 4;
const ACTUAL: usize = 5;
const OFF: usize = 6;
const WITHIN: usize = 7;

/// The figures of a model while they are counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Counts<8>>);

impl Tally {
    pub(crate) fn passed(&self) {
        self.0.add(CALLS, 1);
    }

    pub(crate) fn refused(&self) {
        self.0.add(REFUSED, 1);
    }

    pub(crate) fn trimmed(&self) {
        self.0.add(TRIMMED, 1);
    }

    pub(crate) fn reported(&self, count: Count, actual: u64) {
        self.0.add(REPORTS, 1);
        self.0.add(ESTIMATED, count.tokens());
        self.0.add(ACTUAL, actual);
        self.0.add(OFF, count.tokens().abs_diff(actual));
        let within = (count.least()..=count.most()).contains(&actual);
        self.0.add(WITHIN, within.into());
    }

    pub(crate) fn figures(&self) -> Figures {
        let get = |at| self.0.get(at);
        Figures {
            calls: get(CALLS),
            refused: get(REFUSED),
            trimmed: get(TRIMMED),
            reports: get(REPORTS),
            estimated: get(ESTIMATED),
            actual: get(ACTUAL),
            off: get(OFF),
            within: get(WITHIN),
        }
    }
}
