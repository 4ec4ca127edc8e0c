//! What a cache shows of itself.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use donjon_core::{ErrorKind, Events, Figure, Snapshot};

use crate::{flight::Flights, key::CacheKey, state::State, store::Invalidate};

/// Reads and controls the state that all clones and services of one [`CacheLayer`] share.
///
/// [`CacheLayer`]: crate::CacheLayer
#[derive(Clone)]
pub struct CacheHandle {
    state: Arc<State>,
}

/// What a cache tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheEvent {
    /// An answer was kept.
    Stored {
        /// Under which key.
        key: CacheKey,
        /// About how many bytes it takes.
        bytes: u64,
    },
    /// Entries were invalidated.
    Invalidated {
        /// Which.
        which: Invalidate,
        /// How many there were in memory.
        entries: usize,
    },
    /// An entry was renewed while it was given.
    Refreshed {
        /// Which.
        key: CacheKey,
    },
    /// An entry could not be renewed; it will be tried again while it is given.
    RefreshFailed {
        /// Which.
        key: CacheKey,
        /// Why; `None` where it took too long.
        error: Option<ErrorKind>,
    },
    /// A call upstream failed, and was answered with what was kept.
    AnsweredInstead {
        /// What it failed with.
        error: ErrorKind,
    },
    /// The store failed.
    StoreFailed {
        /// What it said.
        error: Arc<str>,
    },
    /// The store took too long.
    StoreTimedOut {
        /// How long it was given.
        within: Duration,
    },
}

/// Why an answer that could have been kept was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// It was an error, or broke off.
    Error,
    /// The call was dropped.
    Cancelled,
    /// It is longer than `max_entry_bytes`.
    TooLong,
    /// A choice has no finish reason, or is missing.
    Unfinished,
    /// It was cut at its limit of tokens, and the strategy keeps no such answers.
    Truncated,
    /// A filter held some of it back.
    Filtered,
    /// It calls tools, and the strategy keeps no such answers.
    ToolCalls,
    /// It came from another cache.
    Cached,
    /// It was invalidated while it was on its way.
    Invalidated,
}

impl Refused {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Error,
        Self::Cancelled,
        Self::TooLong,
        Self::Unfinished,
        Self::Truncated,
        Self::Filtered,
        Self::ToolCalls,
        Self::Cached,
        Self::Invalidated,
    ];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::TooLong => "too_long",
            Self::Unfinished => "unfinished",
            Self::Truncated => "truncated",
            Self::Filtered => "filtered",
            Self::ToolCalls => "tool_calls",
            Self::Cached => "cached",
            Self::Invalidated => "invalidated",
        }
    }

    pub(crate) const fn place(self) -> usize {
        Count::Refused as usize + self as usize
    }
}

/// The places of what is counted.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Hits,
    Misses,
    LateHits,
    Stale,
    OnError,
    Negative,
    Bypassed,
    Stored,
    Evicted,
    Expired,
    Invalidated,
    Refreshes,
    RefreshFailures,
    StoreHits,
    StoreErrors,
    StoreTimeouts,
    /// The first of the reasons for not keeping an answer.
    Refused,
}

impl Count {
    pub(crate) const ALL: usize = Self::Refused as usize + Refused::ALL.len();
}

