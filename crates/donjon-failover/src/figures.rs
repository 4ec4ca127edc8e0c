//! How the calls that a target was given went.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use donjon_core::{Counts, ErrorKind, LlmError, Outcome};

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
