//! The slot of a call.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use donjon_core::{
    Chunk, DropReason, End, ErrorKind, Head, Health, LlmError, Observer, Origin, Outcome,
    TimeoutClock,
};

use crate::{limit::Signal, room::Room, source::Source};

/// The slot of a call, held until it is over; given back when it is dropped.
pub struct Permit {
    room: Arc<Room>,
    /// Where the time to first token is found, where that is wanted.
    source: Option<Source>,
    since: Since,
    in_flight: u32,
    held: bool,
    stage: Stage,
}

/// What a limit that adapts has still to hear of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not committed.
    Waits,
    /// It has, and nothing was told of it.
    Committed,
    /// Its first token was told of.
    Told,
    /// It was not answered by the server: there is nothing to tell.
    Elsewhere,
}

/// When a slot was given, as far as that is to be known: nanoseconds and one. A permit is moved often,
/// and this is half of what a duration takes.
#[derive(Clone, Copy)]
struct Since(Option<NonZeroU64>);

impl Since {
    fn new(at: Option<Duration>) -> Self {
        let nanos = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        Self(at.and_then(|at| NonZeroU64::new(nanos(at).saturating_add(1))))
    }

    fn get(self) -> Option<Duration> {
        self.0.map(|at| Duration::from_nanos(at.get() - 1))
    }
}

impl Permit {
    #[inline]
    pub(crate) fn new(
        room: Arc<Room>,
        since: Option<Duration>,
        in_flight: u32,
        source: Option<Source>,
    ) -> Self {
        Self {
            room,
            source,
            since: Since::new(since),
            in_flight,
            held: true,
            stage: Stage::Waits,
        }
    }

    #[inline]
    fn give_back(&mut self) {
        if std::mem::take(&mut self.held) {
            if let Some(since) = self.since.get() {
                self.learn_held(since);
            }
            self.room.line.give_back(|| self.room.common.now());
        }
    }

    #[cold]
    fn learn_held(&self, since: Duration) {
        // Of a call that found room nobody needs to know how long it took.
        if self.in_flight >= self.room.line.read().limit() {
            let held = self.room.common.now().saturating_sub(since);
            self.room.hold.learn(held);
        }
    }

    /// Tells the limit what the call showed.
    fn tell(&self, source: Option<&Source>, signal: Signal) {
        let Some(since) = self.since.get() else {
            return;
        };
        let sent_at = source.and_then(Source::sent_at);
        let waited = sent_at.map(|at| self.room.common.of(at).saturating_sub(since));
        let waited = waited.unwrap_or_default();
        self.room.learn(since, waited, self.in_flight, signal);
    }

    /// A stream is under way: its first token has come.
    #[cold]
    fn tell_first_token(&mut self) {
        self.stage = Stage::Told;
        let source = self.source.take();
        let source = source.as_ref();
        let Some(wanted) = source.filter(|_| self.room.wants_first_token) else {
            self.tell(source, Signal::Success);
            return;
        };
        let first_token = wanted.first_token().or_else(|| {
            // Nobody stamped it: it has just come.
            Some(self.room.common.now().saturating_sub(self.since.get()?))
        });
        if let Some(first_token) = first_token {
            self.tell(source, Signal::FirstToken(first_token));
        }
    }

    fn tell_end(&mut self, end: &End<'_>) {
        match (end.outcome, self.stage) {
            // Also in the middle of a stream, of whose first token was told.
            (Outcome::Failure(error), _) if self.is_overload(error) => {
                self.tell(None, Signal::Overload);
            }
            (Outcome::Success, Stage::Committed) if end.completion.is_none() => {
                self.tell_first_token();
            }
            (Outcome::Success, Stage::Committed) => {
                // Where the answer was fetched as a stream, it has a first token.
                let source = self.source.take();
                let source = source.as_ref();
                let wanted = source.filter(|_| self.room.wants_first_token);
                let first_token = wanted.and_then(Source::first_token_of_whole);
                self.tell(
                    source,
                    first_token.map_or(Signal::Success, Signal::FirstToken),
                );
            }
            (
                Outcome::Cancelled {
                    why: DropReason::Superseded,
                    ..
                },
                Stage::Waits,
            ) => {
                let source = self.source.take().filter(|_| self.room.wants_first_token);
                if let Some(sent_for) = source.as_ref().and_then(Source::sent_for) {
                    self.tell(source.as_ref(), Signal::NoTokenAfter(sent_for));
                }
            }
            _ => {}
        }
    }

    /// Whether the server has too much to do: it says so, or one of the clocks ran out on it.
    fn is_overload(&self, error: &LlmError) -> bool {
        let health = self.room.common.rules.classify.classify(error).health;
        match (health, error.kind()) {
            (Health::Overload, _) => true,
            // The whole call's time may have passed in a queue of ours.
            (Health::Fault, ErrorKind::Timeout(TimeoutClock::Total)) => {
                self.stage != Stage::Waits || self.source.as_ref().is_some_and(Source::was_sent)
            }
            (Health::Fault, ErrorKind::Timeout(_)) => true,
            _ => false,
        }
    }
}

impl Observer for Permit {
    #[inline]
    fn committed(&mut self, head: &Head) {
        self.stage = match head.origin {
            Origin::Upstream => Stage::Committed,
            _ => Stage::Elsewhere,
        };
        if self.room.until_committed {
            self.give_back();
        }
    }

    fn chunk(&mut self, _: &Chunk) {
        if self.stage == Stage::Committed && self.room.is_adaptive() {
            self.tell_first_token();
        }
    }

    #[inline]
    fn end(&mut self, end: &End<'_>) {
        if self.room.is_adaptive() {
            self.tell_end(end);
        }
        self.give_back();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
