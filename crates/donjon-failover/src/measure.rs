//! How many calls a target has, where that matters, and how long they take.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use donjon_core::Call;

use crate::{
    health::nanos,
    state::{Shared, TargetState, UNLIMITED},
};

impl Shared {
    /// Whether calls in progress at `target` are counted.
    #[inline]
    pub(crate) fn counts_load_of(&self, target: &TargetState) -> bool {
        self.counts_load || target.cap.load(Relaxed) != UNLIMITED
    }
}

impl TargetState {
    /// Takes in how long the call took that has just committed.
    pub(crate) fn measure(&self, shared: &Shared, call: &Call, streamed: bool) -> Option<Duration> {
        let attempt = call.attempt()?;
        let mut stamps = attempt.stamps();
        if stamps.committed_at.is_none() {
            // A driver further in has sent others under this one.
            let served = attempt.ledger().served_by()?;
            (stamps.sent_at, stamps.committed_at) = (served.sent_at, served.committed_at);
            stamps.ended_at = served.ended_at;
        }
        let (sent, committed) = (stamps.sent_at?, stamps.committed_at?);
        let began = shared.nanos_at(attempt.ledger().began_at());
        let now = millis(began.saturating_add(nanos(committed)));
        let first = committed.saturating_sub(sent);
        let decay = shared.config.decay;
        if streamed {
            self.first_token.observe(now, first, decay);
            return Some(first);
        }
        // A whole answer that came as a stream has both.
        let whole = stamps.ended_at.unwrap_or(committed).saturating_sub(sent);
        self.answer.observe(now, whole, decay);
        if stamps.ended_at.is_some_and(|ended| ended != committed) {
            self.first_token.observe(now, first, decay);
        }
        Some(whole)
    }
}

/// Milliseconds that go round.
#[expect(clippy::cast_possible_truncation, reason = "they go round")]
pub(crate) const fn millis(nanos: u64) -> u32 {
    (nanos / 1_000_000) as u32
}
