//! The way of one call through its targets: who is next, what is kept, how it ends.
//!
//! Nothing here waits, and nothing knows the service: [`FailoverFuture`](crate::FailoverFuture) asks
//! whom it is told to and comes back with what that said.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use donjon_core::{
    Attempt, AttemptCause, AttemptRef, Billed, Call, ErrorKind, FailedAttempt, Head, Ledger,
    LlmError, LlmRequest, TimeoutClock,
};
use tokio::time::Instant;

use crate::{
    handle::FailoverEvent,
    route::{Order, Targets},
    state::{Figures, Shared, TargetState},
};

/// Why there is no answer, in most cases.
const NOBODY: &str = "no target could serve";

/// The way of one call through its targets.
pub(crate) struct Course {
    order: Order,
    /// How many of them had their turn.
    turn: usize,
    /// The target that is being asked.
    place: usize,
    kept: Kept,
    /// Filled only where a target did not serve.
    passed: Vec<Passed>,
    /// How many targets can be asked after this one.
    left: u32,
    /// Targets that failovers around this one have not tried yet.
    untried_outside: u32,
}

/// What is kept of the request while a target works on it.
enum Kept {
    /// The request, for the targets that remain.
    Request(LlmRequest),
    /// Its call and the model that was asked for, where no target remains: the request itself went to
    /// the last one.
    Call(Call, Arc<str>),
}

/// A target that had its turn and did not serve.
struct Passed {
    place: usize,
    /// `None`: it was disabled.
    error: Option<LlmError>,
}

/// What comes next: the target at [`Course::place`] is asked, or the call is answered with an error.
pub(crate) type Step = Result<(), LlmError>;

impl Course {
    /// The way of `request`, which has not set out yet.
    #[inline]
    pub(crate) fn new(shared: &Shared, request: LlmRequest) -> Self {
        Self {
            order: Order::in_turn(shared.targets.len()),
            turn: 0,
            place: 0,
            kept: Kept::Request(request),
            passed: Vec::new(),
            left: 0,
            untried_outside: 0,
        }
    }

    /// Sets out, and says whom to ask first.
    #[inline]
    pub(crate) fn begin(&mut self, shared: &Shared) -> Step {
        let mut enabled = 0;
        if let Kept::Request(request) = &mut self.kept {
            if let Some(route) = &shared.route {
                self.order = route.order(Targets::new(shared), request);
            }
            enabled = count_enabled(shared, &self.order, 0);
            request.call.patience.get_or_insert(shared.patience);
            request.call.begin();
            if let Some(ledger) = request.call.ledger() {
                self.untried_outside = ledger.untried();
                if !meets_again(shared, &request.call) {
                    let more = enabled.saturating_sub(1);
                    ledger.set_targets(ledger.targets().saturating_add(more));
                }
            }
        }
        match self.next_target(shared) {
            Some(place) => {
                let left = enabled.saturating_sub(1);
                self.ask(shared, place, AttemptCause::First, left)
            }
            None => Err(self.exhausted(shared, "no target is enabled")),
        }
    }

    /// The target that is being asked.
    pub(crate) const fn place(&self) -> usize {
        self.place
    }

