//! The slot in which a shared call lives, and what its members find there.

use std::{mem, sync::Arc, task::Waker};

use donjon_core::{
    Body, BoxLlmFuture, Chunk, Completion, ErrorKind, Head, LlmError, LlmResponse, Origin,
    ResponseStream, Scope, TimeoutClock,
};
use tokio::time::Instant;

use super::{
    Rules,
    log::Log,
    turns::{Turns, Wakes},
};

/// What is driven.
pub(crate) enum Upstream {
    /// The call, until it resolves.
    Call(BoxLlmFuture),
    /// Its stream.
    Stream(ResponseStream),
    /// Somebody drives it now.
    Away,
    /// It has ended.
    Over,
}

/// What driving it came to.
pub(crate) enum Step {
    Pending,
    /// The call resolved.
    Answer(Result<LlmResponse, LlmError>),
    Chunk(Arc<Chunk>),
    /// The end of the stream.
    End(Result<(), LlmError>),
}

/// What is known of the answer.
enum Answer {
    Awaited,
    Whole(Head, Completion),
    Stream(Box<Streamed>),
    Failed {
        error: LlmError,
        /// Whether it is the affair of whoever issued the call.
        own: bool,
    },
}

/// A stream that is read.
struct Streamed {
    head: Head,
    choices: u32,
    ended: Option<Result<(), LlmError>>,
    log: Log,
    held_since: Option<Instant>,
}

/// What a member finds at the head of the answer.
pub(crate) enum Found {
    /// All of the answer, or why there is none. Whoever finds it has left.
    All(Result<LlmResponse, LlmError>),
    Stream(Head, u32),
    /// The call failed for a reason of the one who issued it: this member is to ask again.
    Again,
}

/// One member.
pub(crate) struct Place {
    /// The chunk that it reads next.
    next: u64,
    /// Whether it was the first, whose request is made and who is billed.
    first: bool,
    /// Whether what the first one is refused would be refused to it too.
    alike: bool,
    let_go: bool,
}

impl Place {
    pub(crate) fn new(first: bool, alike: bool) -> Self {
        Self {
            next: 0,
            first,
            alike,
            let_go: false,
        }
    }
}

pub(crate) struct Slot {
    pub(crate) turns: Turns<Place>,
    pub(crate) upstream: Upstream,
    answer: Answer,
    /// Whether others may join.
    pub(crate) open: bool,
    /// Whether somebody joined who may wait longer than the one who issued the call.
    pub(crate) extended: bool,
}

impl Slot {
    /// A slot for `call`, with its first member in the first seat.
    #[inline]
    pub(crate) fn new(call: BoxLlmFuture) -> Self {
        Self {
            turns: Turns::with(Place::new(true, true)),
            upstream: Upstream::Call(call),
            answer: Answer::Awaited,
            open: true,
            extended: false,
        }
    }

    /// Takes the call, if whoever is polled is alone with it and is to drive it.
    #[inline]
    pub(crate) fn take_alone(&mut self) -> Option<BoxLlmFuture> {
        if self.turns.members() != 1
            || !self.turns.is_to_be_driven()
            || !matches!(self.upstream, Upstream::Call(_))
        {
            return None;
        }
        self.turns.take();
        match mem::replace(&mut self.upstream, Upstream::Away) {
            Upstream::Call(call) => Some(call),
            _ => unreachable!("it was looked at above"),
        }
    }

    /// The call is back, and did not resolve. The member waits.
    #[inline]
    pub(crate) fn give_back_alone(
        &mut self,
        call: BoxLlmFuture,
        seat: u32,
        waker: &Waker,
        wakes: &mut Option<Wakes>,
    ) -> Option<Waker> {
        self.upstream = Upstream::Call(call);
        self.turns.give_back(false);
        let old = self.turns.wait(seat, waker);
        // Who joined meanwhile drives it once more.
        if self.turns.members() != 1 {
            self.turns.ask_anew(wakes.insert(Wakes::default()));
        }
        old
    }

    /// The call came to a whole answer, which nobody else is there for: the member leaves with it. Says
    /// whether it is the first, and what it leaves; None if others joined.
    #[inline]
    pub(crate) fn end_alone(&mut self, seat: u32) -> Option<(bool, Left)> {
        if self.turns.members() != 1 {
            return None;
        }
        let first = self.turns.member(seat)?.first;
        self.upstream = Upstream::Over;
        self.turns.give_back(false);
        self.turns.finish();
        let left = Left {
            _waker: self.turns.leave_ended(seat),
            upstream: None,
            closed: mem::replace(&mut self.open, false),
        };
        Some((first, left))
    }

    /// Waits, if there is nothing yet and nothing to do. The waker is to be dropped without the lock.
    #[inline]
    pub(crate) fn wait(&mut self, seat: u32, waker: &Waker) -> Option<Option<Waker>> {
        if !matches!(self.answer, Answer::Awaited) || self.turns.is_to_be_driven() {
            return None;
        }
        Some(self.turns.wait(seat, waker))
    }

