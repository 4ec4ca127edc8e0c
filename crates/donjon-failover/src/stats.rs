//! The figures of a target.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use donjon_core::{ErrorKind, LlmError, Name};

use crate::{
    event::DownReason,
    measure::millis,
    report::TargetStatus,
    state::{Shared, TargetState},
};

/// The figures of one target.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetStats {
    /// Its name.
    pub name: Name,
    /// Whether it is asked.
    pub enabled: bool,
    /// How it stands.
    pub status: TargetStatus,
    /// Why it was taken out, until it is up again.
    pub reason: Option<DownReason>,
    /// How often it was taken out.
    pub ejections: u64,
    /// For how many calls it could not do what they need.
    pub incapable: u64,
    /// How long it takes to the first token, where that is measured; it fades.
    pub first_token: Option<Duration>,
    /// How many calls it was given; retries further in are not counted.
    pub calls: u64,
    /// How many of them succeeded, streams to their last chunk.
    pub successes: u64,
    /// How many of them were dropped.
    pub cancelled: u64,
    /// How many of them failed, before the commit point or after it, by kind.
    pub failures: Vec<(ErrorKind, u64)>,
    /// What the last of these failed with.
    pub last_error: Option<LlmError>,
}

impl TargetStats {
    pub(crate) fn of(shared: &Shared, state: &TargetState) -> Self {
        let figures = &state.figures;
        let now = millis(shared.now());
        let first_token = state.first_token.read(now, shared.config.decay);
        Self {
            name: state.name,
            enabled: state.is_enabled(),
            status: TargetStatus::of(shared, state),
            reason: TargetStatus::reason(shared, state),
            ejections: state.ejections.load(Relaxed),
            incapable: state.incapable.load(Relaxed),
            first_token: first_token.map(|ms| Duration::from_secs_f32(ms / 1e3)),
            successes: figures.successes(),
            cancelled: figures.cancelled(),
            failures: figures.failures_by_kind(),
            last_error: figures.last_error(),
            // Read last, so that no more seem to have ended than began.
            calls: figures.calls(),
        }
    }

    /// How many calls failed with `kind`.
    pub fn failed_with(&self, kind: ErrorKind) -> u64 {
        let mut of_kind = self.failures.iter().filter(|(k, _)| *k == kind);
        of_kind.next().map_or(0, |(_, count)| *count)
    }

    /// How many calls failed.
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }

    /// How many calls have not ended.
    pub fn in_flight(&self) -> u64 {
        let ended = self.successes + self.cancelled + self.failed();
        self.calls.saturating_sub(ended)
    }
}
