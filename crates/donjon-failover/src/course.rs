//! The way of one call through its targets: who is next, what is kept, how it ends.
//!
//! Nothing here waits, and nothing knows the service: [`FailoverFuture`](crate::FailoverFuture) asks
//! whom it is told to and comes back with what that said.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use donjon_core::{
    AttemptCause, AttemptRef, Billed, Call, ErrorKind, FailedAttempt, Head, LlmError, LlmRequest,
    ReservedAttempt, TimeoutClock,
};
use tokio::time::Instant;

use crate::{
    capability::Needs,
    handle::FailoverEvent,
    met::{is_fresh, meets_again},
    reason::{reason, with_target},
    rivals::{Rival, Rivals},
    route::Candidates,
    scan::{Scan, Which},
    state::{Look, Roster, Shared, TargetState},
    verdict::Hold,
};

/// Why there is no answer, in most cases.
const NOBODY: &str = "no target could serve";

/// What a call goes by: what all share, and the targets as they were when it was made.
pub(crate) struct Field {
    pub(crate) shared: Arc<Shared>,
    pub(crate) roster: Arc<Roster>,
}

/// The way of one call through its targets.
pub(crate) struct Course {
    /// The target that is being asked.
    place: usize,
    /// What is held of it, until that is let go of.
    hold: Option<Hold>,
    streamed: bool,
    /// What the request needs, once that was asked.
    needs: Option<Needs>,
    kept: Kept,
    /// Filled only where a target did not serve.
    passed: Vec<Passed>,
    /// How many targets can be asked after this one.
    left: u32,
    /// Targets that failovers around this one have not tried yet.
    untried_outside: u32,
    /// One more than the place of the attempt that the call came with; 0 for none.
    under: u32,
    /// Room for the attempt that is being made, if it is not the first.
    room: Option<ReservedAttempt>,
}

/// What is kept of the request while a target works on it.
enum Kept {
    /// The request, for the targets that remain.
    Request(LlmRequest),
    /// Its call and the model that was asked for, where no target remains: the request itself went to
    /// the last one.
    Call(Call, Arc<str>),
}

impl Kept {
    #[inline]
    const fn request(&self) -> Option<&LlmRequest> {
        match self {
            Self::Request(request) => Some(request),
            Self::Call(..) => None,
        }
    }

    #[inline]
    const fn call(&self) -> &Call {
        match self {
            Self::Request(request) => &request.call,
            Self::Call(call, _) => call,
        }
    }
}

/// A target that had its turn and did not serve.
struct Passed {
    place: usize,
    error: LlmError,
}

/// What comes next: the target at [`Course::place`] is asked, or the call is answered with an error.
pub(crate) type Step = Result<(), LlmError>;

impl Course {
    /// The way of `request`, which has not set out yet.
    #[inline]
    pub(crate) const fn new(request: LlmRequest) -> Self {
        Self {
            place: 0,
            hold: None,
            streamed: false,
            needs: None,
            kept: Kept::Request(request),
            passed: Vec::new(),
            left: 0,
            untried_outside: 0,
            under: 0,
            room: None,
        }
    }

    /// Sets out, and says whom to ask first.
    #[inline]
    pub(crate) fn begin(&mut self, field: &Field) -> Step {
        let shared = &*field.shared;
        if let Kept::Request(request) = &mut self.kept {
            request.call.patience.get_or_insert(shared.config.patience);
            request.call.begin();
            self.streamed = request.is_stream();
        }
        self.under = self.call().attempt().map_or(0, |a| a.index() + 1);
        let fresh = is_fresh(self.call());
        let alone = fresh || self.call().ledger().is_some_and(|l| l.hedges() == 0);
        let chosen = self.choose(field, alone);
        let askable = chosen.unwrap_or(0);
        if let Some(ledger) = self.call().ledger() {
            let untried = ledger.untried();
            if fresh || !meets_again(&field.roster, self.call(), ledger) {
                let more = askable.saturating_sub(1);
                ledger.set_targets(ledger.targets().saturating_add(more));
            }
            self.untried_outside = untried;
        }
        match chosen {
            Some(askable) => self.ask(field, AttemptCause::First, askable - 1),
            None => Err(self.exhausted(field)),
        }
    }

    /// Chooses the target to ask next and takes its place there; how many can be asked, it included. `alone`
    /// is a call of which no target was asked yet.
    #[inline]
    fn choose(&mut self, field: &Field, alone: bool) -> Option<u32> {
        if alone && field.roster.is_plain() {
            return self.choose_of_all(field);
        }
        self.choose_of_some(field)
    }