    /// Takes a member out, and with the last one the call, which is to be dropped without the lock.
    pub(crate) fn leave(&mut self, seat: u32, rules: &Rules, wakes: &mut Wakes) -> Left {
        let held = self.is_held(rules);
        if let Answer::Stream(stream) = &mut self.answer
            && let Some(place) = self.turns.member(seat)
            && !place.let_go
        {
            stream.log.give_up(place.next);
        }
        let mut left = Left {
            _waker: self.turns.leave(seat, wakes),
            upstream: None,
            closed: false,
        };
        if self.turns.members() == 0 {
            left.closed = mem::replace(&mut self.open, false);
            self.turns.finish();
            left.upstream = Some(mem::replace(&mut self.upstream, Upstream::Over));
        } else if held && !self.is_held(rules) {
            self.turns.ask_anew(wakes);
        }
        left
    }

    /// The answer, if it came whole and others want it too: whoever is told of it has most often only
    /// to copy it, and leaves. In parts, of which one is made where it is handed over. The waker that is
    /// left over is to be dropped without the lock.
    #[inline(always)]
    pub(crate) fn whole(&mut self, seat: u32) -> Option<(Head, Completion, Option<Waker>)> {
        let Answer::Whole(head, completion) = &self.answer else {
            return None;
        };
        if self.turns.members() == 1 {
            return None;
        }
        let first = self.turns.member(seat)?.first;
        let waker = self.turns.leave_ended(seat);
        let mut head = head.clone();
        if !first {
            coalesce(&mut head);
        }
        Some((head, completion.clone(), waker))
    }

    /// What there is at the head of the answer.
    pub(crate) fn head(&mut self, seat: u32) -> Option<Found> {
        if matches!(self.answer, Answer::Awaited) {
            return None;
        }
        // Nobody joins an answer that is there: the last one takes it.
        let last = self.turns.members() == 1;
        let place = self.turns.member(seat)?;
        if place.let_go {
            return Some(Found::All(Err(too_slow())));
        }
        let first = place.first;
        let coalesced = move |head: &mut Head| {
            if !first {
                coalesce(head);
            }
        };
        Some(match &self.answer {
            Answer::Awaited => return None,
            Answer::Whole(..) if last => match mem::replace(&mut self.answer, Answer::Awaited) {
                Answer::Whole(mut head, completion) => {
                    coalesced(&mut head);
                    Found::All(Ok(LlmResponse::complete(head, completion)))
                }
                _ => unreachable!("it was looked at above"),
            },
            Answer::Whole(head, completion) => {
                let mut head = head.clone();
                coalesced(&mut head);
                Found::All(Ok(LlmResponse::complete(head, completion.clone())))
            }
            Answer::Stream(stream) => {
                let mut head = stream.head.clone();
                coalesced(&mut head);
                Found::Stream(head, stream.choices)
            }
            Answer::Failed { own: true, .. } if !first && !place.alike => Found::Again,
            Answer::Failed { error, .. } => Found::All(Err(error.clone())),
        })
    }

    /// The next chunk of the stream for a member; `Ok(None)` after the last.
    pub(crate) fn next(&mut self, seat: u32) -> Option<Result<Option<Arc<Chunk>>, LlmError>> {
        let place = self.turns.member(seat)?;
        if place.let_go {
            return Some(Err(too_slow()));
        }
        let Answer::Stream(stream) = &mut self.answer else {
            return None;
        };
        if let Some(chunk) = stream.log.read(place.next) {
            place.next += 1;
            return Some(Ok(Some(chunk)));
        }
        let ended = stream.ended.as_ref()?;
        Some(ended.clone().map(|()| None))
    }

    /// Whether the call is not driven on because somebody has too much to read.
    pub(crate) fn is_held(&self, rules: &Rules) -> bool {
        match &self.answer {
            Answer::Stream(stream) => !self.open && stream.log.bytes() > rules.max_bytes,
            _ => false,
        }
    }

    /// What a member may wait for the slow one until.
    pub(crate) fn held_until(&mut self, rules: &Rules) -> Option<Instant> {
        let held = self.is_held(rules);
        let Answer::Stream(stream) = &mut self.answer else {
            return None;
        };
        if !held {
            stream.held_since = None;
            return None;
        }
        let since = *stream.held_since.get_or_insert_with(Instant::now);
        since.checked_add(rules.max_stall)
    }

    /// Lets go of the slowest if the others have waited long enough for them. Says how many.
    pub(crate) fn let_go_of_the_slow(
        &mut self,
        rules: &Rules,
        now: Instant,
        wakes: &mut Wakes,
    ) -> u64 {
        let mut gone = 0;
        if self.held_until(rules).is_none_or(|until| until > now) {
            return gone;
        }
        while self.is_held(rules)
            && let Answer::Stream(stream) = &mut self.answer
        {
            let places = self.turns.all().filter(|place| !place.let_go);
            let Some(slowest) = places.map(|place| place.next).min() else {
                break;
            };
            for place in self.turns.all() {
                if place.next == slowest && !place.let_go {
                    place.let_go = true;
                    stream.log.give_up(slowest);
                    gone += 1;
                }
            }
        }
        if let Answer::Stream(stream) = &mut self.answer {
            stream.held_since = None;
        }
        self.turns.ask_anew(wakes);
        gone
    }

