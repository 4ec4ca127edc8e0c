//! A flight, and being a member of it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{self, Poll, Wake, Waker, ready},
    thread,
};

use donjon_core::{
    BoxLlmFuture, Call, CanonicalPiece, Chunk, Completion, Ledger, LlmError, LlmRequest,
    LlmResponse, Question, Whose,
};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    drive::{drive, panicked},
    flights::Shared,
    seeks::{Head, Next, Seeks},
    slot::{Closed, Found, Left, Place, Slot, Step, Upstream, coalesce},
    sync::{Mutex, MutexGuard, lock},
    turns::Wakes,
};
use crate::key::CacheKey;

/// One call, shared by those who ask the same at the same time.
pub(crate) struct Flight {
    pub(crate) key: CacheKey,
    pub(crate) shared: Arc<Shared>,
    asked: Question,
    streamed: bool,
    /// Written out when somebody first asks with a prompt of their own.
    written: OnceLock<Box<[u8]>>,
    /// Until when whoever issued the call waits, and the ledger in which others may extend that.
    until: Option<(Instant, Arc<Ledger>)>,
    slot: Mutex<Slot>,
}

/// What a member came to.
struct Turn<T> {
    found: Poll<T>,
    /// What it left behind, if it found all there is.
    left: Option<Left>,
    /// When the slow ones are let go of, if they hold the others back.
    held_until: Option<Instant>,
}

impl Flight {
    /// A flight of `request`, which is called by `call`; its first member has the first seat.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        key: CacheKey,
        mut request: LlmRequest,
        call: impl FnOnce(LlmRequest) -> BoxLlmFuture,
    ) -> Arc<Self> {
        let deadline = request.call.deadline();
        // Who waits as long as it takes waits longer than whoever joins.
        let until = deadline.map(|until| (until, request.call.share().clone()));
        let (asked, streamed) = (request.question(), request.is_stream());
        let slot = Mutex::new(Slot::new(call(request)));
        Arc::new(Self {
            key,
            shared: shared.clone(),
            asked,
            streamed,
            written: OnceLock::new(),
            until,
            slot,
        })
    }

    /// Whether the answer is driven as a stream.
    pub(crate) fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Whether `request` asks the same, and not only has the same key.
    pub(crate) fn asks(&self, request: &LlmRequest) -> bool {
        if Arc::ptr_eq(self.asked.prompt(), request.shared_prompt()) {
            return self.asked.model() == request.model();
        }
        let written = self.written.get_or_init(|| {
            let mut written = Vec::new();
            let write = |piece: CanonicalPiece<'_>| written.extend_from_slice(piece.bytes);
            self.asked.canonical(Whose::Anybody, write);
            written.into()
        });
        let mut rest = Some(&**written);
        request.canonical(Whose::Anybody, |piece| {
            rest = rest.and_then(|rest| rest.strip_prefix(piece.bytes));
        });
        rest.is_some_and(<[u8]>::is_empty)
    }

    /// Takes a seat for a member that waits until `deadline`, if there still is one. Also says whether
    /// what whoever issued the call is refused would be refused to it too, which then never has to ask
    /// again.
    pub(crate) fn join(
        &self,
        request: &LlmRequest,
        deadline: Option<Instant>,
    ) -> Option<(u32, bool)> {
        let until = self.until.as_ref();
        let later = until.filter(|(until, _)| deadline.is_none_or(|deadline| deadline > *until));
        let alike = later.is_none() && self.asked.identity() == request.identity();
        let mut slot = lock(&self.slot);
        if !slot.open {
            return None;
        }
        // Before anybody can find that the time of the others is up.
        if let Some((_, ledger)) = later {
            slot.extended = true;
            ledger.extend(deadline);
        }
        Some((slot.turns.join(Place::new(false, alike)), alike))
    }

    /// Looks for what a member waits for, and drives the call if it asks for that. A member that has
    /// found `all` there is leaves.
    fn turn<'a, S: Seeks>(
        self: &'a Arc<Self>,
        mut slot: MutexGuard<'a, Slot>,
        seeks: S,
        cx: &mut task::Context<'_>,
    ) -> Turn<S::Found> {
        let (rules, seat) = (&self.shared.rules, seeks.seat());
        let mut turn = Turn {
            found: Poll::Pending,
            left: None,
            held_until: None,
        };
        let (mut closed, mut panicked) = (Closed::No, false);
        let mut wakes = Wakes::default();
        let mut driven = false;
        let left_over = loop {
            let held = slot.is_held(rules);
            if let Some(found) = seeks.look(&mut slot) {
                let mut waker = None;
                if S::is_all(&found) {
                    turn.left = Some(slot.leave(seat, rules, &mut wakes));
                } else {
                    waker = slot.turns.rest(seat, &mut wakes);
                    if held && !slot.is_held(rules) {
                        slot.turns.ask_anew(&mut wakes);
                    }
                }
                turn.found = Poll::Ready(found);
                break waker;
            }
            if slot.turns.is_to_be_driven() && !held && !driven {
                let alone = slot.turns.take();
                let upstream = mem::replace(&mut slot.upstream, Upstream::Away);
                drop(slot);
                let (upstream, mut step, panics) = match alone {
                    true => drive(upstream, cx),
                    false => drive(upstream, &mut task::Context::from_waker(&self.waker())),
                };
                // A call that wakes while it is driven is driven on when its turn comes again.
                driven = matches!(step, Step::Pending);
                panicked |= panics;
                slot = lock(&self.slot);
                if let Some(whole) = S::WHOLE
                    && let Some(answer) = slot.hand_on(seat, &mut step)
                {
                    closed = slot.end();
                    turn.left = Some(slot.leave(seat, rules, &mut wakes));
                    turn.found = Poll::Ready(whole(answer));
                    break None;
                }
                match slot.publish(upstream, step, rules, &mut wakes) {
                    Closed::No => {}
                    why => closed = why,
                }
                continue;
            }
            turn.held_until = slot.held_until(rules);
            let waker = slot.turns.wait(seat, cx.waker());
            if !held {
                slot.turns.ask_anew(&mut wakes);
            }
            break waker;
        };
        drop(slot);
        // Whatever is woken or dropped may come back here.
        drop(left_over);
        wakes.wake();
        if closed != Closed::No {
            self.shared.closed(self, closed);
        }
        if panicked {
            self.shared.panicked(self);
        }
        turn
    }

    /// The call is back from whoever was alone with it, and came to this.
    #[cold]
    fn publish(self: &Arc<Self>, driven: thread::Result<Poll<Answer>>) {
        let (step, panics) = match driven {
            Ok(Poll::Ready(answer)) => (Step::Answer(answer), false),
            Ok(Poll::Pending) => (Step::Pending, false),
            Err(panic) => (Step::End(Err(panicked(&*panic))), true),
        };
        let mut wakes = Wakes::default();
        let rules = &self.shared.rules;
        let closed = lock(&self.slot).publish(Upstream::Over, step, rules, &mut wakes);
        wakes.wake();
        if closed != Closed::No {
            self.shared.closed(self, closed);
        }
        if panics {
            self.shared.panicked(self);
        }
    }

    fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }

    /// What a member left behind is dropped, and with the last one the call.
    fn settle(self: &Arc<Self>, left: Left) {
        if left.closed {
            self.shared.closed(self, Closed::Ended);
        }
        match &left.upstream {
            Some(Upstream::Call(_)) => self.shared.left_by_all(),
            // Many stop reading once they have the whole answer.
            Some(Upstream::Stream(stream)) if !stream.is_complete() => self.shared.left_by_all(),
            _ => {}
        }
    }
}

