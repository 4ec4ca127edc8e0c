//! The samples of one step of a limit.

use std::time::Duration;

/// First tokens, in seconds, of calls that were admitted since some moment.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) since: Duration,
    /// The most that were in flight.
    pub(super) peak: u32,
    first_tokens: Vec<f64>,
}

impl Window {
    const LEAST: usize = 10;
    const MOST: usize = 100;

    pub(super) fn new() -> Self {
        Self {
            since: Duration::ZERO,
            peak: 0,
            // All that it will ever need: a sample allocates nothing.
            first_tokens: Vec::with_capacity(Self::MOST),
        }
    }

    pub(super) fn restart(&mut self, now: Duration) {
        self.since = now;
        self.peak = 0;
        self.first_tokens.clear();
    }

    /// True when there are enough.
    pub(super) fn push(&mut self, first_token: f64, in_flight: u32, limit: u32) -> bool {
        // A zero would make a baseline that nothing can keep to.
        self.first_tokens.push(first_token.max(1e-6));
        self.peak = self.peak.max(in_flight);
        self.first_tokens.len() >= (limit as usize / 2).clamp(Self::LEAST, Self::MOST)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a hundred")]
    pub(super) fn len(&self) -> f64 {
        self.first_tokens.len() as f64
    }

    pub(super) fn median(&mut self) -> f64 {
        let middle = self.first_tokens.len() / 2;
        let (_, median, _) = self
            .first_tokens
            .select_nth_unstable_by(middle, f64::total_cmp);
        *median
    }
}
