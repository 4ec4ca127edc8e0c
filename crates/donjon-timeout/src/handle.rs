//! What a timeout layer shows of itself.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use donjon_core::{Figure, Snapshot, TimeoutClock};

use crate::{layer::Shared, timeouts::name};

/// Reads the figures that all clones and services of one [`TimeoutLayer`](crate::TimeoutLayer)
/// share.
#[derive(Clone)]
pub struct TimeoutHandle {
    shared: Arc<Shared>,
}

impl TimeoutHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How often this clock ran out. Those of [`Connect`](TimeoutClock::Connect) ran out in the
    /// transport and went by here.
    pub fn timeouts(&self, clock: TimeoutClock) -> u64 {
        self.shared
            .counters
            .of(clock)
            .map_or(0, |count| count.load(Relaxed))
    }
}

impl Snapshot for TimeoutHandle {
    fn layer(&self) -> &'static str {
        "timeout"
    }

    fn figures(&self) -> Vec<Figure> {
        let clocks = CLOCKS.into_iter();
        let figures = clocks.map(|clock| {
            Figure::counter("timeouts", self.timeouts(clock)).label("clock", name(clock))
        });
        figures.collect()
    }
}

impl fmt::Debug for TimeoutHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TimeoutHandle");
        for clock in CLOCKS {
            out.field(name(clock), &self.timeouts(clock));
        }
        out.finish()
    }
}

const CLOCKS: [TimeoutClock; 5] = [
    TimeoutClock::Connect,
    TimeoutClock::FirstToken,
    TimeoutClock::Idle,
    TimeoutClock::Response,
    TimeoutClock::Total,
];

/// How often each clock ran out.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; CLOCKS.len()]);

impl Counters {
    pub(crate) fn count(&self, clock: TimeoutClock) {
        if let Some(count) = self.of(clock) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn of(&self, clock: TimeoutClock) -> Option<&AtomicU64> {
        let at = CLOCKS.iter().position(|one| *one == clock)?;
        self.0.get(at)
    }
}
