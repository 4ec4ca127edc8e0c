//! What calls came to, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use donjon_core::Counts;

use crate::state::CircuitState;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Success,
    Failure,
    /// Beside what else it was.
    Slow,
    Neutral,
    Cancelled,
    Late,
    Rejected,
    /// It passed without a circuit.
    Untracked,
    Transition(CircuitState),
}

const CALLS: usize = 8;
const ALL: usize = CALLS + CircuitState::ALL.len();

impl Event {
    const fn at(self) -> usize {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Slow => 2,
            Self::Neutral => 3,
            Self::Cancelled => 4,
            Self::Late => 5,
            Self::Rejected => 6,
            Self::Untracked => 7,
            Self::Transition(to) => CALLS + to as usize,
        }
    }
}

/// The figures of all circuits of a layer, those that were forgotten included.
#[derive(Debug, Default)]
pub(crate) struct Total(Counts<ALL>);

/// The figures of one circuit of many.
#[derive(Debug, Default)]
pub(crate) struct Own([AtomicU64; ALL]);

/// How often it happened.
pub(crate) trait Figures {
    fn get(&self, event: Event) -> u64;
}

impl Total {
    pub(crate) fn count(&self, event: Event) {
        self.0.add(event.at(), 1);
    }
}

impl Figures for Total {
    fn get(&self, event: Event) -> u64 {
        self.0.get(event.at())
    }
}

impl Own {
    pub(crate) fn count(&self, event: Event) {
        self.0[event.at()].fetch_add(1, Relaxed);
    }
}

impl Figures for Own {
    fn get(&self, event: Event) -> u64 {
        self.0[event.at()].load(Relaxed)
    }
}
