//! Who goes on with a stream that broke, and how it is asked.

use std::sync::atomic::Ordering::Relaxed;

use donjon_core::{
    AttemptCause, Call, DropReason, ErrorKind, FailedAttempt, LlmError, LlmRequest, Name,
    ReservedAttempt, ResponseStream,
};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Course, Field, Kept, Passed, Step,
    ending::{close, not_resumed},
};
use crate::{
    capability::Capability,
    event::FailoverEvent,
    health::nanos,
    reason::with_target,
    resume::{Prefill, ResumeWay, Shown, Splice},
    route::guess,
    state::{Look, TargetState},
    target::WhenOut,
};

/// What a call knows of its stream that broke, once or several times.
pub(crate) struct Resuming {
    /// What it broke with first: that is told when nobody goes on.
    first: LlmError,
    /// Why each attempt ended, those whose streams broke included.
    reasons: Vec<FailedAttempt>,
    /// How often it broke.
    times: u32,
    /// How many were asked to go on.
    asked: usize,
    /// The call as it stood when the stream broke last: what follows, follows from there.
    broken: Call,
    from: Name,
    kind: ErrorKind,
    /// The target that it broke at, if that may be asked once more.
    same: Option<usize>,
    /// How the one that is asked is to go on.
    way: ResumeWay,
    /// Whether those that are out are passed over.
    when_out: WhenOut,
    /// What is asked of those that go on with what was begun.
    prefill: Option<Prefill>,
    /// Whether the answer is short enough to be given anew.
    restart: bool,
    /// Those that did not take it.
    rejected: SmallVec<[usize; 2]>,
}

impl Resuming {
    /// Whether the target at `place` cannot go on in this way.
    pub(super) fn shuns(&self, target: &TargetState, place: usize, now: u64) -> bool {
        self.way == ResumeWay::Prefill
            && (self.rejected.contains(&place) || !takes_prefill(target, now))
    }

    pub(super) const fn when_out(&self) -> WhenOut {
        self.when_out
    }

    const fn can(&self, way: ResumeWay) -> bool {
        match way {
            ResumeWay::Prefill => self.prefill.is_some(),
            ResumeWay::Aligned => self.restart,
        }
    }
}

fn takes_prefill(target: &TargetState, now: u64) -> bool {
    target.prefill.at(now) && target.has_ability(Capability::Prefill)
}

impl Course {
    /// The stream of the target that was asked has broken, after this was shown and so many tokens used.
    /// Says who goes on with it, or with what it ends.
    pub(crate) fn broke(
        &mut self,
        field: &Field,
        error: LlmError,
        shown: &Shown,
        used: u64,
    ) -> Step {
        let Some(options) = &field.shared.config.resume else {
            return Err(error);
        };
        let row = field.shared.config.classify.classify(&error);
        let target = self.target(field);
        let reason = FailedAttempt::new(target.name, error.clone());
        let (from, kind, broken) = (target.name, error.kind(), self.call().clone());
        let same = (options.same_target && row.retry).then_some(self.place);
        let mut resuming = match self.resuming.take() {
            Some(mut again) => {
                again.reasons.push(reason);
                (again.from, again.kind, again.broken) = (from, kind, broken);
                again
            }
            None => Box::new(Resuming {
                first: with_target(error.clone(), target),
                reasons: vec![reason],
                times: 0,
                asked: 0,
                broken,
                from,
                kind,
                same: None,
                way: ResumeWay::Prefill,
                when_out: WhenOut::Fail,
                prefill: None,
                restart: false,
                rejected: SmallVec::new(),
            }),
        };
        resuming.times += 1;
        resuming.same = same;
        resuming.restart = options.restart && shown.bytes() <= options.align_within;
        resuming.rejected.clear();
        let place = self.place;
        self.passed.push(Passed { place, error });
        let why = if shown.is_sealed {
            Some("more was shown than text")
        } else if resuming.times > options.most {
            Some("it broke too often")
        } else if !row.failover {
            Some("no other target would do better")
        } else {
            resuming.prefill = self.prefill(field, shown, used);
            None
        };
        self.resuming = Some(resuming);
        match why {
            Some(why) => Err(self.give_up(field, why)),
            None => self.next(field),
        }
    }

    /// What is asked of those that go on, if there are any.
    fn prefill(&self, field: &Field, shown: &Shown, used: u64) -> Option<Prefill> {
        let mut targets = field.roster.targets.iter();
        if !targets.any(|target| target.prefill.is_declared()) {
            return None;
        }
        Prefill::of(self.kept.request()?, shown, used)
    }

