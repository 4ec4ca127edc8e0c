//! Waiting for a slot.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use donjon_core::{Call, LlmError};
use tokio::time::{Sleep, sleep_until};

use crate::{
    figures::RejectReason,
    line::{Seat, Told},
    permit::Permit,
    queue::Place,
    room::Room,
    source::Source,
};

/// Waits for the slot of a call. Dropping it gives the place in the queue up, or hands a slot that
/// came meanwhile on to who is next.
pub struct Wait {
    room: Arc<Room>,
    place: Place,
    seat: Arc<Seat>,
    since: Duration,
    longest: Duration,
    call: Call,
    source: Option<Source>,
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl Wait {
    pub(crate) fn new(
        room: Arc<Room>,
        (place, seat): (Place, Arc<Seat>),
        (since, longest): (Duration, Duration),
        call: &Call,
        source: Option<Source>,
    ) -> Self {
        Self {
            room,
            place,
            seat,
            since,
            longest,
            call: call.clone(),
            source,
            timer: None,
            waits: true,
        }
    }

    /// Waits until the time is up; for ever where there is no such time.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            let until = self.since.checked_add(self.longest);
            let Some(until) = until.and_then(|until| self.room.common.moment(until)) else {
                return Poll::Pending;
            };
            self.timer = Some(Box::pin(sleep_until(until)));
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn told(&mut self, told: Told) -> Result<Permit, LlmError> {
        self.waits = false;
        match told {
            Told::Admitted => Ok(self.admitted()),
            Told::Evicted => Err(self.refuse(RejectReason::Evicted)),
        }
    }

    fn admitted(&mut self) -> Permit {
        let now = self.room.common.now();
        let counters = &self.room.counters;
        counters.admitted.add();
        counters.waits.record(now.saturating_sub(self.since));
        // A slot is handed on while all are in use; others may have been given back since.
        let word = self.room.line.read();
        let in_flight = word.in_use().max(word.limit());
        Permit::new(self.room.clone(), Some(now), in_flight, self.source.take())
    }

    fn refuse(&self, reason: RejectReason) -> LlmError {
        let ahead = self.room.line.ahead_of(&self.place);
        self.room.refuse(&self.call, reason, self.room.until(ahead))
    }

    /// Why it may not wait any longer.
    fn ran_out(&self) -> RejectReason {
        if self.call.time_left().is_zero() {
            RejectReason::Deadline
        } else if self.room.common.rules.max_wait == Some(self.longest) {
            RejectReason::MaxWait
        } else {
            RejectReason::Patience
        }
    }
}

impl Future for Wait {
    type Output = Result<Permit, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(told) = this.seat.poll(cx.waker()) {
            return Poll::Ready(this.told(told));
        }
        ready!(this.poll_time(cx));
        if this.room.line.leave(&this.place) {
            this.waits = false;
            let reason = this.ran_out();
            return Poll::Ready(Err(this.refuse(reason)));
        }
        // Something was told in that very moment.
        match this.seat.told() {
            Some(told) => Poll::Ready(this.told(told)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let room = &self.room;
        if room.line.leave(&self.place) {
            room.counters.left.add(1);
        } else if self.seat.told() == Some(Told::Admitted) {
            room.counters.left.add(1);
            room.line.give_back(|| room.common.now());
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("waits", &self.waits)
            .finish_non_exhaustive()
    }
}
