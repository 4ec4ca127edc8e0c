//! What a hedge layer shows of itself.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use donjon_core::{ErrorKind, Events, Figure, Snapshot};

use crate::{bucket::HEDGE, layer::Shared};

/// Reads and controls what all clones and services of one [`HedgeLayer`](crate::HedgeLayer) share.
#[derive(Clone)]
pub struct HedgeHandle {
    shared: Arc<Shared>,
}

/// What is measured apart, since each takes a time of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Measured {
    /// The time to first token of streams.
    Streams = 0,
    /// The time of whole answers.
    Answers = 1,
    /// The time of embeddings.
    Embeddings = 2,
}

impl Measured {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Streams, Self::Answers, Self::Embeddings];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Streams => "stream",
            Self::Answers => "answer",
            Self::Embeddings => "embedding",
        }
    }
}

/// Why a hedge was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HedgeCause {
    /// The attempt before it was late.
    Slow,
    /// The attempt before it failed.
    Failed(ErrorKind),
}

/// Why a hedge was not made although the first attempt was late, or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suppressed {
    /// The budget is used up.
    Budget = 0,
    /// Somebody has too much to do.
    Limits = 1,
    /// The call may make no more attempts.
    Attempts = 2,
}

impl Suppressed {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Budget, Self::Limits, Self::Attempts];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Limits => "limits",
            Self::Attempts => "attempts",
        }
    }
}

/// What a hedge layer tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HedgeEvent {
    /// A hedge was made.
    Fired {
        /// Why.
        cause: HedgeCause,
        /// How long after the call began.
        after: Duration,
    },
    /// A call that was hedged has committed.
    Won {
        /// Whether a hedge was first.
        by_hedge: bool,
        /// How long after the call began.
        after: Duration,
    },
    /// A hedge was due and not made.
    Suppressed {
        /// Why.
        why: Suppressed,
    },
    /// There are no hedges for so long.
    Paused {
        /// How long, from now on.
        length: Duration,
    },
}

impl HedgeHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<HedgeEvent> {
        &self.shared.state.events
    }

    /// How many calls were made, those included that were not to be hedged.
    pub fn calls(&self) -> u64 {
        self.shared.state.bucket.deposits() + self.shared.state.plain.get(0)
    }

    /// How many hedges were made: for being late, and for having failed.
    pub fn hedges(&self) -> u64 {
        self.shared
            .state
            .hedges
            .iter()
            .map(|n| n.load(Relaxed))
            .sum()
    }

    /// How many calls that were hedged were answered by their first attempt.
    pub fn won_by_first(&self) -> u64 {
        self.shared.state.won_by_first.load(Relaxed)
    }

    /// How many were answered by a hedge.
    pub fn won_by_hedge(&self) -> u64 {
        self.shared.state.won_by_hedge.load(Relaxed)
    }

    /// How many were answered by neither.
    pub fn all_failed(&self) -> u64 {
        self.shared.state.lost.load(Relaxed)
    }

    /// How many hedges were due and not made for this reason.
    pub fn suppressed(&self, why: Suppressed) -> u64 {
        self.shared.state.suppressed[why as usize].load(Relaxed)
    }

    /// How late a first attempt must be now; `None` while that is not known.
    pub fn delay(&self, measured: Measured) -> Option<Duration> {
        self.shared.delay(measured)
    }

    /// How many hedges could be made now.
    pub fn balance(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
        let balance = self.shared.state.bucket.balance() as f64 / HEDGE as f64;
        balance
    }

    /// For how long there are no hedges, since somebody has too much to do; zero if there are.
    pub fn paused_for(&self) -> Duration {
        self.shared.state.pause.left(self.shared.state.now())
    }

    /// Switches hedges on or off; they are on in the beginning. It concerns calls that begin later.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.state.set_enabled(enabled);
    }

    /// Whether hedges are on.
    pub fn is_enabled(&self) -> bool {
        self.shared.state.is_enabled()
    }
}

impl Snapshot for HedgeHandle {
    fn layer(&self) -> &'static str {
        "hedge"
    }

    fn figures(&self) -> Vec<Figure> {
        let state = &self.shared.state;
        let mut figures = vec![
            Figure::counter("calls", self.calls()),
            Figure::counter("won", self.won_by_first()).label("by", "first"),
            Figure::counter("won", self.won_by_hedge()).label("by", "hedge"),
            Figure::counter("all_failed", self.all_failed()),
            Figure::gauge("budget_balance", self.balance()),
            Figure::gauge("paused_seconds", self.paused_for().as_secs_f64()),
        ];
        for (count, cause) in state.hedges.iter().zip(["slow", "failed"]) {
            let count = Figure::counter("hedges", count.load(Relaxed));
            figures.push(count.label("cause", cause));
        }
        for why in Suppressed::ALL {
            let count = Figure::counter("suppressed", self.suppressed(*why));
            figures.push(count.label("reason", why.as_str()));
        }
        for measured in Measured::ALL {
            if let Some(delay) = self.delay(*measured) {
                let delay = Figure::gauge("delay_seconds", delay.as_secs_f64());
                figures.push(delay.label("of", measured.as_str()));
            }
        }
        figures
    }
}

impl fmt::Debug for HedgeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeHandle")
            .field("calls", &self.calls())
            .field("hedges", &self.hedges())
            .field("balance", &self.balance())
            .finish_non_exhaustive()
    }
}