    /// The answer, which came whole, if there is nobody else for whom it would have to be kept.
    pub(crate) fn hand_on(&mut self, seat: u32, step: &mut Step) -> Option<LlmResponse> {
        let whole = matches!(step, Step::Answer(Ok(answer)) if !answer.is_stream());
        if !whole || self.turns.members() != 1 {
            return None;
        }
        let first = self.turns.member(seat)?.first;
        let Step::Answer(Ok(mut answer)) = mem::replace(step, Step::Pending) else {
            return None;
        };
        if !first {
            coalesce(&mut answer.head);
        }
        Some(answer)
    }

    /// The call is back, and its answer was handed on.
    pub(crate) fn end(&mut self) -> Closed {
        self.upstream = Upstream::Over;
        self.turns.give_back(false);
        self.finish()
    }

    /// The call is back, and came to this. Says whether others may no longer join since.
    pub(crate) fn publish(
        &mut self,
        upstream: Upstream,
        step: Step,
        rules: &Rules,
        wakes: &mut Wakes,
    ) -> Closed {
        self.upstream = upstream;
        let mut closed = Closed::No;
        match step {
            Step::Pending => {
                self.turns.give_back(false);
                return closed;
            }
            Step::Answer(Ok(LlmResponse { head, body, .. })) => match body {
                Body::Complete(completion) => {
                    self.answer = Answer::Whole(head, completion);
                    closed = self.finish();
                }
                Body::Stream(stream) => {
                    let streamed = Streamed {
                        head,
                        choices: stream.choices(),
                        ended: None,
                        log: Log::default(),
                        held_since: None,
                    };
                    self.answer = Answer::Stream(Box::new(streamed));
                    self.upstream = Upstream::Stream(stream);
                }
            },
            // Nobody is told of a keep-alive, nor keeps it for those who come later.
            Step::Chunk(chunk) if chunk.is_ping() => {
                self.turns.give_back(true);
                return closed;
            }
            Step::Chunk(chunk) => {
                let reading = self.turns.all().filter(|place| !place.let_go).count();
                if let Answer::Stream(stream) = &mut self.answer {
                    stream.log.push(chunk, reading);
                    if self.open && stream.log.bytes() > rules.max_bytes {
                        self.open = false;
                        self.release();
                        closed = Closed::Outgrown;
                    }
                }
            }
            Step::Answer(Err(error)) | Step::End(Err(error)) => {
                if let Answer::Stream(stream) = &mut self.answer {
                    stream.ended = Some(Err(error));
                } else {
                    let own = is_own(&error, self.extended);
                    self.answer = Answer::Failed { error, own };
                }
                closed = self.finish();
            }
            Step::End(Ok(())) => {
                if let Answer::Stream(stream) = &mut self.answer {
                    stream.ended = Some(Ok(()));
                }
                closed = self.finish();
            }
        }
        self.turns.give_back(true);
        self.turns.tell_all(wakes);
        closed
    }

    fn finish(&mut self) -> Closed {
        self.turns.finish();
        self.release();
        match mem::replace(&mut self.open, false) {
            true => Closed::Ended,
            false => Closed::No,
        }
    }

    fn release(&mut self) {
        if let Answer::Stream(stream) = &mut self.answer {
            let reading = self.turns.all().filter(|place| !place.let_go);
            stream.log.release(reading.map(|place| place.next));
        }
    }
}

/// The head of an answer that another one is billed for.
pub(crate) fn coalesce(head: &mut Head) {
    if head.origin == Origin::Upstream {
        head.origin = Origin::Coalesced;
    }
}

/// Whether, and why, nobody may join any more since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    No,
    Ended,
    Outgrown,
}

/// What a member leaves behind, to be dropped without the lock.
pub(crate) struct Left {
    _waker: Option<Waker>,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) closed: bool,
}

/// Whether an error is the affair of whoever issued the call, and says nothing to the others: its
/// deadline, which is not theirs, or what it alone is refused.
fn is_own(error: &LlmError, extended: bool) -> bool {
    match error.kind() {
        ErrorKind::Timeout(TimeoutClock::Total) => true,
        ErrorKind::AllTargetsFailed => {
            let mut attempts = error.attempts().iter().map(|attempt| &attempt.error);
            !error.attempts().is_empty() && attempts.all(|error| is_own(error, extended))
        }
        kind => kind.is_unsent() && (extended || error.scope() == Scope::Caller),
    }
}

fn too_slow() -> LlmError {
    LlmError::new(
        ErrorKind::StreamBroken,
        "read so slowly that the others who asked the same would have had to wait",
    )
    .with_scope(Scope::Caller)
}
