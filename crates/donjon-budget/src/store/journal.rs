//! The journal as those see it who settle.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Journal, StoreError, entry::Entry, sums::Sums};

/// Writes entries down, and holds what could not be.
pub(crate) struct Ink {
    pub(crate) journal: Arc<dyn Journal>,
    /// What could not be written, as sums, so that it takes no more room the longer it lasts.
    missed: Mutex<Sums>,
}

impl Ink {
    pub(crate) fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            journal,
            missed: Mutex::default(),
        }
    }

    /// Writes `entry` down, or keeps it in mind and says why.
    #[inline]
    pub(crate) fn write(&self, entry: &Entry) -> Result<(), StoreError> {
        let written = self.journal.append(entry.bytes());
        if written.is_err() {
            self.miss(entry);
        }
        written
    }

    #[cold]
    fn miss(&self, entry: &Entry) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.apply(entry.bytes());
    }

    /// What could not be written until now.
    pub(crate) fn missed(&self) -> Sums {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *missed)
    }
}

impl fmt::Debug for Ink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ink")
    }
}
