//! What a layer counts, and what it tells of.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use donjon_core::{Counts, Key};

use crate::error::{Reason, Refusal};

/// What a rate limit tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimitEvent {
    /// A call was refused.
    Refused {
        /// The key that it falls under.
        key: Key,
        /// Why.
        refusal: Refusal,
    },
    /// A call waits for its turn.
    Queued {
        /// The key that it falls under.
        key: Key,
        /// How long it will take, if nobody leaves and nothing is given back.
        expected: Duration,
    },
    /// The provider asked to be left alone, longer than it was known.
    Stopped {
        /// The key that is stopped.
        key: Key,
        /// For how long.
        pause: Duration,
    },
}

/// What is counted for the whole layer. What every call counts is counted
/// without contention.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    admitted: Counts<1>,
    waited: AtomicU64,
    excess: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Figures {
    #[inline]
    pub(crate) fn admit(&self) {
        self.admitted.add(0, 1);
    }

    pub(crate) fn wait(&self) {
        self.waited.fetch_add(1, Relaxed);
    }

    pub(crate) fn excess(&self, amount: u64) {
        self.excess.fetch_add(amount, Relaxed);
    }

    pub(crate) fn refuse(&self, reason: Reason) {
        if let Some(count) = self.of(reason) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn admitted(&self) -> u64 {
        self.admitted.get(0)
    }

    pub(crate) fn waited(&self) -> u64 {
        self.waited.load(Relaxed)
    }

    pub(crate) fn total_excess(&self) -> u64 {
        self.excess.load(Relaxed)
    }

    pub(crate) fn refused(&self, reason: Reason) -> u64 {
        self.of(reason).map_or(0, |count| count.load(Relaxed))
    }

    fn of(&self, reason: Reason) -> Option<&AtomicU64> {
        let at = Reason::ALL.iter().position(|known| *known == reason)?;
        self.refused.get(at)
    }
}