impl CacheHandle {
    /// The calls in the air that others who ask the same can join; `None` where each makes its own.
    pub fn single_flight(&self) -> Option<&Flights> {
        self.state.config.flights.as_ref()
    }

    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn get(&self, what: Count) -> u64 {
        self.state.counts.get(what as usize)
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<CacheEvent> {
        &self.state.events
    }

    /// How many calls were answered with what was kept and fresh, refusals included.
    pub fn hits(&self) -> u64 {
        self.get(Count::Hits)
    }

    /// How many calls were answered with what was kept and is being renewed.
    pub fn stale_hits(&self) -> u64 {
        self.get(Count::Stale)
    }

    /// How many calls upstream failed and were answered with what was kept.
    pub fn answered_instead(&self) -> u64 {
        self.get(Count::OnError)
    }

    /// How many of the hits were refusals.
    pub fn negative_hits(&self) -> u64 {
        self.get(Count::Negative)
    }

    /// How many calls that could have been answered here were not.
    pub fn misses(&self) -> u64 {
        self.get(Count::Misses)
    }

    /// How many of the misses were answered all the same, by a call of somebody else that ended just
    /// then.
    pub fn late_hits(&self) -> u64 {
        self.get(Count::LateHits)
    }

    /// How many calls the strategy had no answers for.
    pub fn bypassed(&self) -> u64 {
        self.get(Count::Bypassed)
    }

    /// How many answers were kept.
    pub fn stored(&self) -> u64 {
        self.get(Count::Stored)
    }

    /// How many answers were not kept for the reason `why`.
    pub fn refused(&self, why: Refused) -> u64 {
        self.state.counts.get(why.place())
    }

    /// How many entries had to make room for others.
    pub fn evicted(&self) -> u64 {
        self.get(Count::Evicted)
    }

    /// How many entries were released when they were good for nothing.
    pub fn expired(&self) -> u64 {
        self.get(Count::Expired)
    }

    /// How many entries were invalidated.
    pub fn invalidated(&self) -> u64 {
        self.get(Count::Invalidated)
    }

    /// How many entries were renewed while they were given.
    pub fn refreshes(&self) -> u64 {
        self.get(Count::Refreshes)
    }

    /// How many could not be.
    pub fn refresh_failures(&self) -> u64 {
        self.get(Count::RefreshFailures)
    }

    /// How many answers the store had.
    pub fn store_hits(&self) -> u64 {
        self.get(Count::StoreHits)
    }

    /// How often the store failed, or gave what cannot be read.
    pub fn store_errors(&self) -> u64 {
        self.get(Count::StoreErrors)
    }

    /// How often the store took too long.
    pub fn store_timeouts(&self) -> u64 {
        self.get(Count::StoreTimeouts)
    }

    /// How many entries there are in memory.
    pub fn entries(&self) -> usize {
        self.state.memory.entries()
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> u64 {
        self.state.memory.bytes()
    }

    /// The most that they may take.
    pub fn max_bytes(&self) -> u64 {
        self.state.config.max_bytes
    }

    /// Forgets what `which` names, also what is on its way; tells how many entries there were in
    /// memory. The store, if there is one, is told in the background.
    pub fn invalidate(&self, which: impl Into<Invalidate>) -> usize {
        self.state.invalidate(&which.into())
    }

    /// Releases whatever is good for nothing now, rather than when calls come by; tells how many
    /// entries that were.
    pub fn sweep(&self) -> usize {
        let released = self.state.memory.sweep_all(self.state.now());
        self.state
            .counts
            .add(Count::Expired as usize, released as u64);
        released
    }

    /// Whether calls are looked up and kept; set it to `false` and all go upstream.
    pub fn set_enabled(&self, enabled: bool) {
        self.state.enabled.store(enabled, Relaxed);
    }

    /// Whether calls are looked up and kept.
    pub fn is_enabled(&self) -> bool {
        self.state.enabled.load(Relaxed)
    }
}

impl Snapshot for CacheHandle {
    fn layer(&self) -> &'static str {
        "cache"
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "exact up to 2^53, as exporters have it"
    )]
    fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![
            Figure::counter("hits", self.hits()),
            Figure::counter("stale_hits", self.stale_hits()),
            Figure::counter("negative_hits", self.negative_hits()),
            Figure::counter("answered_instead", self.answered_instead()),
            Figure::counter("misses", self.misses()),
            Figure::counter("late_hits", self.late_hits()),
            Figure::counter("bypassed", self.bypassed()),
            Figure::counter("stored", self.stored()),
            Figure::counter("evicted", self.evicted()),
            Figure::counter("expired", self.expired()),
            Figure::counter("invalidated", self.invalidated()),
            Figure::counter("refreshes", self.refreshes()),
            Figure::counter("refresh_failures", self.refresh_failures()),
            Figure::counter("store_hits", self.store_hits()),
            Figure::counter("store_errors", self.store_errors()),
            Figure::counter("store_timeouts", self.store_timeouts()),
            Figure::gauge("entries", self.entries() as f64),
            Figure::gauge("bytes", self.bytes() as f64),
            Figure::gauge("max_bytes", self.max_bytes() as f64),
        ];
        let refused = Refused::ALL.iter().map(|why| {
            Figure::counter("refused", self.refused(*why)).label("reason", why.as_str())
        });
        figures.extend(refused);
        figures
    }
}

impl fmt::Debug for CacheHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle")
            .field("state", &self.state)
            .finish()
    }
}