/// The call asks to be driven.
impl Wake for Flight {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut wakes = Wakes::default();
        // While it is held back it is driven once somebody has read.
        lock(&self.slot).turns.call_wakes(&mut wakes);
        wakes.wake();
    }
}

/// What a call came to.
type Answer = Result<LlmResponse, LlmError>;

/// Polls a call that is there until it has resolved, or panicked.
#[inline]
fn poll_once(call: &mut Option<BoxLlmFuture>, cx: &mut task::Context<'_>) -> Poll<Answer> {
    let Some(mut driven) = call.take() else {
        return Poll::Pending;
    };
    let polled = driven.as_mut().poll(cx);
    if polled.is_pending() {
        *call = Some(driven);
    } else {
        // It has told its end before anybody is told.
        drop(driven);
    }
    polled
}

/// What there is for a member at first sight.
pub(crate) enum Simply {
    /// The parts of an answer: it is put together where it is to lie, since what has just been written in
    /// parts is slow to move.
    Whole(donjon_core::Head, Completion),
    Polled(Poll<Answer>),
    /// Nothing.
    No,
}

/// Being a member of a flight, until it has found all there is, or is dropped.
pub(crate) struct Member {
    pub(crate) flight: Arc<Flight>,
    /// None once it has left.
    seat: Option<u32>,
    deadline: Option<Instant>,
}

/// The timer of a member; made on the first wait of one that has something to wait until.
pub(crate) type Timer = Option<Pin<Box<Sleep>>>;

impl Member {
    /// Whether its time is up.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }

    /// In the seat of `flight` that it was given.
    pub(super) const fn new(flight: Arc<Flight>, seat: u32, deadline: Option<Instant>) -> Self {
        Self {
            flight,
            seat: Some(seat),
            deadline,
        }
    }

    /// The answer, as far as it comes whole, and as long as this member is alone with the call or has
    /// nothing to do but to wait. None says that [`poll_head`](Self::poll_head) knows more.
    ///
    #[inline(always)]
    pub(crate) fn poll_whole(&mut self, timer: &mut Timer, cx: &mut task::Context<'_>) -> Simply {
        let Some(seat) = self.seat else {
            return Simply::No;
        };
        let mut slot = lock(&self.flight.slot);
        if let Some((head, completion, waker)) = slot.whole(seat) {
            drop(slot);
            drop(waker);
            self.seat = None;
            return Simply::Whole(head, completion);
        }
        if let Some(call) = slot.take_alone() {
            drop(slot);
            return match self.drive_alone(seat, call, timer, cx) {
                Some(polled) => Simply::Polled(polled),
                None => Simply::No,
            };
        }
        let Some(old) = slot.wait(seat, cx.waker()) else {
            return Simply::No;
        };
        drop(slot);
        drop(old);
        match self.poll_deadline(timer, cx) {
            Some(polled) => Simply::Polled(polled),
            None => Simply::No,
        }
    }

