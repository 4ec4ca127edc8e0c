//! Which clocks ran out how often.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use donjon_core::{Figure, Snapshot, TimeoutClock};

const CLOCKS: [TimeoutClock; 4] = [
    TimeoutClock::FirstToken,
    TimeoutClock::Idle,
    TimeoutClock::Response,
    TimeoutClock::Total,
];

/// How often each clock ran out.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; CLOCKS.len()]);

impl Counts {
    fn of(&self, clock: TimeoutClock) -> Option<&AtomicU64> {
        let at = CLOCKS.iter().position(|known| *known == clock)?;
        Some(&self.0[at])
    }

    pub(crate) fn add(&self, clock: TimeoutClock) {
        if let Some(count) = self.of(clock) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Reads which clocks ran out how often.
#[derive(Clone, Debug)]
pub struct TimeoutHandle {
    counts: Arc<Counts>,
}

impl TimeoutHandle {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        Self { counts }
    }

    /// How often `clock` ran out; always zero for the transport's own.
    pub fn timed_out(&self, clock: TimeoutClock) -> u64 {
        self.counts.of(clock).map_or(0, |count| count.load(Relaxed))
    }
}

impl Snapshot for TimeoutHandle {
    fn layer(&self) -> &'static str {
        "timeout"
    }

    fn figures(&self) -> Vec<Figure> {
        CLOCKS
            .into_iter()
            .map(|clock| {
                let word = match clock {
                    TimeoutClock::FirstToken => "first_token",
                    TimeoutClock::Idle => "idle",
                    TimeoutClock::Response => "response",
                    _ => "total",
                };
                Figure::counter("timed_out", self.timed_out(clock)).label("clock", word)
            })
            .collect()
    }
}
