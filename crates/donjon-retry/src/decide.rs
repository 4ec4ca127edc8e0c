//! What happens next in a call.

use std::time::Duration;

use donjon_core::{Call, Classify, ErrorKind, Health, LlmError, LlmRequest, ReservedAttempt};
use tokio::time::Instant;

use crate::{
    backoff::BackoffState,
    handle::Parked,
    layer::Shared,
    policy::{Allowance, GiveUp, hint},
};

/// How far a call has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Attempts at this target that were sent.
    pub(crate) sent: u32,
    /// Attempts at this target, sent or refused before.
    pub(crate) opened: u32,
    pub(crate) backoff: BackoffState,
}

/// A wait that was allowed, with what was taken for it.
pub(crate) struct Wait {
    pub(crate) parked: Parked,
    pub(crate) length: Duration,
    /// Room for the attempt in the call's ledger, unless it is the first.
    pub(crate) room: Option<ReservedAttempt>,
}

impl<C: Classify> Shared<C> {
    /// Decides what follows `error`: a wait before the next attempt, or nothing, and why.
    /// `request` is there if another attempt could be made of it.
    pub(crate) fn after(
        &self,
        error: &LlmError,
        request: Option<&LlmRequest>,
        progress: &mut Progress,
    ) -> Result<Wait, GiveUp> {
        let kind = error.kind();
        let disposition = self.classify.classify(error);
        let now = Instant::now();
        if let Some(rate) = &self.state.rate
            && disposition.health == Health::Overload
        {
            rate.throttled(self.state.since_epoch(now));
        }
        if !disposition.retry {
            return Err(GiveUp::NotRetryable);
        }
        let request = request.ok_or(GiveUp::Exhausted)?;
        let rule = self.policy.rule(kind);
        // What was refused before it was sent uses up nothing, yet must not go on for ever.
        let refused = progress.opened - progress.sent;
        if progress.sent.max(refused) >= rule.max_attempts {
            return Err(GiveUp::Exhausted);
        }
        let room = request.call.reserve_retry(rule.max_attempts);
        let room = Some(room.ok_or(GiveUp::Exhausted)?);
        if self.state.is_disabled() {
            return Err(GiveUp::Disabled);
        }

        let allowance = Allowance::of(&request.call);
        let asked = hint(error, disposition.health, now);
        let mut length = match asked {
            // A wait that the server asks for does not advance the backoff.
            Some(asked) => allowance.check_hint(asked, fastrand::f64())?,
            None => {
                let next = rule.backoff.next(&mut progress.backoff, fastrand::f64());
                allowance.check(next)?
            }
        };
        let mut parked = self.state.park(self.policy.max_parked)?;
        length = allowance.check(length.max(parked.take_turn(now)))?;
        parked.withdraw(kind, now)?;
        self.state
            .tell_retry(kind, progress.opened, length, asked.is_some());
        Ok(Wait {
            parked,
            length,
            room,
        })
    }

    /// Whether the rate control holds the first attempt of `call` back.
    pub(crate) fn before_first(&self, call: &Call) -> Result<Option<Wait>, LlmError> {
        let Some(rate) = &self.state.rate else {
            return Ok(None);
        };
        let length = rate.acquire(self.state.since_epoch(Instant::now()));
        if length.is_zero() {
            return Ok(None);
        }
        self.state.withhold();
        let allowed = Allowance::of(call)
            .check(length)
            .and_then(|_| self.state.park(self.policy.max_parked));
        match allowed {
            Ok(mut parked) => {
                parked.wait_for_first();
                let room = None;
                Ok(Some(Wait {
                    parked,
                    length,
                    room,
                }))
            }
            Err(reason) => {
                rate.give_back();
                let kind = ErrorKind::LimitedLocally;
                self.state.give_up(kind, 0, reason);
                let message = "the rate that the provider lets pass leaves no turn in time";
                Err(LlmError::new(kind, message).with_retry_after(length))
            }
        }
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&self, progress: &Progress) {
        if progress.opened > 1 {
            self.state.recover(progress.opened);
        }
        if let Some(rate) = &self.state.rate {
            rate.succeeded(self.state.since_epoch(Instant::now()));
        }
    }

    /// Hands `error` on for good. Whoever is asked next learns from it when this target could be
    /// asked again, also where only the limits say so.
    pub(crate) fn give_up(&self, error: LlmError, progress: &Progress, reason: GiveUp) -> LlmError {
        self.state.give_up(error.kind(), progress.opened, reason);
        if error.retry_after().is_none_or(|wait| wait.is_zero())
            && error.hints().is_some()
            && let health = self.classify.classify(&error).health
            && let Some(wait) = hint(&error, health, Instant::now())
        {
            return error.with_retry_after(wait);
        }
        error
    }
}