    /// The figures of the target that is being asked.
    #[inline]
    pub(crate) fn figures<'a>(&self, shared: &'a Shared) -> &'a Figures {
        &shared.targets[self.place].figures
    }

    /// The call, for whoever watches it.
    #[inline]
    pub(crate) const fn call(&self) -> &Call {
        match &self.kept {
            Kept::Request(request) => &request.call,
            Kept::Call(call, _) => call,
        }
    }

    /// Takes the head of the answer of the target that was asked.
    #[inline]
    pub(crate) fn answer(&self, shared: &Shared, head: &mut Head) {
        // A failover further in knows better who it was.
        if head.target.is_none() {
            head.target = Some(shared.targets[self.place].name);
        }
        if head.model.is_empty() {
            head.model = self.asked_model();
        }
    }

    /// The model that the target was asked for.
    #[cold]
    fn asked_model(&self) -> Arc<str> {
        let said = self.call().attempt().and_then(|a| a.read().model);
        said.unwrap_or_else(|| match &self.kept {
            Kept::Request(request) => request.model().clone(),
            Kept::Call(_, model) => model.clone(),
        })
    }

    /// Takes the error of the target that was asked, and says what comes next.
    pub(crate) fn fail(&mut self, shared: &Shared, error: LlmError) -> Step {
        if let Some(attempt) = self.call().attempt() {
            close(attempt, &error);
        }
        let failover = shared.classify.classify(&error).failover;
        let from = &shared.targets[self.place];
        if !failover {
            return Err(self.end(final_error(error, from, &self.passed, shared)));
        }
        let kind = error.kind();
        self.passed.push(Passed {
            place: self.place,
            error: Some(error),
        });
        let Some(place) = self.next_target(shared) else {
            return Err(self.exhausted(shared, NOBODY));
        };
        let call = self.call();
        if call.ledger().is_some_and(|ledger| !ledger.may_fail_over()) {
            return Err(self.exhausted(shared, "no attempt is left for another target"));
        }
        if call.deadline().is_some_and(|at| at <= Instant::now()) {
            let error = Call::deadline_error().with_attempts(reasons(&self.passed, shared));
            return Err(self.end(error));
        }
        let left = count_enabled(shared, &self.order, self.turn);
        self.ask(shared, place, AttemptCause::Failover, left)?;
        shared.failovers.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::FailedOver {
            from: from.name,
            to: shared.targets[place].name,
            kind,
        });
        Ok(())
    }

    /// Passes over the targets that are disabled, and gives the next one its turn.
    #[inline]
    fn next_target(&mut self, shared: &Shared) -> Option<usize> {
        while let Some(place) = self.order.get(self.turn) {
            self.turn += 1;
            match shared.targets.get(place) {
                Some(target) if target.is_enabled() => return Some(place),
                Some(_) => self.passed.push(Passed { place, error: None }),
                // A route that names what there is not.
                None => {}
            }
        }
        None
    }

    /// Opens an attempt for the target at `place`, after which `left` others can be asked.
    #[inline]
    fn ask(&mut self, shared: &Shared, place: usize, cause: AttemptCause, left: u32) -> Step {
        let Kept::Request(request) = &mut self.kept else {
            // It was enabled after the request had gone to what was the last target.
            return Err(self.exhausted(shared, NOBODY));
        };
        (self.place, self.left) = (place, left);
        let target = &shared.targets[place];
        let attempt = request.call.open_attempt(cause);
        attempt.set_target(target.name);
        attempt.ledger().set_untried(self.untried_outside + left);
        Ok(())
    }

    /// The request for the target that is asked. The last one gets the request itself.
    #[inline]
    pub(crate) fn request(&mut self, shared: &Shared) -> Option<LlmRequest> {
        let Kept::Request(request) = &self.kept else {
            return None;
        };
        let target = &shared.targets[self.place];
        let own = target.models.get(request.model()).cloned();
        let mut asked = if self.left > 0 {
            request.clone()
        } else {
            let last = Kept::Call(request.call.clone(), request.model().clone());
            match mem::replace(&mut self.kept, last) {
                Kept::Request(request) => request,
                Kept::Call(..) => return None,
            }
        };
        if let Some(own) = own {
            if let Some(attempt) = asked.call.attempt() {
                attempt.set_model(&own);
            }
            asked.set_model(own);
        }
        Some(asked)
    }

    /// No target could serve.
    fn exhausted(&self, shared: &Shared, why: &'static str) -> LlmError {
        let mut errors = self.passed.iter().filter_map(|p| p.error.as_ref());
        let asked = errors.clone().count();
        shared.exhausted.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::AllFailed { asked });
        if let ([only], 1) = (&*self.passed, shared.targets.len())
            && let Some(error) = only.error.clone()
        {
            return self.end(with_target(error, &shared.targets[only.place]));
        }
        let mut all = LlmError::new(ErrorKind::AllTargetsFailed, why)
            .with_attempts(reasons(&self.passed, shared));
        // The earliest moment at which one of them could work.
        if let Some(after) = errors.clone().filter_map(|e| e.retry_after()).min() {
            all = all.with_retry_after(after);
        }
        if let Some(last) = errors.next_back() {
            all = all.with_source(last.clone());
        }
        self.end(all)
    }

    fn end(&self, error: LlmError) -> LlmError {
        if let Some(ledger) = self.call().ledger() {
            ledger.set_untried(self.untried_outside);
        }
        error
    }
}

