//! The attempts of a call that has more than one.

use std::pin::Pin;

use donjon_core::{
    AttemptCause, AttemptRef, Billed, DropReason, FailedAttempt, LlmError, LlmRequest,
    ReservedAttempt, shape::ReadyCall,
};
use tower_service::Service;

use crate::{handle::Measured, layer::Shared};

/// A hedge that is under way.
pub(crate) struct Line<S: Service<LlmRequest>> {
    pub(crate) call: Pin<Box<ReadyCall<S>>>,
    pub(crate) attempt: AttemptRef,
    pub(crate) room: ReservedAttempt,
}

/// The hedges of a call, and what became of those that ended.
pub(crate) struct Race<S: Service<LlmRequest>> {
    /// The first attempt; others may follow from it.
    pub(crate) root: AttemptRef,
    pub(crate) lines: Vec<Line<S>>,
    /// The attempts of all hedges that were made.
    made: Vec<u32>,
    /// What the first attempt failed with.
    pub(crate) error: Option<LlmError>,
    /// What hedges failed with.
    errors: Vec<(AttemptRef, LlmError)>,
}

impl<S: Service<LlmRequest>> Race<S> {
    pub(crate) const fn new(root: AttemptRef) -> Self {
        Self {
            root,
            lines: Vec::new(),
            made: Vec::new(),
            error: None,
            errors: Vec::new(),
        }
    }

    /// How many hedges were made.
    pub(crate) const fn made(&self) -> usize {
        self.made.len()
    }

    /// One more hedge is under way.
    pub(crate) fn add(&mut self, line: Line<S>) {
        self.made.push(line.attempt.index());
        self.lines.push(line);
    }

    /// The attempt that is slow: the last of the first line.
    pub(crate) fn latest(&self) -> u32 {
        let all: Vec<_> = self.root.ledger().attempts().collect();
        let mut at = self.root.index();
        for seen in all.iter().skip(at as usize + 1) {
            if seen.cause != AttemptCause::Hedge && seen.parent == Some(at) {
                at = seen.index;
            }
        }
        at
    }

    /// The first attempt has failed.
    pub(crate) fn first_failed(&mut self, error: LlmError) {
        close(&self.root, &error);
        self.error = Some(error);
    }

    /// The hedge at this place has failed.
    pub(crate) fn hedge_failed(&mut self, at: usize, error: LlmError, shared: &Shared) {
        let line = self.lines.remove(at);
        drop(line.call);
        close(&line.attempt, &error);
        give_back(&line.attempt, shared);
        drop(line.room);
        self.errors.push((line.attempt, error));
    }

    /// Lets go of each hedge: somebody else was faster.
    pub(crate) fn supersede_hedges(&mut self, shared: &Shared) {
        for line in self.lines.drain(..) {
            supersede(&line.attempt, &self.made);
            drop(line.call);
            line.attempt.stamp_ended();
            give_back(&line.attempt, shared);
        }
    }

    /// Lets go of the first attempt by `drop`: the `winner` was faster.
    pub(crate) fn supersede_first(&self, measured: Measured, shared: &Shared, drop: impl FnOnce()) {
        if self.error.is_some() {
            return;
        }
        let ledger = self.root.ledger();
        let sent = (self.root.index()..ledger.opened()).find_map(|index| ledger.sent_at(index));
        if let Some(sent) = sent {
            shared.state.took_longer(measured, sent.elapsed());
        }
        supersede(&self.root, &self.made);
        drop();
        self.root.stamp_ended();
    }

    /// Nobody has answered.
    pub(crate) fn all_failed(&mut self) -> Option<LlmError> {
        let first = self.error.take()?;
        if self.errors.is_empty() {
            return Some(first);
        }
        let mut attempts = first.attempts().to_vec();
        let mut wait = first.retry_after();
        for (attempt, error) in self.errors.drain(..) {
            wait = match (wait, error.retry_after()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if error.attempts().is_empty() {
                let target = error.target().or_else(|| attempt.target());
                let target = target.unwrap_or_else(|| "hedge".into());
                attempts.push(FailedAttempt::new(target, error));
            } else {
                attempts.extend(error.attempts().iter().cloned());
            }
        }
        let error = first.with_attempts(attempts);
        Some(match wait {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        })
    }
}

/// Says of an attempt, and of those that follow from it and are open, that another one took over: of its
/// own line, not of the `hedges` that were made beside it.
fn supersede(attempt: &AttemptRef, hedges: &[u32]) {
    attempt.set_dropped(DropReason::Superseded);
    let (ledger, from) = (attempt.ledger(), attempt.index());
    let all: Vec<_> = ledger.attempts().collect();
    let follows = |mut index: u32| {
        while index > from {
            let parent = all.get(index as usize).and_then(|seen| seen.parent);
            match parent.filter(|_| !hedges.contains(&index)) {
                Some(parent) => index = parent,
                None => return false,
            }
        }
        index == from
    };
    for seen in all.iter().skip(from as usize) {
        let open = seen.ended_at.is_none() && seen.committed_at.is_none();
        if open
            && follows(seen.index)
            && let Some(one) = ledger.at(seen.index)
        {
            one.set_dropped(DropReason::Superseded);
        }
    }
}

/// Records what `attempt` failed with. A driver further in may have opened others under it, and then it
/// was not sent itself.
fn close(attempt: &AttemptRef, error: &LlmError) {
    let index = attempt.index();
    let mut others = attempt.ledger().attempts().skip(index as usize + 1);
    let stands_for_others =
        others.any(|other| other.parent == Some(index) && other.cause != AttemptCause::Hedge);
    if attempt.was_sent() || !stands_for_others {
        return attempt.fail(error);
    }
    attempt.set_billed(Billed::No);
    attempt.set_error(error);
    attempt.stamp_ended();
}

/// A hedge that was never sent has cost nothing.
fn give_back(attempt: &AttemptRef, shared: &Shared) {
    if !attempt.led_to_sending() {
        shared.state.bucket.refund();
    }
}