    #[inline]
    fn choose_of_all(&mut self, field: &Field) -> Option<u32> {
        let (shared, roster) = (&*field.shared, &*field.roster);
        let place = match &shared.config.route {
            None => 0,
            Some(route) => {
                let request = self.kept.request()?;
                let began = request.call.ledger().map(|ledger| ledger.began_at());
                let now = match began {
                    Some(began) if shared.measures => shared.nanos_at(began),
                    _ => 0,
                };
                let candidates = Candidates::new(roster, Which::All, now, shared.config.decay);
                route.choose(candidates, request)?.place
            }
        };
        if !self.enter(field, place, false) {
            return self.choose_of_some(field);
        }
        u32::try_from(roster.targets.len()).ok()
    }

    #[cold]
    fn choose_of_some(&mut self, field: &Field) -> Option<u32> {
        let (shared, roster) = (&*field.shared, &*field.roster);
        let needs = match self.needs {
            Some(needs) => needs,
            None => Needs::of(self.kept.request()?),
        };
        self.needs = Some(needs);
        let rivals = self.rivals(roster);
        loop {
            let (now, ramp) = (shared.now(), shared.ramp());
            let first = self.passed.is_empty();
            // Another line's targets are asked only where this one would have none at all.
            let most: &[Rival] = match first && rivals.any() {
                true => &[Rival::Untouched, Rival::Asked, Rival::Open],
                false => &[Rival::Untouched],
            };
            let look = |most: Rival| {
                let tried = |place: usize| {
                    rivals.at(place) > most || self.passed.iter().any(|p| p.place == place)
                };
                let first = first && most == Rival::Untouched;
                let when_out = shared.config.when_out;
                Scan::of(roster, tried, needs, now, ramp, when_out, first)
            };
            let mut scan = look(Rival::Untouched);
            for more in &most[1..] {
                if scan.candidates().is_some() {
                    break;
                }
                let wider = look(*more);
                if wider.candidates().is_some() || scan.least_bad().is_none() {
                    scan = wider;
                    // Once is enough: whoever is asked in two lines is the last in this one.
                    scan.askable = scan.askable.min(1);
                }
            }
            if scan.settles {
                shared.settle(now);
            }
            let request = self.kept.request()?;
            let place = match (scan.candidates(), &shared.config.route) {
                (None, _) => scan.least_bad()?,
                (Some(places), None) => places.nth(0)?,
                (Some(places), Some(route)) => {
                    let which = Which::Some(places);
                    let candidates = Candidates::new(roster, which, now, shared.config.decay);
                    route.choose(candidates, request)?.place
                }
            };
            // Whoever looks whether a target works is alone; where there is nobody else, all may.
            let trial = matches!(
                roster.targets[place].look(needs, now, std::time::Duration::ZERO),
                Look::Ready { trial: true }
            );
            if self.enter(field, place, trial) {
                return Some(scan.askable);
            }
        }
    }

    /// What other lines of attempts do at our targets.
    fn rivals(&self, roster: &Roster) -> Rivals {
        Rivals::of(roster, self.call(), self.under.checked_sub(1))
    }

    /// Takes a place at a target; not if it was full, or another call took the trial.
    #[inline]
    fn enter(&mut self, field: &Field, place: usize, trial: bool) -> bool {
        let target = &*field.roster.targets[place];
        let spell = target.gate.spell();
        if trial && !target.gate.try_trial(spell) {
            return false;
        }
        let counted = field.shared.counts_load_of(target);
        if counted && !target.enter() {
            if trial {
                target.gate.end_trial(spell);
            }
            return false;
        }
        self.place = place;
        self.hold = Some(Hold {
            spell,
            trial,
            counted,
        });
        true
    }

    /// The target that is being asked.
    pub(crate) const fn place(&self) -> usize {
        self.place
    }