    /// Drives the call with this member's own waker.
    #[inline]
    fn drive_alone(
        &mut self,
        seat: u32,
        call: BoxLlmFuture,
        timer: &mut Timer,
        cx: &mut task::Context<'_>,
    ) -> Option<Poll<Answer>> {
        let mut call = Some(call);
        let mut driven = catch_unwind(AssertUnwindSafe(|| poll_once(&mut call, cx)));
        if let Some(call) = call {
            let mut wakes = None;
            let old = lock(&self.flight.slot).give_back_alone(call, seat, cx.waker(), &mut wakes);
            drop(old);
            if let Some(wakes) = wakes {
                wakes.wake();
            }
            return self.poll_deadline(timer, cx);
        }
        if let Ok(Poll::Ready(Ok(answer))) = &mut driven
            && !answer.is_stream()
        {
            let ended = lock(&self.flight.slot).end_alone(seat);
            if let Some((first, left)) = ended {
                self.seat = None;
                self.flight.settle(left);
                if !first {
                    coalesce(&mut answer.head);
                }
                return driven.ok();
            }
        }
        self.flight.publish(driven);
        None
    }

    /// None if its timer has rung too early.
    #[inline]
    fn poll_deadline(&self, timer: &mut Timer, cx: &mut task::Context<'_>) -> Option<Poll<Answer>> {
        let Some(at) = self.deadline else {
            return Some(Poll::Pending);
        };
        match poll_timer(timer, at, cx) {
            Poll::Pending => Some(Poll::Pending),
            Poll::Ready(()) => self
                .is_late()
                .then(|| Poll::Ready(Err(Call::deadline_error()))),
        }
    }

    /// Waits for the head of the answer. It is to be dropped after an error.
    pub(crate) fn poll_head(
        &mut self,
        timer: &mut Timer,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Found, LlmError>> {
        let Some(seat) = self.seat else {
            return Poll::Pending;
        };
        let flight = &self.flight;
        let turn = flight.turn(lock(&flight.slot), Head(seat), cx);
        self.poll(turn, Head(seat), timer, cx)
    }

    /// Waits for the next chunk. It is to be dropped after an error.
    pub(crate) fn poll_next(
        &mut self,
        timer: &mut Timer,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Option<Arc<Chunk>>, LlmError>> {
        let Some(seat) = self.seat else {
            return Poll::Pending;
        };
        let flight = &self.flight;
        let turn = flight.turn(lock(&flight.slot), Next(seat), cx);
        self.poll(turn, Next(seat), timer, cx).map(|found| found?)
    }

    fn poll<S: Seeks>(
        &mut self,
        mut turn: Turn<S::Found>,
        seeks: S,
        timer: &mut Timer,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<S::Found, LlmError>> {
        loop {
            if let Some(left) = turn.left {
                self.seat = None;
                self.flight.settle(left);
            }
            if let Poll::Ready(found) = turn.found {
                return Poll::Ready(Ok(found));
            }
            let held_until = turn.held_until;
            let at = match (self.deadline, held_until) {
                (Some(deadline), Some(held)) => deadline.min(held),
                (deadline, held) => match deadline.or(held) {
                    Some(at) => at,
                    None => return Poll::Pending,
                },
            };
            ready!(poll_timer(timer, at, cx));
            if self.is_late() {
                return Poll::Ready(Err(Call::deadline_error()));
            }
            self.let_go_of_the_slow();
            let flight = &self.flight;
            turn = flight.turn(lock(&flight.slot), seeks, cx);
        }
    }

    fn let_go_of_the_slow(&self) {
        let mut wakes = Wakes::default();
        let mut slot = lock(&self.flight.slot);
        let shared = &self.flight.shared;
        let gone = slot.let_go_of_the_slow(&shared.rules, Instant::now(), &mut wakes);
        drop(slot);
        wakes.wake();
        if gone > 0 {
            shared.let_go(&self.flight, gone);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(seat) = self.seat else {
            return;
        };
        let flight = &self.flight;
        let mut wakes = Wakes::default();
        let left = lock(&flight.slot).leave(seat, &flight.shared.rules, &mut wakes);
        flight.settle(left);
        wakes.wake();
    }
}

/// Waits until `at`.
fn poll_timer(timer: &mut Timer, at: Instant, cx: &mut task::Context<'_>) -> Poll<()> {
    let timer = match timer {
        None => timer.insert(Box::pin(sleep_until(at))),
        Some(timer) => {
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            timer
        }
    };
    timer.as_mut().poll(cx)
}
