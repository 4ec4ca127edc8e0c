//! Every order in which three members can be polled and dropped while a call goes on, up to a depth.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use donjon_cache::{
    CacheKey,
    flight::{FlightFuture, Flights},
};
use donjon_core::{
    Body, ChatCompletion, Chunk, FinishReason, Head, LlmError, LlmRequest, LlmResponse,
    ResponseStream,
};
use donjon_testkit::probe::EndLog;
use futures_core::Stream;
use tower::Service;

use super::request;

/// A model whose every step is let happen by hand.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    calls: usize,
    running: usize,
    /// How many steps of the call may be taken.
    released: usize,
    waker: Option<Waker>,
    ends: EndLog,
}

/// The steps of a call: of a stream its head, three chunks and its end.
const STEPS: usize = 5;

impl ByHand {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("no panic")
    }

    /// Lets one more step happen.
    fn release(&self) {
        let mut book = self.book();
        book.released += 1;
        let waker = book.waker.take();
        drop(book);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Service<LlmRequest> for ByHand {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = donjon_core::Watch<Call, donjon_testkit::probe::EndObserver>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        let mut book = self.book();
        book.calls += 1;
        book.running += 1;
        book.released = 0;
        let call = Call {
            model: Running(self.clone()),
            streamed: request.is_stream(),
            taken: 0,
        };
        donjon_core::watch(&request.call, call, book.ends.observer())
    }
}

/// A call that runs until it is dropped.
struct Running(ByHand);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.book().running -= 1;
    }
}

struct Call {
    model: Running,
    streamed: bool,
    taken: usize,
}

impl Call {
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut book = self.model.0.book();
        if self.taken == book.released {
            book.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.taken += 1;
        Poll::Ready(())
    }
}

impl Future for Call {
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while self.taken < if self.streamed { 1 } else { STEPS } {
            if self.step(cx).is_pending() {
                return Poll::Pending;
            }
        }
        if !self.streamed {
            let answer = ChatCompletion::text("m", "onetwo");
            return Poll::Ready(Ok(LlmResponse::complete(Head::new("m"), answer)));
        }
        let stream = Chunks(Self {
            model: Running(self.model.0.clone()),
            streamed: true,
            taken: 1,
        });
        self.model.0.book().running += 1;
        let stream = ResponseStream::new(1, stream);
        Poll::Ready(Ok(LlmResponse::stream(Head::new("m"), stream)))
    }
}

struct Chunks(Call);

impl Stream for Chunks {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0.step(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(match self.0.taken {
            2 => Some(Ok(Chunk::text("one"))),
            3 => Some(Ok(Chunk::text("two"))),
            4 => Some(Ok(Chunk::finish(FinishReason::Stop))),
            _ => None,
        })
    }
}

