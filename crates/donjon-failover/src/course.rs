//! The way of one call through its targets: who is next, what is kept, how it ends.
//!
//! Nothing here waits, and nothing knows the service: [`FailoverFuture`](crate::FailoverFuture) asks
//! whom it is told to and comes back with what that said.

mod ending;
mod resuming;

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use donjon_core::{AttemptCause, Call, Head, LlmError, LlmRequest, ReservedAttempt};
use tokio::time::Instant;

use crate::{
    capability::Needs,
    event::FailoverEvent,
    met::{is_fresh, meets_again},
    rivals::{Rival, Rivals},
    route::Candidates,
    scan::{Scan, Which},
    state::{Look, Roster, Shared, TargetState},
    verdict::Hold,
};
use ending::close;
pub(crate) use resuming::Resuming;

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
    /// Once its stream broke.
    resuming: Option<Box<Resuming>>,
}

/// What is kept of the request while a target works on it.
enum Kept {
    /// The request, for the targets that remain.
    Request(LlmRequest),
    /// Its call and the model that was asked for, where no target remains: the request itself went to
    /// the last one.
    Call(Call, Arc<str>),
    /// It is needed elsewhere.
    Nothing(Call),
}

impl Kept {
    #[inline]
    const fn request(&self) -> Option<&LlmRequest> {
        match self {
            Self::Request(request) => Some(request),
            Self::Call(..) | Self::Nothing(_) => None,
        }
    }

    #[inline]
    const fn call(&self) -> &Call {
        match self {
            Self::Request(request) => &request.call,
            Self::Call(call, _) | Self::Nothing(call) => call,
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
        Self::of(Kept::Request(request))
    }

    /// What is left in the place of one that goes on elsewhere.
    pub(crate) fn elsewhere() -> Self {
        Self::of(Kept::Nothing(Call::default()))
    }

    #[inline]
    const fn of(kept: Kept) -> Self {
        Self {
            place: 0,
            hold: None,
            streamed: false,
            needs: None,
            kept,
            passed: Vec::new(),
            left: 0,
            untried_outside: 0,
            under: 0,
            room: None,
            resuming: None,
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
            let resuming = self.resuming.as_deref();
            let first = self.passed.is_empty();
            // Another line's targets are asked only where this one would have none at all.
            let most: &[Rival] = match (first || resuming.is_some()) && rivals.any() {
                true => &[Rival::Untouched, Rival::Asked, Rival::Open],
                false => &[Rival::Untouched],
            };
            let look = |most: Rival| {
                let tried = |place: usize| {
                    let shuns = |r: &Resuming| r.shuns(&roster.targets[place], place, now);
                    rivals.at(place) > most
                        || self.passed.iter().any(|passed| passed.place == place)
                        || resuming.is_some_and(shuns)
                };
                let first = first && most == Rival::Untouched;
                let when_out = resuming.map_or(shared.config.when_out, Resuming::when_out);
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

    /// Whether its stream has broken.
    pub(crate) const fn is_resuming(&self) -> bool {
        self.resuming.is_some()
    }

    /// Whether the answer is to come chunk by chunk.
    pub(crate) const fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Lets go of what is held of the target, if anything is.
    #[inline]
    pub(crate) fn release(&mut self, field: &Field) -> Hold {
        let Some(hold) = self.hold.take() else {
            return Hold::default();
        };
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
            Kept::Nothing(_) => Arc::default(),
        })
    }

    /// Takes the error of the target that was asked, and says what comes next.
    pub(crate) fn fail(&mut self, field: &Field, error: LlmError) -> Step {
        let shared = &*field.shared;
        if let Some(attempt) = self.call().attempt() {
            close(attempt, &error);
        }
        if self.resuming.is_some() {
            return self.fail_resuming(field, error);
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
        self.take_room(room);
        let to = self.target(field).name;
        shared.failovers.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::FailedOver {
            from: from.name,
            to,
            kind,
        });
        Ok(())
    }

    /// Has room for the attempt that was opened.
    fn take_room(&mut self, room: Option<ReservedAttempt>) {
        if let Some(room) = room {
            room.renew(&mut self.room);
        }
        if let (Some(room), Some(attempt)) = (&mut self.room, self.kept.call().attempt()) {
            room.keep_for(attempt);
        }
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
        let resumes = self.streamed && field.shared.config.resume.is_some();
        let mut asked = if let Some(prefilled) = self.prefilled(request) {
            prefilled
        } else if self.left > 0 || resumes {
            request.clone()
        } else {
            let last = Kept::Call(request.call.clone(), request.model().clone());
            match mem::replace(&mut self.kept, last) {
                Kept::Request(request) => request,
                Kept::Call(..) | Kept::Nothing(_) => return None,
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
}
