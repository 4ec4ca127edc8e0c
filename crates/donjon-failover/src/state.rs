//! What all clones of a failover share: its targets, their figures, what it decides by.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use donjon_core::{
    Classify, Counts, DefaultTable, Disposition, End, ErrorKind, Events, LlmError, Name, Observer,
    Outcome,
};

use crate::{
    handle::FailoverEvent,
    route::Route,
    target::{Models, Target},
};

/// How many events are kept for the slowest listener.
const EVENTS: usize = 256;

/// What all clones of a failover share.
pub(crate) struct Shared {
    pub(crate) targets: Box<[TargetState]>,
    pub(crate) patience: Duration,
    pub(crate) classify: Box<dyn Classify>,
    /// `None`: as they were configured.
    pub(crate) route: Option<Box<dyn Route>>,
    pub(crate) events: Events<FailoverEvent>,
    /// How often another target was asked after one failed.
    pub(crate) failovers: AtomicU64,
    /// How many calls every target failed.
    pub(crate) exhausted: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        targets: Vec<TargetState>,
        patience: Duration,
        classify: Box<dyn Classify>,
        route: Option<Box<dyn Route>>,
    ) -> Self {
        Self {
            targets: targets.into(),
            patience,
            classify,
            route,
            events: Events::new(EVENTS),
            failovers: AtomicU64::new(0),
            exhausted: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("targets", &self.targets)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// Core's table, but for a target that is a failover itself: that none of its targets could serve is
/// final for whoever called it, and to the failover around it just one target that failed.
pub(crate) fn group_table(error: &LlmError) -> Disposition {
    let mut row = DefaultTable.classify(error);
    row.failover |= error.kind() == ErrorKind::AllTargetsFailed;
    row
}

/// One target, without its service.
pub(crate) struct TargetState {
    pub(crate) name: Name,
    pub(crate) models: Models,
    enabled: AtomicBool,
    pub(crate) figures: Figures,
}

impl TargetState {
    pub(crate) fn of<S>(target: &Target<S>) -> Self {
        Self {
            name: target.name,
            models: target.models.clone(),
            enabled: AtomicBool::new(target.enabled),
            figures: Figures::default(),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Acquire)
    }

    /// Enables or disables it; whether that changed anything.
    pub(crate) fn set_enabled(&self, enabled: bool) -> bool {
        self.enabled.swap(enabled, AcqRel) != enabled
    }
}

impl fmt::Debug for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("enabled", &self.is_enabled())
            .field("calls", &self.figures.calls())
            .finish_non_exhaustive()
    }
}

/// How the calls that a target was given went.
#[derive(Default)]
pub(crate) struct Figures {
    /// What every call counts.
    counts: Counts<2>,
    cancelled: AtomicU64,
    failures: [AtomicU64; ErrorKind::ALL.len()],
    /// Locked when a call fails, and by those who read the figures.
    last_error: Mutex<Option<LlmError>>,
}

/// The places of [`Figures::counts`].
const CALLS: usize = 0;
const SUCCESSES: usize = 1;

impl Figures {
    /// A call is given to the target.
    #[inline]
    pub(crate) fn begin(&self) {
        self.counts.add(CALLS, 1);
    }

    /// A call has succeeded.
    #[inline]
    pub(crate) fn succeed(&self) {
        self.counts.add(SUCCESSES, 1);
    }

    /// A call ended like this.
    pub(crate) fn end(&self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Success => self.succeed(),
            Outcome::Failure(error) => self.fail(error),
            Outcome::Cancelled { .. } => {
                self.cancelled.fetch_add(1, Relaxed);
            }
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.counts.get(CALLS)
    }

    pub(crate) fn successes(&self) -> u64 {
        self.counts.get(SUCCESSES)
    }

    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(crate) fn failures_by_kind(&self) -> Vec<(ErrorKind, u64)> {
        let counts = self.failures.iter().map(|count| count.load(Relaxed));
        let all = ErrorKind::ALL.iter().copied().zip(counts);
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Calls that have not ended. Figures are read one after another, so it may be off by those that
    /// begin or end meanwhile.
    pub(crate) fn in_flight(&self) -> u64 {
        let ended = self.successes() + self.cancelled() + self.failures();
        self.calls().saturating_sub(ended)
    }

    pub(crate) fn last_error(&self) -> Option<LlmError> {
        let last = self.last_error.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call has failed.
    pub(crate) fn fail(&self, error: &LlmError) {
        let kind = error.kind();
        if let Some(at) = ErrorKind::ALL.iter().position(|known| *known == kind) {
            self.failures[at].fetch_add(1, Relaxed);
        }
        let last = self.last_error.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let before = last.replace(error.clone());
        // What drops with the old error is not ours, so it goes after the lock.
        drop(last);
        drop(before);
    }
}

/// Counts the end of a call whose answer comes chunk by chunk.
pub(crate) struct Tally {
    shared: Arc<Shared>,
    place: usize,
}

impl Tally {
    pub(crate) const fn new(shared: Arc<Shared>, place: usize) -> Self {
        Self { shared, place }
    }
}

impl Observer for Tally {
    fn end(&mut self, end: &End<'_>) {
        self.shared.targets[self.place].figures.end(end.outcome);
    }
}