    /// What the one says that was asked is of no use; says who is next.
    pub(crate) fn pass_over(&mut self, field: &Field, error: LlmError) -> Step {
        if let Some(attempt) = self.call().attempt() {
            close(attempt, &error);
        }
        if let Some(resuming) = &mut self.resuming {
            let target = field.roster.targets[self.place].name;
            resuming
                .reasons
                .push(FailedAttempt::new(target, error.clone()));
        }
        self.leave(error);
        self.next(field)
    }

    /// It is not asked any more.
    fn leave(&mut self, error: LlmError) {
        let place = self.place;
        if let Some(resuming) = &mut self.resuming {
            resuming.same = resuming.same.filter(|same| *same != place);
        }
        self.passed.push(Passed { place, error });
    }

    /// The one that was asked to go on has failed; says who is next.
    pub(super) fn fail_resuming(&mut self, field: &Field, error: LlmError) -> Step {
        let (shared, place) = (&*field.shared, self.place);
        let target = self.target(field);
        let Some(resuming) = &mut self.resuming else {
            return Err(error);
        };
        let kind = error.kind();
        resuming
            .reasons
            .push(FailedAttempt::new(target.name, error.clone()));
        // It may be what we made of the request that it does not take.
        let refused = matches!(
            kind,
            ErrorKind::InvalidRequest | ErrorKind::Unsupported | ErrorKind::ContentPolicy
        );
        let too_long = matches!(kind, ErrorKind::ContextLength | ErrorKind::RequestTooLarge);
        let failover = shared.config.classify.classify(&error).failover;
        if resuming.way == ResumeWay::Prefill && (refused || too_long) {
            resuming.rejected.push(place);
            if refused && kind != ErrorKind::ContentPolicy {
                reject(field, target, kind);
            }
        } else {
            self.leave(error);
        }
        if !failover && !refused {
            return Err(self.give_up(field, "no other target would do better"));
        }
        self.next(field)
    }

    /// Chooses who goes on: rather one that goes on with what was begun than one that answers anew, and
    /// rather one that works as far as is known.
    fn next(&mut self, field: &Field) -> Step {
        let call = self.call();
        let room = call.reserve_failover();
        if room.is_none() {
            return Err(self.give_up(field, "no attempt is left for another target"));
        }
        if call.deadline().is_some_and(|at| at <= Instant::now()) {
            return Err(self.give_up(field, "the call's deadline has passed"));
        }
        let configured = field.shared.config.when_out;
        let ways = [ResumeWay::Prefill, ResumeWay::Aligned];
        for (when_out, way) in [WhenOut::Fail, configured]
            .map(|out| ways.map(|way| (out, way)))
            .as_flattened()
        {
            let Some(resuming) = &mut self.resuming else {
                break;
            };
            if !resuming.can(*way) {
                continue;
            }
            (resuming.way, resuming.when_out) = (*way, *when_out);
            if self.choose_of_some(field).is_some() {
                return self.ask_on(field, room);
            }
        }
        for way in ways {
            if self.enter_same(field, way) {
                return self.ask_on(field, room);
            }
        }
        Err(self.give_up(field, "no target is left to go on"))
    }

    /// Takes a place at the target whose stream broke, if it may be asked once more in this way.
    fn enter_same(&mut self, field: &Field, way: ResumeWay) -> bool {
        let now = field.shared.now();
        let needs = self.needs.unwrap_or_default();
        let Some(resuming) = &mut self.resuming else {
            return false;
        };
        let Some(place) = resuming.same.filter(|_| resuming.can(way)) else {
            return false;
        };
        resuming.way = way;
        let target = &field.roster.targets[place];
        if resuming.shuns(target, place, now) {
            return false;
        }
        match target.look(needs, now, std::time::Duration::ZERO) {
            Look::Ready { trial } => self.enter(field, place, trial),
            Look::Held | Look::Out { .. } => self.enter(field, place, false),
            Look::Not(_) => false,
        }
    }

