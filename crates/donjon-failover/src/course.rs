//! The way of one call through its targets: who is next, what is kept, how it ends.
//!
//! Nothing here waits, and nothing knows the service: [`FailoverFuture`](crate::FailoverFuture) asks
//! whom it is told to and comes back with what that said.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use donjon_core::{
    AttemptCause, AttemptRef, Billed, Call, ErrorKind, FailedAttempt, Ledger, LlmError, LlmRequest,
    LlmResponse, TimeoutClock,
};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    handle::FailoverEvent,
    route::{Order, Targets},
    state::{Shared, TargetState},
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
    passed: SmallVec<[Passed; 2]>,
    /// Targets that failovers around this one have not tried yet.
    untried_outside: u32,
}

/// What is kept of the request while a target works on it.
enum Kept {
    /// The request, for the targets that remain.
    Request(LlmRequest),
    /// Its call, where no target remains: the request itself went to the last one.
    Call(Call),
}

/// A target that had its turn and did not serve.
struct Passed {
    place: usize,
    /// `None`: it was disabled.
    error: Option<LlmError>,
}

/// What comes next: the request for the target at [`Course::place`], or the error that the call is
/// answered with.
pub(crate) type Step = Result<LlmRequest, LlmError>;

impl Course {
    /// Sets out with `request`.
    #[inline]
    pub(crate) fn new(shared: &Shared, mut request: LlmRequest) -> Self {
        let order = shared.route.order(Targets::new(shared), &request);
        request.call.patience.get_or_insert(shared.patience);
        let ledger = request.call.begin();
        let untried_outside = ledger.untried();
        announce(shared, &order, ledger);
        Self {
            order,
            turn: 0,
            place: 0,
            kept: Kept::Request(request),
            passed: SmallVec::new(),
            untried_outside,
        }
    }

    /// Says whom to ask first.
    #[inline]
    pub(crate) fn begin(&mut self, shared: &Shared) -> Step {
        match self.next_target(shared) {
            Some(place) => self.ask(shared, place, AttemptCause::First),
            None => Err(self.exhausted(shared, "no target is enabled")),
        }
    }

    /// The target that is being asked.
    pub(crate) const fn place(&self) -> usize {
        self.place
    }

    /// The call, for whoever watches it.
    #[inline]
    pub(crate) const fn call(&self) -> &Call {
        match &self.kept {
            Kept::Request(request) => &request.call,
            Kept::Call(call) => call,
        }
    }

    /// Takes the answer of the target that was asked.
    #[inline]
    pub(crate) fn answer(&self, shared: &Shared, mut response: LlmResponse) -> LlmResponse {
        let head = &mut response.head;
        // A failover further in knows better who it was.
        if head.target.is_none() {
            head.target = Some(shared.targets[self.place].name.clone());
        }
        if head.model.is_empty()
            && let Some(asked) = self.call().attempt().and_then(|a| a.read().model)
        {
            head.model = asked;
        }
        response
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
        let request = self.ask(shared, place, AttemptCause::Failover)?;
        shared.failovers.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::FailedOver {
            from: from.name.clone(),
            to: shared.targets[place].name.clone(),
            kind,
        });
        Ok(request)
    }

    /// Passes over the targets that are disabled, and gives the next one its turn.
    #[inline]
    fn next_target(&mut self, shared: &Shared) -> Option<usize> {
        while let Some(&place) = self.order.places().get(self.turn) {
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

    /// Opens an attempt for the target at `place` and makes the request for it.
    #[inline]
    fn ask(&mut self, shared: &Shared, place: usize, cause: AttemptCause) -> Step {
        let left = enabled(shared, &self.order.places()[self.turn..]);
        let Kept::Request(request) = &mut self.kept else {
            // It was enabled after the request had gone to what was the last target.
            return Err(self.exhausted(shared, NOBODY));
        };
        self.place = place;
        let target = &shared.targets[place];
        let own = target.models.get(&request.model);
        let attempt = request.call.open_attempt(cause);
        attempt.aim(Some(&target.name), own.unwrap_or(&request.model));
        attempt.ledger().set_untried(self.untried_outside + left);
        if left > 0 {
            let mut asked = request.clone();
            if let Some(own) = own {
                asked.model = own.clone();
            }
            return Ok(asked);
        }
        // The last one gets the request itself.
        if let Some(own) = own {
            request.model = own.clone();
        }
        let call = Kept::Call(request.call.clone());
        match mem::replace(&mut self.kept, call) {
            Kept::Request(request) => Ok(request),
            Kept::Call(_) => Err(self.exhausted(shared, NOBODY)),
        }
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

/// Tells the ledger how many targets the call may use. A failover that is a target of another adds
/// its own, one of them being the target that it is; one that meets the same call again, since a
/// retry stands around it, has added them before.
fn announce(shared: &Shared, order: &Order, ledger: &Arc<Ledger>) {
    let own = |target: &Arc<str>| shared.targets.iter().any(|t| Arc::ptr_eq(&t.name, target));
    let again = ledger.opened() > 0
        && ledger
            .attempts()
            .any(|attempt| attempt.target.as_ref().is_some_and(own));
    if !again {
        let more = enabled(shared, order.places()).saturating_sub(1);
        ledger.set_targets(ledger.targets().saturating_add(more));
    }
}

fn enabled(shared: &Shared, places: &[usize]) -> u32 {
    let mut count = 0;
    for place in places {
        let target = shared.targets.get(*place);
        count += u32::from(target.is_some_and(TargetState::is_enabled));
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
    error.with_target(target.name.clone())
}

fn reasons(passed: &[Passed], shared: &Shared) -> Vec<FailedAttempt> {
    let reason = |passed: &Passed| {
        let error = passed
            .error
            .clone()
            .unwrap_or_else(|| LlmError::new(ErrorKind::Unsent, "the target is disabled"));
        FailedAttempt::new(shared.targets[passed.place].name.clone(), error)
    };
    passed.iter().map(reason).collect()
}
