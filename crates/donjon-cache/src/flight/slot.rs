//! The slot in which a shared call lives, and what its members find there.

use std::{mem, sync::Arc};

use donjon_core::{
    BoxLlmFuture, Chunk, Completion, ErrorKind, Head, LlmError, Origin, ResponseStream, Scope,
    TimeoutClock,
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
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, and a box would be an allocation for each chunk"
)]
pub(crate) enum Step {
    Pending,
    Whole(Head, Completion),
    Stream(Head, u32),
    Chunk(Chunk),
    /// The end of the call or of its stream.
    Ended(Result<(), LlmError>),
}

/// What is known of the answer.
enum Answer {
    Awaited,
    Whole(Head, Completion),
    Stream {
        head: Head,
        choices: u32,
        ended: Option<Result<(), LlmError>>,
    },
    Failed {
        error: LlmError,
        /// Whether it is the affair of whoever issued the call.
        own: bool,
    },
}

/// What a member finds at the head of the answer.
pub(crate) enum Found {
    Whole(Head, Completion),
    Stream(Head, u32),
    Failed(LlmError),
    /// The call failed for a reason of the one who issued it: this member is to ask again.
    Again,
}

/// One member.
pub(crate) struct Place {
    /// The chunk that it reads next.
    next: u64,
    /// Whether it was the first, whose request is made and who is billed.
    pub(crate) first: bool,
    /// Whether what the first one is refused would be refused to it too.
    pub(crate) alike: bool,
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
    pub(crate) turns: Turns,
    pub(crate) upstream: Upstream,
    places: Vec<Option<Place>>,
    answer: Answer,
    /// Whether others may join.
    pub(crate) open: bool,
    /// Whether somebody joined who may wait longer than the one who issued the call.
    pub(crate) extended: bool,
    log: Log,
    held_since: Option<Instant>,
}

impl Slot {
    pub(crate) fn new(call: BoxLlmFuture) -> Self {
        Self {
            turns: Turns::new(),
            upstream: Upstream::Call(call),
            places: Vec::new(),
            answer: Answer::Awaited,
            open: true,
            extended: false,
            log: Log::default(),
            held_since: None,
        }
    }

    pub(crate) fn join(&mut self, place: Place) -> usize {
        let seat = self.turns.join();
        if seat == self.places.len() {
            self.places.push(Some(place));
        } else {
            self.places[seat] = Some(place);
        }
        seat
    }

    /// Takes a member out, and with the last one the call, which is to be dropped without the lock.
    pub(crate) fn leave(&mut self, seat: usize, rules: &Rules, wakes: &mut Wakes) -> Left {
        let held = self.is_held(rules);
        if let Some(place) = self.places[seat].take()
            && !place.let_go
        {
            self.log.give_up(place.next);
        }
        let waker = self.turns.leave(seat, wakes);
        let mut left = Left {
            _waker: waker,
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

    /// What there is at the head of the answer.
    pub(crate) fn head(&self, seat: usize) -> Option<Found> {
        let place = self.places[seat].as_ref()?;
        if place.let_go {
            return Some(Found::Failed(too_slow()));
        }
        let head_for = |head: &Head| {
            let mut head = head.clone();
            if !place.first && head.origin == Origin::Upstream {
                head.origin = Origin::Coalesced;
            }
            head
        };
        match &self.answer {
            Answer::Awaited => None,
            Answer::Whole(head, completion) => {
                Some(Found::Whole(head_for(head), completion.clone()))
            }
            Answer::Stream { head, choices, .. } => Some(Found::Stream(head_for(head), *choices)),
            Answer::Failed { own: true, .. } if !place.first && !place.alike => Some(Found::Again),
            Answer::Failed { error, .. } => Some(Found::Failed(error.clone())),
        }
    }

    /// The next chunk of the stream for a member; `Ok(None)` after the last.
    pub(crate) fn next(&mut self, seat: usize) -> Option<Result<Option<Arc<Chunk>>, LlmError>> {
        let place = self.places[seat].as_mut()?;
        if place.let_go {
            return Some(Err(too_slow()));
        }
        if let Some(chunk) = self.log.read(place.next) {
            place.next += 1;
            return Some(Ok(Some(chunk)));
        }
        match &self.answer {
            Answer::Stream {
                ended: Some(ended), ..
            } => Some(ended.clone().map(|()| None)),
            _ => None,
        }
    }

    /// Whether the call is not driven on because somebody has too much to read.
    pub(crate) fn is_held(&self, rules: &Rules) -> bool {
        !self.open && self.log.bytes() > rules.max_bytes
    }

    /// What a member may wait for the slow one until.
    pub(crate) fn held_until(&mut self, rules: &Rules) -> Option<Instant> {
        if !self.is_held(rules) {
            self.held_since = None;
            return None;
        }
        let since = *self.held_since.get_or_insert_with(Instant::now);
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
        while self.is_held(rules) {
            let places = self.places.iter().flatten();
            let behind = places.filter(|place| !place.let_go).map(|place| place.next);
            let Some(slowest) = behind.min() else { break };
            for place in self.places.iter_mut().flatten() {
                if place.next == slowest && !place.let_go {
                    place.let_go = true;
                    self.log.give_up(slowest);
                    gone += 1;
                }
            }
        }
        self.held_since = None;
        self.turns.ask_anew(wakes);
        gone
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
            Step::Whole(head, completion) => {
                self.answer = Answer::Whole(head, completion);
                closed = self.finish();
            }
            Step::Stream(head, choices) => {
                self.answer = Answer::Stream {
                    head,
                    choices,
                    ended: None,
                };
            }
            // Nobody is told of a keep-alive, nor keeps it for those who come later.
            Step::Chunk(chunk) if chunk.is_ping() => {
                self.turns.give_back(true);
                return closed;
            }
            Step::Chunk(chunk) => {
                let reading = self.places.iter().flatten().filter(|place| !place.let_go);
                self.log.push(chunk, reading.count());
                if self.open && self.log.bytes() > rules.max_bytes {
                    self.open = false;
                    self.release();
                    closed = Closed::Outgrown;
                }
            }
            Step::Ended(result) => {
                if let Answer::Stream { ended, .. } = &mut self.answer {
                    *ended = Some(result);
                } else if let Err(error) = result {
                    let own = is_own(&error, self.extended);
                    self.answer = Answer::Failed { error, own };
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
        let places = self.places.iter().flatten();
        let reading = places.filter(|place| !place.let_go);
        self.log.release(reading.map(|place| place.next));
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
    _waker: Option<std::task::Waker>,
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
