//! What all services of one layer know and count.

use std::{
    array,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use donjon_core::{Counts, Events, Hints, Ledger, LlmError, LlmRequest, Operation};
use tokio::time::Instant;

use crate::{
    bucket::Bucket,
    handle::{HedgeCause, HedgeEvent, Measured, Suppressed},
    histogram::Histogram,
    layer::{Policy, Shared},
    limits::{self, Pause},
};

/// The state behind a layer.
pub(crate) struct State {
    pub(crate) bucket: Bucket,
    pub(crate) pause: Pause,
    epoch: Instant,
    disabled: AtomicBool,
    /// By what is measured; none with a fixed delay.
    latencies: Option<Box<[Histogram; 3]>>,
    /// Calls that were not to be hedged.
    pub(crate) plain: Counts<1>,
    pub(crate) hedges: [AtomicU64; 2],
    pub(crate) won_by_first: AtomicU64,
    pub(crate) won_by_hedge: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) suppressed: [AtomicU64; 3],
    pub(crate) events: Events<HedgeEvent>,
}

impl State {
    pub(crate) fn new(policy: &Policy, share: u64, burst: u64) -> Self {
        let histogram = |_| Histogram::new(policy.delay.window());
        Self {
            bucket: Bucket::new(share, burst),
            pause: Pause::default(),
            epoch: Instant::now(),
            disabled: AtomicBool::new(false),
            latencies: (policy.delay.is_live()).then(|| Box::new(array::from_fn(histogram))),
            plain: Counts::new(),
            hedges: Default::default(),
            won_by_first: AtomicU64::new(0),
            won_by_hedge: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            suppressed: Default::default(),
            events: Events::new(256),
        }
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.disabled.store(!enabled, Relaxed);
    }

    pub(crate) fn is_enabled(&self) -> bool {
        !self.disabled.load(Relaxed)
    }

    /// A moment as the state counts it.
    pub(crate) fn nanos_at(&self, at: Instant) -> u64 {
        let age = at.saturating_duration_since(self.epoch);
        u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn now(&self) -> u64 {
        self.nanos_at(Instant::now())
    }

    /// Counts how long the attempt took that served, of the `first` one and those that follow
    /// from it.
    #[inline]
    pub(crate) fn served(&self, measured: Measured, ledger: &Ledger, first: u32) {
        let Some(latencies) = &self.latencies else {
            return;
        };
        let mut stamps = ledger.stamps(first);
        if stamps.committed_at.is_none() {
            // A driver further in has sent others under it.
            let others = (first + 1..ledger.opened()).map(|index| ledger.stamps(index));
            match others.filter(|seen| seen.committed_at.is_some()).last() {
                Some(seen) => stamps = seen,
                None => return,
            }
        }
        if let (Some(sent), Some(committed)) = (stamps.sent_at, stamps.committed_at) {
            let now = self.nanos_at(ledger.began_at() + committed);
            latencies[measured.slot()].record(now, committed.saturating_sub(sent));
        }
    }

    /// A first attempt was given up after this time: it would have taken longer.
    pub(crate) fn took_longer(&self, measured: Measured, elapsed: Duration) {
        if let Some(latencies) = &self.latencies {
            latencies[measured.slot()].record(self.now(), elapsed);
        }
    }

    pub(crate) fn suppress(&self, why: Suppressed) {
        self.suppressed[why as usize].fetch_add(1, Relaxed);
        self.events.tell(|| HedgeEvent::Suppressed { why });
    }

    pub(crate) fn fired(&self, cause: HedgeCause, after: Duration) {
        let of = usize::from(matches!(cause, HedgeCause::Failed(_)));
        self.hedges[of].fetch_add(1, Relaxed);
        self.events.tell(|| HedgeEvent::Fired { cause, after });
    }

    pub(crate) fn won(&self, by_hedge: bool, after: Duration) {
        let count = match by_hedge {
            true => &self.won_by_hedge,
            false => &self.won_by_first,
        };
        count.fetch_add(1, Relaxed);
        self.events.tell(|| HedgeEvent::Won { by_hedge, after });
    }

    pub(crate) fn all_failed(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// No hedges from `from` on for as long as was asked, or as is usual.
    fn pause_for(&self, policy: &Policy, from: Instant, asked: Duration) {
        let length = match asked.is_zero() {
            true => policy.pause,
            false => asked.min(policy.longest_pause),
        };
        if self.pause.extend(self.nanos_at(from), length) {
            self.events.tell(|| HedgeEvent::Paused { length });
        }
    }
}

impl Shared {
    /// How late a first attempt must be now; `None` while that is not known.
    pub(crate) fn delay(&self, measured: Measured) -> Option<Duration> {
        let latencies = self.state.latencies.as_deref();
        self.policy.delay.now(|share, minimum| {
            latencies.and_then(|of| of[measured.slot()].quantile(share, minimum))
        })
    }

    /// Whether `request` may be made twice.
    #[inline]
    pub(crate) fn may_hedge(&self, request: &LlmRequest) -> bool {
        self.state.is_enabled() && self.when.as_ref().is_none_or(|when| when(request))
    }

    /// Stops hedging for a while, if `error`, which came at `at`, says that somebody has too much to do.
    #[cold]
    pub(crate) fn learn(&self, error: &LlmError, at: Instant) {
        if let Some(asked) = limits::asked_by(error, &*self.classify) {
            self.state.pause_for(&self.policy, at, asked);
        }
    }

    /// The same of what attempts from `first` on failed with, although others may have served.
    #[inline]
    pub(crate) fn learn_of(&self, ledger: &Ledger, first: u32) {
        for index in first..ledger.opened() {
            if let Some(error) = ledger.error(index) {
                let ended = ledger.stamps(index).ended_at.unwrap_or_default();
                self.learn(error, ledger.began_at() + ended);
            }
        }
    }

    /// Stops hedging until what is nearly used up comes back.
    #[cold]
    pub(crate) fn heed(&self, hints: &Hints) {
        if let Some(reset) = limits::hinted(hints, self.policy.nearly_out) {
            self.state.pause_for(&self.policy, hints.received_at, reset);
        }
    }
}

impl Measured {
    #[inline]
    pub(crate) fn of(request: &LlmRequest) -> Self {
        if request.is_stream() {
            return Self::Streams;
        }
        match request.operation() {
            Operation::Embed => Self::Embeddings,
            _ => Self::Answers,
        }
    }

    const fn slot(self) -> usize {
        self as usize
    }
}