/// Whether the call was here before, and its targets were added to those that the ledger knows: under
/// the attempt that it comes with, or one that this repeats, our targets were asked. (A failover that
/// is a target of another adds its own, one of them being the target that it is.)
#[inline]
fn meets_again(shared: &Shared, call: &Call) -> bool {
    // Whoever opened the only attempt so far is not us.
    let mine = u32::from(call.attempt().is_some());
    match call.ledger() {
        Some(ledger) if ledger.opened() > mine => was_met(shared, ledger, call.attempt()),
        _ => false,
    }
}

#[cold]
fn was_met(shared: &Shared, ledger: &Ledger, attempt: Option<&AttemptRef>) -> bool {
    let all: Vec<_> = ledger.attempts().collect();
    let at = |index: u32| all.get(index as usize);
    // Whoever begins a call anew, without an attempt that is repeated, opens another first one.
    let begins = |index: Option<u32>| {
        let first = |seen: &Attempt| seen.cause == AttemptCause::First && seen.parent.is_none();
        index.is_none_or(|index| at(index).is_some_and(first))
    };
    let ours = |name| shared.targets.iter().any(|target| target.name == name);
    let mut under = attempt.map(AttemptRef::index);
    loop {
        let asked = |seen: &Attempt| {
            seen.cause != AttemptCause::Retry
                && seen.target.is_some_and(ours)
                // Ours stand under an attempt if the call came with one.
                && seen.parent.is_some() == under.is_some()
                && (seen.parent == under || begins(under) && begins(seen.parent))
        };
        if all.iter().any(asked) {
            return true;
        }
        match under.and_then(at) {
            Some(seen) if seen.cause == AttemptCause::Retry => under = seen.parent,
            _ => return false,
        }
    }
}

/// How many targets from number `turn` of `order` on are enabled.
#[inline]
fn count_enabled(shared: &Shared, order: &Order, mut turn: usize) -> u32 {
    let mut count = 0;
    while let Some(place) = order.get(turn) {
        let target = shared.targets.get(place);
        count += u32::from(target.is_some_and(TargetState::is_enabled));
        turn += 1;
    }
    count
}

/// Records what the attempt that was opened for a target failed with. A driver further in may have
/// sent it and opened more, or may have opened its own and sent none under this one.
fn close(attempt: &AttemptRef, error: &LlmError) {
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

/// The error that a call ends with although targets remain.
fn final_error(
    error: LlmError,
    from: &TargetState,
    passed: &[Passed],
    shared: &Shared,
) -> LlmError {
    let error = with_target(error, from);
    let late = error.kind() == ErrorKind::Timeout(TimeoutClock::Total);
    if late && error.attempts().is_empty() && passed.iter().any(|p| p.error.is_some()) {
        return error.with_attempts(reasons(passed, shared));
    }
    error
}

fn with_target(error: LlmError, target: &TargetState) -> LlmError {
    if error.target().is_some() {
        return error;
    }
    error.with_target(target.name)
}

fn reasons(passed: &[Passed], shared: &Shared) -> Vec<FailedAttempt> {
    let reason = |passed: &Passed| {
        let error = passed
            .error
            .clone()
            .unwrap_or_else(|| LlmError::new(ErrorKind::Unsent, "the target is disabled"));
        FailedAttempt::new(shared.targets[passed.place].name, error)
    };
    passed.iter().map(reason).collect()
}
