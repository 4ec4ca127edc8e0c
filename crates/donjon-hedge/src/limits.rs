//! When hedging stops, because somebody has too much to do.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use donjon_core::{Classify, ErrorKind, Health, Hints, LimitHint, LlmError};

/// Until when there are no hedges, in nanoseconds of the owner's clock.
#[derive(Debug, Default)]
pub(crate) struct Pause(AtomicU64);

impl Pause {
    /// No hedges for so long from `now` on; whether that is longer than it was.
    pub(crate) fn extend(&self, now: u64, length: Duration) -> bool {
        let until = now.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
        self.0.fetch_max(until, Relaxed) < until
    }

    /// How much of it is left at `now`.
    pub(crate) fn left(&self, now: u64) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed).saturating_sub(now))
    }
}

/// How long a pause `error` asks for; zero for as long as is usual, `None` for none.
pub(crate) fn asked_by(error: &LlmError, classify: &dyn Classify) -> Option<Duration> {
    let kind = error.kind();
    let overloaded =
        kind == ErrorKind::LimitedLocally || classify.classify(error).health == Health::Overload;
    let own = overloaded.then(|| error.retry_after().unwrap_or_default());
    // Where all targets failed, any of them may have had too much to do.
    let of_targets = error.attempts().iter();
    let of_targets = of_targets.filter_map(|failed| asked_by(&failed.error, classify));
    own.into_iter().chain(of_targets).max()
}

/// How long a pause these hints ask for, from when they came on: until what is nearly used up comes
/// back. Nearly used up is what is not above the share `nearly` of its limit.
pub(crate) fn hinted(hints: &Hints, nearly: f64) -> Option<Duration> {
    let out = |hint: &&LimitHint| match (hint.remaining, hint.limit) {
        (Some(0), _) => true,
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        (Some(left), Some(limit)) => left as f64 <= limit as f64 * nearly,
        _ => false,
    };
    let waits = hints.limits.iter().filter(out);
    waits.map(|hint| hint.reset.unwrap_or_default()).max()
}
