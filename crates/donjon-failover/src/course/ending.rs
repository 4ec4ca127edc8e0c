//! How a call ends that nobody serves.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use donjon_core::{AttemptRef, Billed, ErrorKind, FailedAttempt, LlmError, TimeoutClock};

use super::{Course, Field};
use crate::{
    event::FailoverEvent,
    reason::{reason, with_target},
    state::TargetState,
};

/// Why there is no answer, in most cases.
const NOBODY: &str = "no target could serve";

impl Course {
    /// No target is left.
    #[cold]
    pub(super) fn exhausted(&self, field: &Field) -> LlmError {
        if !self.passed.is_empty() {
            return self.all_failed(field, NOBODY);
        }
        let off = field.roster.targets.iter().all(|t| !t.is_enabled());
        let why = if off {
            "no target is enabled"
        } else {
            "no target can be asked"
        };
        self.all_failed(field, why)
    }

    /// No target could serve.
    pub(super) fn all_failed(&self, field: &Field, why: &'static str) -> LlmError {
        let shared = &*field.shared;
        let asked = self.passed.len();
        shared.exhausted.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::AllFailed { asked });
        if let ([only], 1) = (&*self.passed, field.roster.targets.len()) {
            let target = &field.roster.targets[only.place];
            return self.end(field, with_target(only.error.clone(), target));
        }
        let reasons = self.reasons(field);
        let mut all = LlmError::new(ErrorKind::AllTargetsFailed, why);
        // The earliest moment at which one of them could work.
        let waits = reasons.iter().filter_map(|r| r.error.retry_after());
        if let Some(after) = waits.min() {
            all = all.with_retry_after(after);
        }
        if let Some(last) = self.passed.last() {
            all = all.with_source(last.error.clone());
        }
        self.end(field, all.with_attempts(reasons))
    }

    /// The error that a call ends with although targets remain.
    pub(super) fn final_error(
        &self,
        error: LlmError,
        from: &TargetState,
        field: &Field,
    ) -> LlmError {
        let error = with_target(error, from);
        let late = error.kind() == ErrorKind::Timeout(TimeoutClock::Total);
        if late && error.attempts().is_empty() && !self.passed.is_empty() {
            return error.with_attempts(self.reasons(field));
        }
        error
    }

    /// Why each target did not serve: those that were asked in the order of asking, then those that were
    /// passed over.
    pub(super) fn reasons(&self, field: &Field) -> Vec<FailedAttempt> {
        let targets = &field.roster.targets;
        let asked = self
            .passed
            .iter()
            .map(|p| FailedAttempt::new(targets[p.place].name, p.error.clone()));
        let (now, needs) = (field.shared.now(), self.needs.unwrap_or_default());
        let rest = targets.iter().enumerate().filter_map(|(place, target)| {
            let tried = self.passed.iter().any(|passed| passed.place == place);
            // How it returns does not matter here.
            let look = target.look(needs, now, Duration::ZERO);
            let error = if tried { None } else { reason(look, now) };
            Some(FailedAttempt::new(target.name, error?))
        });
        asked.chain(rest).collect()
    }

    pub(super) fn end(&self, field: &Field, error: LlmError) -> LlmError {
        // Another line of attempts knows better how many are left.
        if let Some(ledger) = self.call().ledger()
            && !self.rivals(&field.roster).any_open()
        {
            ledger.set_untried(self.untried_outside);
        }
        error
    }
}

/// Records what the attempt that was opened for a target failed with. A driver further in may have
/// sent it and opened more, or may have opened its own and sent none under this one.
pub(super) fn close(attempt: &AttemptRef, error: &LlmError) {
    if !attempt.was_sent() {
        let mut all = attempt.ledger().attempts();
        if !all.any(|other| other.parent == Some(attempt.index())) {
            return attempt.fail(error);
        }
        attempt.set_billed(Billed::No);
    }
    attempt.set_error(error);
    attempt.stamp_ended();
}

/// The first error, that nobody went on, and why not.
pub(super) fn not_resumed(
    first: LlmError,
    reasons: Vec<FailedAttempt>,
    why: &'static str,
) -> LlmError {
    let mut message = String::from(first.message());
    if !message.is_empty() {
        message.push_str("; ");
    }
    message.push_str("the stream was not resumed: ");
    message.push_str(why);
    let mut told = LlmError::new(first.kind(), message).with_scope(first.scope());
    if let Some(target) = first.target() {
        told = told.with_target(target);
    }
    if let Some(provider) = first.provider() {
        told = told.with_provider(provider);
    }
    if let Some(status) = first.status() {
        told = told.with_status(status);
    }
    if let Some(code) = first.code() {
        told = told.with_code(code);
    }
    if let Some(after) = first.retry_after() {
        told = told.with_retry_after(after);
    }
    if let Some(hints) = first.hints() {
        told = told.with_hints(hints.clone());
    }
    // A single reason is the error itself.
    if reasons.len() > 1 {
        told = told.with_attempts(reasons);
    }
    told.with_source(first)
}