/// Somebody who asks, in a task of their own.
struct Asker {
    call: Option<Pin<Box<FlightFuture<ByHand>>>>,
    stream: Option<ResponseStream>,
    text: String,
    woken: Arc<Woken>,
    done: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl Asker {
    fn new(call: FlightFuture<ByHand>) -> Self {
        Self {
            call: Some(Box::pin(call)),
            stream: None,
            text: String::new(),
            woken: Arc::new(Woken(AtomicBool::new(true))),
            done: false,
        }
    }

    /// Polls what it waits for, once.
    fn poll(&mut self) {
        self.woken.0.store(false, SeqCst);
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        if let Some(call) = &mut self.call {
            let Poll::Ready(response) = call.as_mut().poll(&mut cx) else {
                return;
            };
            self.call = None;
            match response.expect("the call succeeds").body {
                Body::Stream(stream) => self.stream = Some(stream),
                Body::Complete(whole) => {
                    self.text = whole.text().into_owned();
                    self.done = true;
                }
            }
            // Its task goes on.
            self.woken.0.store(true, SeqCst);
        } else if let Some(stream) = &mut self.stream {
            match Pin::new(stream).poll_next(&mut cx) {
                Poll::Pending => {}
                Poll::Ready(Some(chunk)) => {
                    let chunk = chunk.expect("the stream is whole");
                    self.text.push_str(chunk.delta_text());
                    self.woken.0.store(true, SeqCst);
                }
                Poll::Ready(None) => {
                    self.stream = None;
                    self.done = true;
                }
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.done && self.woken.0.load(SeqCst)
    }
}

trait DeltaText {
    fn delta_text(&self) -> &str;
}

impl DeltaText for Chunk {
    fn delta_text(&self) -> &str {
        self.choices[0].content.as_deref().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Poll(usize),
    Drop(usize),
    Release,
}

/// What may happen next, after these steps: each leaves once. Members come in their order, unless they are
/// there from the beginning, and may leave before they are polled.
fn choices(steps: &[Step], members: usize, ask: Ask) -> Vec<Step> {
    let at_once = ask == Ask::AtOnce;
    let polled = |member| steps.contains(&Step::Poll(member));
    let dropped = |member| steps.contains(&Step::Drop(member));
    // Once more than that, with nothing between, there is nothing new to find.
    let polled_twice = |member| steps.ends_with(&[Step::Poll(member); 2]);
    let mut next = vec![];
    for member in 0..members {
        let there = !dropped(member) && (at_once || member == 0 || polled(member - 1));
        if there && !polled_twice(member) {
            next.push(Step::Poll(member));
        }
        if (at_once || polled(member)) && !dropped(member) {
            next.push(Step::Drop(member));
        }
    }
    let released = steps.iter().filter(|step| **step == Step::Release).count();
    if (0..members).any(polled) && released < STEPS {
        next.push(Step::Release);
    }
    next
}

/// When the members ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Each right before it is polled first.
    InTurn,
    /// All before the first is polled, so that some are members and not polled for long.
    AtOnce,
}

/// Takes the steps, then lets everything come to its end, polling nobody who was not woken.
fn run(steps: &[Step], streamed: &[bool], ask: Ask) {
    let model = ByHand::default();
    let flights = Flights::default();
    let asks = |member: usize| {
        let asked = match streamed[member] {
            true => request().streamed(),
            false => request(),
        };
        let key = CacheKey::from([7; 32]);
        Some(Asker::new(flights.call(key, asked, model.clone())))
    };
    let members = 0..streamed.len();
    let mut askers: Vec<Option<Asker>> = match ask {
        Ask::InTurn => members.map(|_| None).collect(),
        Ask::AtOnce => members.map(asks).collect(),
    };
    let mut joined = vec![ask == Ask::AtOnce; askers.len()];
    let mut expected = 0;
    let mut left_by_all = true;
    for step in steps {
        match *step {
            Step::Poll(member) => {
                if !joined[member] {
                    askers[member] = asks(member);
                }
                let asker = askers[member].as_mut().expect("not dropped");
                if !asker.done {
                    let before = model.book().calls;
                    asker.poll();
                    expected += model.book().calls - before;
                    assert!(
                        [0, model.book().calls].contains(&before) || left_by_all,
                        "a second call although the first one had members"
                    );
                }
                joined[member] = true;
            }
            Step::Drop(member) => askers[member] = None,
            Step::Release => model.release(),
        }
        // Nobody is there who could join, or who has not got everything.
        let there = |(asker, joined): (&Option<Asker>, &bool)| {
            *joined && asker.as_ref().is_some_and(|asker| !asker.done)
        };
        let members = askers.iter().zip(&joined).filter(|one| there(*one)).count();
        if members == 0 {
            assert_eq!(
                model.book().running,
                0,
                "it is dropped with its last member"
            );
        }
        assert!(model.book().running <= 1, "one call at a time");
        left_by_all = flights.in_the_air() == 0;
    }
    for _ in 0..2 * STEPS {
        while let Some(asker) = askers.iter_mut().flatten().find(|asker| asker.goes_on()) {
            asker.poll();
        }
        model.release();
    }
    for asker in askers.iter().flatten() {
        assert!(asker.done, "a wake-up was lost");
        assert_eq!(asker.text, "onetwo");
    }
    drop(askers);
    assert_eq!(model.book().running, 0);
    assert_eq!(flights.in_the_air(), 0);
    assert!(expected <= model.book().calls);
    model.book().ends.assert_one_each();
}

fn all(streamed: &[bool], ask: Ask, depth: usize) -> u64 {
    let mut steps = Vec::new();
    let mut runs = 0;
    fn deeper(steps: &mut Vec<Step>, streamed: &[bool], ask: Ask, depth: usize, runs: &mut u64) {
        let next = choices(steps, streamed.len(), ask);
        if steps.len() == depth || next.is_empty() {
            *runs += 1;
            let run = std::panic::catch_unwind(|| run(steps, streamed, ask));
            assert!(run.is_ok(), "{streamed:?}, {ask:?}, after {steps:?}");
            return;
        }
        for step in next {
            steps.push(step);
            deeper(steps, streamed, ask, depth, runs);
            steps.pop();
        }
    }
    deeper(&mut steps, streamed, ask, depth, &mut runs);
    runs
}

#[test]
fn whole_answers() {
    let runs = all(&[false; 3], Ask::InTurn, 8);
    assert!(runs > 20_000, "only {runs} orders");
}

#[test]
fn streams() {
    let runs = all(&[true; 3], Ask::InTurn, 8);
    assert!(runs > 20_000, "only {runs} orders");
}

#[test]
fn a_stream_and_those_who_want_it_whole() {
    let runs = all(&[true, false, false], Ask::InTurn, 8);
    assert!(runs > 20_000, "only {runs} orders");
}

#[test]
fn members_who_are_not_polled_for_long() {
    for streamed in [[false; 3], [true; 3], [true, false, false]] {
        let runs = all(&streamed, Ask::AtOnce, 6);
        assert!(runs > 1_000, "only {runs} orders");
    }
}