    /// The target that is being asked.
    #[inline]
    pub(crate) fn target<'a>(&self, field: &'a Field) -> &'a Arc<TargetState> {
        &field.roster.targets[self.place]
    }

    /// Whether the answer is to come chunk by chunk.
    pub(crate) const fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Lets go of what is held of the target, if anything is.
    #[inline]
    pub(crate) fn release(&mut self, field: &Field) -> Hold {
        let hold = self.hold.take().unwrap_or_default();
        field.shared.release(self.target(field), hold);
        hold
    }

    /// What is held of the target, for whoever hears the end of its stream and lets go of it then.
    pub(crate) fn take_hold(&mut self) -> Hold {
        self.hold.take().unwrap_or_default()
    }

    /// The call, for whoever watches it.
    #[inline]
    pub(crate) const fn call(&self) -> &Call {
        self.kept.call()
    }

    /// Takes the head of the answer of the target that was asked.
    #[inline]
    pub(crate) fn answer(&self, field: &Field, head: &mut Head) {
        // A failover further in knows better who it was.
        if head.target.is_none() {
            head.target = Some(self.target(field).name);
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
    pub(crate) fn fail(&mut self, field: &Field, error: LlmError) -> Step {
        let shared = &*field.shared;
        if let Some(attempt) = self.call().attempt() {
            close(attempt, &error);
        }
        let failover = shared.config.classify.classify(&error).failover;
        let from = self.target(field);
        if !failover {
            return Err(self.end(field, self.final_error(error, from, field)));
        }
        let kind = error.kind();
        self.passed.push(Passed {
            place: self.place,
            error,
        });
        let call = self.call();
        let room = call.reserve_failover();
        if room.is_none() && self.left > 0 {
            return Err(self.all_failed(field, "no attempt is left for another target"));
        }
        if self.left > 0 && call.deadline().is_some_and(|at| at <= Instant::now()) {
            let error = Call::deadline_error().with_attempts(self.reasons(field));
            return Err(self.end(field, error));
        }
        let Some(askable) = self.choose(field, false) else {
            return Err(self.exhausted(field));
        };
        self.ask(field, AttemptCause::Failover, askable - 1)?;
        if let Some(room) = room {
            room.renew(&mut self.room);
        }
        if let (Some(room), Some(attempt)) = (&mut self.room, self.kept.call().attempt()) {
            room.keep_for(attempt);
        }
        let to = self.target(field).name;
        shared.failovers.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::FailedOver {
            from: from.name,
            to,
            kind,
        });
        Ok(())
    }

    /// Opens an attempt for the target that was chosen, after which `left` others can be asked.
    #[inline]
    fn ask(&mut self, field: &Field, cause: AttemptCause, left: u32) -> Step {
        let target = self.target(field);
        let Kept::Request(request) = &mut self.kept else {
            // It came back after the request had gone to what was the last target.
            self.release(field);
            return Err(self.exhausted(field));
        };
        self.left = left;
        let attempt = request.call.open_attempt(cause);
        attempt.set_target(target.name);
        attempt.ledger().set_untried(self.untried_outside + left);
        Ok(())
    }

    /// The request for the target that is asked. The last one gets the request itself.
    #[inline]
    pub(crate) fn request(&mut self, field: &Field) -> Option<LlmRequest> {
        let Kept::Request(request) = &self.kept else {
            return None;
        };
        let own = self.target(field).models.get(request.model()).cloned();
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

    /// No target is left.
    #[cold]
    fn exhausted(&self, field: &Field) -> LlmError {
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
    fn all_failed(&self, field: &Field, why: &'static str) -> LlmError {
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
    fn final_error(&self, error: LlmError, from: &TargetState, field: &Field) -> LlmError {
        let error = with_target(error, from);
        let late = error.kind() == ErrorKind::Timeout(TimeoutClock::Total);
        if late && error.attempts().is_empty() && !self.passed.is_empty() {
            return error.with_attempts(self.reasons(field));
        }
        error
    }

    /// Why each target did not serve: those that were asked in the order of asking, then those that were
    /// passed over.
    fn reasons(&self, field: &Field) -> Vec<FailedAttempt> {
        let targets = &field.roster.targets;
        let asked = self
            .passed
            .iter()
            .map(|p| FailedAttempt::new(targets[p.place].name, p.error.clone()));
        let (now, needs) = (field.shared.now(), self.needs.unwrap_or_default());
        let rest = targets.iter().enumerate().filter_map(|(place, target)| {
            let tried = self.passed.iter().any(|passed| passed.place == place);
            // How it returns does not matter here.
            let look = target.look(needs, now, std::time::Duration::ZERO);
            let error = if tried { None } else { reason(look, now) };
            Some(FailedAttempt::new(target.name, error?))
        });
        asked.chain(rest).collect()
    }

    fn end(&self, field: &Field, error: LlmError) -> LlmError {
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