    /// Opens an attempt for the target that was chosen.
    fn ask_on(&mut self, field: &Field, room: Option<ReservedAttempt>) -> Step {
        let target = self.target(field);
        let needs = self.needs.unwrap_or_default();
        let left = field
            .roster
            .targets
            .iter()
            .enumerate()
            .filter(|(place, other)| {
                let tried = self.passed.iter().any(|passed| passed.place == *place);
                *place != self.place && !tried && other.why_not(needs).is_none()
            });
        let left = u32::try_from(left.count()).unwrap_or(u32::MAX);
        let (Some(resuming), Kept::Request(request)) = (&mut self.resuming, &mut self.kept) else {
            self.release(field);
            return Err(self.exhausted(field));
        };
        resuming.asked += 1;
        self.left = left;
        request.call = resuming.broken.clone();
        let attempt = request.call.open_attempt(AttemptCause::Resume);
        attempt.set_target(target.name);
        let untried = self.untried_outside.saturating_add(left);
        attempt.ledger().set_untried(untried);
        self.take_room(room);
        Ok(())
    }

    /// The request for a target that goes on with what was begun.
    pub(super) fn prefilled(&self, request: &LlmRequest) -> Option<LlmRequest> {
        let resuming = self.resuming.as_deref()?;
        let prefill = resuming.prefill.as_ref()?;
        if resuming.way != ResumeWay::Prefill {
            return None;
        }
        let mut asked = prefill.request.clone();
        let estimate = asked.call.estimate;
        asked.call = request.call.clone();
        asked.call.estimate = estimate;
        Some(asked)
    }

    /// What the answer of the target that was asked goes through.
    pub(crate) fn splice(&self, field: &Field, shown: &Shown) -> Splice {
        let most = field
            .shared
            .config
            .resume
            .as_ref()
            .map_or(0, |r| r.align_within);
        match self.resuming.as_deref() {
            Some(Resuming {
                way: ResumeWay::Prefill,
                prefill: Some(prefill),
                ..
            }) => Splice::proceed(shown, prefill.continuation.clone()),
            _ => Splice::align(shown, most),
        }
    }

    /// The tokens of the prompt that the target was asked with, as far as anybody knows.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let Some(request) = self.kept.request() else {
            return 0;
        };
        let prefilled = self
            .resuming
            .as_deref()
            .filter(|r| r.way == ResumeWay::Prefill);
        let prefilled = prefilled.and_then(|resuming| resuming.prefill.as_ref());
        let request = prefilled.map_or(request, |prefill| &prefill.request);
        let estimate = request.call.estimate.filter(|estimate| estimate.input > 0);
        estimate.unwrap_or_else(|| guess(request)).input
    }

    /// The target that was asked goes on: the caller was shown something new.
    pub(crate) fn resumed(&mut self, field: &Field) {
        let to = self.target(field).name;
        if let Some(resuming) = &mut self.resuming {
            let (from, kind, way) = (resuming.from, resuming.kind, resuming.way);
            field.shared.resumed[way as usize].fetch_add(1, Relaxed);
            let event = || FailoverEvent::Resumed {
                from,
                to,
                kind,
                way,
            };
            field.shared.events.tell(event);
        }
    }

    /// Lets go of the stream of the target that was asked, which another takes over.
    pub(crate) fn supersede(&self, stream: ResponseStream) {
        if let Some(attempt) = self.call().attempt() {
            attempt.set_dropped(DropReason::Superseded);
        }
        drop(stream);
    }

    /// Nobody goes on: the error that the stream broke with first, with all that came after it.
    fn give_up(&mut self, field: &Field, why: &'static str) -> LlmError {
        let Some(resuming) = self.resuming.take() else {
            return self.exhausted(field);
        };
        let Resuming {
            first,
            reasons,
            asked,
            ..
        } = *resuming;
        let shared = &field.shared;
        shared.resume_failed.fetch_add(1, Relaxed);
        shared.events.tell(|| FailoverEvent::ResumeFailed {
            target: first.target().unwrap_or(self.target(field).name),
            kind: first.kind(),
            asked,
        });
        self.end(field, not_resumed(first, reasons, why))
    }
}

/// A target does not take what was begun, and is not asked to for a while.
fn reject(field: &Field, target: &TargetState, kind: ErrorKind) {
    let shared = &field.shared;
    let out_for = shared.config.resume.as_ref().map(|r| r.prefill_again_after);
    let out_for = out_for.unwrap_or_default();
    target
        .prefill
        .put_off(shared.now().saturating_add(nanos(out_for)));
    shared.prefill_rejected.fetch_add(1, Relaxed);
    let event = || FailoverEvent::PrefillRejected {
        target: target.name,
        kind,
        out_for,
    };
    shared.events.tell(event);
}
