//! A flight, and being a member of it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{self, Poll, Wake, Waker, ready},
};

use donjon_core::{
    Body, BoxLlmFuture, Call, Chunk, ErrorKind, Identity, Ledger, LlmError, LlmRequest, Prompt,
    Whose,
};
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Rules,
    flights::Shared,
    slot::{Closed, Found, Place, Slot, Step, Upstream},
    sync::{Mutex, lock},
    turns::Wakes,
};
use crate::key::CacheKey;

/// One call, shared by those who ask the same at the same time.
pub(crate) struct Flight {
    pub(crate) key: CacheKey,
    pub(crate) streamed: bool,
    prompt: Arc<Prompt>,
    model: Arc<str>,
    /// Written out when somebody first asks with a prompt of their own.
    written: OnceLock<Box<[u8]>>,
    identity: Arc<Identity>,
    ledger: Arc<Ledger>,
    /// Until when whoever issued the call waits.
    until: Option<Instant>,
    slot: Mutex<Slot>,
}

/// What a member came to, and what happened meanwhile.
struct Turn<T> {
    found: Poll<T>,
    /// When the slow ones are let go of, if they hold the others back.
    held_until: Option<Instant>,
    closed: Closed,
    panicked: bool,
}

impl Flight {
    /// A flight of `request`, which is called by `call`.
    pub(crate) fn new(
        key: CacheKey,
        mut request: LlmRequest,
        call: impl FnOnce(LlmRequest) -> BoxLlmFuture,
    ) -> Self {
        let until = request.call.deadline();
        let ledger = request.call.share().clone();
        Self {
            key,
            streamed: request.is_stream(),
            prompt: request.shared_prompt().clone(),
            model: request.model().clone(),
            written: OnceLock::new(),
            identity: request.identity().clone(),
            ledger,
            until,
            slot: Mutex::new(Slot::new(call(request))),
        }
    }

    /// Whether `request` asks the same, and not only has the same key.
    pub(crate) fn asks(&self, request: &LlmRequest) -> bool {
        if Arc::ptr_eq(&self.prompt, request.shared_prompt()) {
            return self.model == *request.model();
        }
        let written = self.written.get_or_init(|| {
            let mut written = Vec::new();
            let asked = LlmRequest::new(self.model.clone(), self.prompt.clone());
            asked.canonical(Whose::Anybody, |bytes| written.extend_from_slice(bytes));
            written.into()
        });
        let mut rest = Some(&**written);
        request.canonical(Whose::Anybody, |bytes| {
            rest = rest.and_then(|rest| rest.strip_prefix(bytes));
        });
        rest.is_some_and(<[u8]>::is_empty)
    }

    /// Takes the seat of the first member, whose request it is.
    fn board(&self) -> usize {
        lock(&self.slot).join(Place::new(true, true))
    }

    /// Takes a seat, if there still is one.
    fn join(&self, request: &LlmRequest) -> Option<usize> {
        let deadline = request.call.deadline();
        let later = match (self.until, deadline) {
            (Some(until), Some(deadline)) => deadline > until,
            (until, deadline) => until.is_some() && deadline.is_none(),
        };
        let alike = !later && self.identity == *request.identity();
        let mut slot = lock(&self.slot);
        if !slot.open {
            return None;
        }
        // Before anybody can find that the time of the others is up.
        if later {
            slot.extended = true;
            self.ledger.extend(deadline);
        }
        Some(slot.join(Place::new(false, alike)))
    }

    /// Looks for what a member waits for, and drives the call if it asks for that.
    fn turn<T>(
        self: &Arc<Self>,
        rules: &Rules,
        seat: usize,
        waker: &Waker,
        look: impl Fn(&mut Slot) -> Option<T>,
    ) -> Turn<T> {
        let mut turn = Turn {
            found: Poll::Pending,
            held_until: None,
            closed: Closed::No,
            panicked: false,
        };
        let mut wakes = Wakes::default();
        let mut driven = false;
        let mut slot = lock(&self.slot);
        let left_over = loop {
            let held = slot.is_held(rules);
            if let Some(found) = look(&mut slot) {
                let waker = slot.turns.rest(seat, &mut wakes);
                if held && !slot.is_held(rules) {
                    slot.turns.ask_anew(&mut wakes);
                }
                turn.found = Poll::Ready(found);
                break waker;
            }
            if slot.turns.is_due() && !held && !driven {
                slot.turns.take();
                let upstream = std::mem::replace(&mut slot.upstream, Upstream::Away);
                drop(slot);
                let (upstream, step, panicked) = self.drive(upstream);
                // A call that wakes while it is driven is driven on when its turn comes again.
                driven = matches!(step, Step::Pending);
                turn.panicked |= panicked;
                slot = lock(&self.slot);
                match slot.publish(upstream, step, rules, &mut wakes) {
                    Closed::No => {}
                    closed => turn.closed = closed,
                }
                continue;
            }
            turn.held_until = slot.held_until(rules);
            let waker = slot.turns.wait(seat, waker);
            if !held {
                slot.turns.ask_anew(&mut wakes);
            }
            break waker;
        };
        drop(slot);
        // Whatever is woken or dropped may come back here.
        drop(left_over);
        wakes.wake();
        turn
    }

    /// Drives the call one step, without the lock.
    fn drive(self: &Arc<Self>, upstream: Upstream) -> (Upstream, Step, bool) {
        let waker = self.waker();
        let mut cx = task::Context::from_waker(&waker);
        let step = catch_unwind(AssertUnwindSafe(|| step(upstream, &mut cx)));
        match step {
            Ok((upstream, step)) => (upstream, step, false),
            Err(panic) => {
                let error = panicked(&*panic);
                (Upstream::Over, Step::Ended(Err(error)), true)
            }
        }
    }

    fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

/// What is dropped here has told its end before anybody is told of the step.
fn step(upstream: Upstream, cx: &mut task::Context<'_>) -> (Upstream, Step) {
    match upstream {
        Upstream::Call(mut call) => {
            let Poll::Ready(result) = call.as_mut().poll(cx) else {
                return (Upstream::Call(call), Step::Pending);
            };
            drop(call);
            let response = match result {
                Ok(response) => response,
                Err(error) => return (Upstream::Over, Step::Ended(Err(error))),
            };
            match response.body {
                Body::Complete(completion) => {
                    (Upstream::Over, Step::Whole(response.head, completion))
                }
                Body::Stream(stream) => {
                    let choices = stream.choices();
                    let step = Step::Stream(response.head, choices);
                    (Upstream::Stream(stream), step)
                }
            }
        }
        Upstream::Stream(mut stream) => match Pin::new(&mut stream).poll_next(cx) {
            Poll::Pending => (Upstream::Stream(stream), Step::Pending),
            Poll::Ready(Some(Ok(chunk))) => (Upstream::Stream(stream), Step::Chunk(chunk)),
            Poll::Ready(Some(Err(error))) => (Upstream::Over, Step::Ended(Err(error))),
            Poll::Ready(None) => (Upstream::Over, Step::Ended(Ok(()))),
        },
        Upstream::Away | Upstream::Over => (upstream, Step::Pending),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> LlmError {
    let said = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(said), _) => said,
        (_, Some(said)) => said.as_str(),
        _ => "it did not say why",
    };
    LlmError::new(ErrorKind::Internal, format!("the call panicked: {said}"))
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

/// Being a member of a flight, until it is dropped.
pub(crate) struct Member {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    seat: usize,
    deadline: Option<Instant>,
}

impl Member {
    /// The first member of `flight`.
    pub(crate) fn first(
        shared: &Arc<Shared>,
        flight: &Arc<Flight>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            seat: flight.board(),
            flight: flight.clone(),
            deadline,
        }
    }

    /// Joins `flight`, if that can still be done.
    pub(crate) fn join(
        shared: &Arc<Shared>,
        flight: &Arc<Flight>,
        request: &LlmRequest,
    ) -> Option<Self> {
        Some(Self {
            shared: shared.clone(),
            seat: flight.join(request)?,
            flight: flight.clone(),
            deadline: request.call.deadline(),
        })
    }

    /// Whether the answer is driven as a stream.
    pub(crate) fn is_streamed(&self) -> bool {
        self.flight.streamed
    }

    /// Whether its time is up.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }

    /// Waits for the head of the answer. It is to be dropped after an error.
    pub(crate) fn poll_head(
        &self,
        timer: Pin<&mut Option<Sleep>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Found, LlmError>> {
        self.poll(timer, cx, |slot| slot.head(self.seat))
    }

    /// Waits for the next chunk. It is to be dropped after an error.
    pub(crate) fn poll_next(
        &self,
        timer: Pin<&mut Option<Sleep>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Option<Arc<Chunk>>, LlmError>> {
        self.poll(timer, cx, |slot| slot.next(self.seat))
            .map(|found| found?)
    }

    fn poll<T>(
        &self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut task::Context<'_>,
        look: impl Fn(&mut Slot) -> Option<T>,
    ) -> Poll<Result<T, LlmError>> {
        let rules = &self.shared.rules;
        loop {
            let turn = self.flight.turn(rules, self.seat, cx.waker(), &look);
            if turn.closed != Closed::No {
                self.shared.closed(&self.flight, turn.closed);
            }
            if turn.panicked {
                self.shared.panicked(&self.flight);
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
            ready!(poll_timer(timer.as_mut(), at, cx));
            if self.is_late() {
                return Poll::Ready(Err(Call::deadline_error()));
            }
            self.let_go_of_the_slow();
        }
    }

    fn let_go_of_the_slow(&self) {
        let mut wakes = Wakes::default();
        let mut slot = lock(&self.flight.slot);
        let gone = slot.let_go_of_the_slow(&self.shared.rules, Instant::now(), &mut wakes);
        drop(slot);
        wakes.wake();
        if gone > 0 {
            self.shared.let_go(&self.flight, gone);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        let left = lock(&self.flight.slot).leave(self.seat, &self.shared.rules, &mut wakes);
        if left.closed {
            self.shared.closed(&self.flight, Closed::Ended);
        }
        match &left.upstream {
            Some(Upstream::Call(_)) => self.shared.left_by_all(),
            // Many stop reading once they have the whole answer.
            Some(Upstream::Stream(stream)) if !stream.is_complete() => self.shared.left_by_all(),
            _ => {}
        }
        // The call ends here, if this was its last member.
        drop(left);
        wakes.wake();
    }
}

/// Waits until `at`.
fn poll_timer(
    mut timer: Pin<&mut Option<Sleep>>,
    at: Instant,
    cx: &mut task::Context<'_>,
) -> Poll<()> {
    match timer.as_mut().as_pin_mut() {
        None => timer.set(Some(sleep_until(at))),
        Some(sleep) if sleep.deadline() != at => sleep.reset(at),
        Some(_) => {}
    }
    match timer.as_pin_mut() {
        Some(sleep) => sleep.poll(cx),
        None => unreachable!("it was set above"),
    }
}
