//! Every observer hears exactly one end, whatever happens.

use std::{future::pending, pin::pin, time::Duration};

use donjon_core::{
    AttemptCause, ChatCompletion, Chunk, DropReason, ErrorKind, FinishReason, Head, LlmError,
    LlmRequest, LlmResponse, ResponseStream, TimeoutClock, Usage, watch,
};
use futures_util::StreamExt;
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task::spawn};

use crate::{Heard, Items, Log};

fn whole() -> LlmResponse {
    LlmResponse::complete(Head::new("m"), ChatCompletion::text("m", "hello"))
}

fn streamed(items: Vec<Option<Result<Chunk, LlmError>>>) -> LlmResponse {
    LlmResponse::stream(Head::new("m"), ResponseStream::new(1, Items(items)))
}

fn ok(chunk: Chunk) -> Option<Result<Chunk, LlmError>> {
    Some(Ok(chunk))
}

fn broken() -> Option<Result<Chunk, LlmError>> {
    Some(Err(LlmError::new(ErrorKind::StreamBroken, "cut")))
}

fn finish() -> Chunk {
    Chunk::finish(FinishReason::Stop)
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [])
}

#[tokio::test]
async fn a_whole_answer_ends_at_once() {
    let log = Log::default();
    let future = async { Ok::<_, LlmError>(whole()) };
    let response = watch(&request().call, future, log.observer("a")).await;
    assert_eq!(log.heard(), [Heard::Committed, Heard::Success]);
    drop(response);
    assert_eq!(log.ends(), 1);
}

#[tokio::test]
async fn an_error_before_the_commit_point_is_the_end() {
    let log = Log::default();
    let future = async { Err::<LlmResponse, _>(LlmError::new(ErrorKind::Overloaded, "")) };
    let result = watch(&request().call, future, log.observer("a")).await;
    assert_eq!(
        result.map_err(|e| e.kind()).err(),
        Some(ErrorKind::Overloaded)
    );
    assert_eq!(log.heard(), [Heard::Failure(ErrorKind::Overloaded)]);
}

#[tokio::test(start_paused = true)]
async fn a_drop_before_the_commit_point_is_a_cancellation() {
    let log = Log::default();
    let future = pending::<Result<LlmResponse, LlmError>>();
    let mut call = spawn(watch(&request().call, future, log.observer("a")));
    assert_pending!(call.poll());
    tokio::time::advance(Duration::from_secs(3)).await;
    drop(call);
    let expected = Heard::Cancelled(DropReason::CallerLeft, Duration::from_secs(3));
    assert_eq!(log.heard(), [expected]);
}

#[tokio::test]
async fn a_future_that_was_never_polled_ends_too() {
    let log = Log::default();
    let future = pending::<Result<LlmResponse, LlmError>>();
    drop(watch(&request().call, future, log.observer("a")));
    let expected = Heard::Cancelled(DropReason::CallerLeft, Duration::ZERO);
    assert_eq!(log.heard(), [expected]);
}

#[tokio::test]
async fn a_superseded_attempt_is_told_so() {
    let log = Log::default();
    let mut request = request();
    let attempt = request.call.open_attempt(AttemptCause::Hedge).clone();
    let future = pending::<Result<LlmResponse, LlmError>>();
    let call = watch(&request.call, future, log.observer("a"));
    attempt.set_dropped(DropReason::Superseded);
    drop(call);
    assert!(matches!(
        log.heard()[..],
        [Heard::Cancelled(DropReason::Superseded, _)]
    ));
}

#[tokio::test]
async fn a_drop_by_one_who_says_that_it_failed_is_a_failure() {
    let log = Log::default();
    let mut request = request();
    let attempt = request.call.open_attempt(AttemptCause::First).clone();
    let future = pending::<Result<LlmResponse, LlmError>>();
    let call = watch(&request.call, future, log.observer("a"));
    let clock = ErrorKind::Timeout(TimeoutClock::FirstToken);
    attempt.let_go(&LlmError::new(clock, "too late"), || drop(call));
    assert_eq!(log.heard(), [Heard::Failure(clock)]);

    // What an attempt failed with before says nothing of why the call is dropped now.
    let log = Log::default();
    let future = pending::<Result<LlmResponse, LlmError>>();
    drop(watch(&request.call, future, log.observer("a")));
    assert!(matches!(log.heard()[..], [Heard::Cancelled(..)]));
}

#[tokio::test(start_paused = true)]
async fn a_drop_after_the_deadline_is_a_failure() {
    let log = Log::default();
    let mut request = request().with_timeout(Duration::from_secs(1));
    request.call.begin();
    let future = pending::<Result<LlmResponse, LlmError>>();
    let mut call = spawn(watch(&request.call, future, log.observer("a")));
    assert_pending!(call.poll());
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(call);
    let expected = Heard::Failure(ErrorKind::Timeout(TimeoutClock::Total));
    assert_eq!(log.heard(), [expected]);
}

#[tokio::test]
async fn inner_observers_hear_everything_before_outer_ones() {
    let log = Log::default();
    let future = async {
        let chunks = vec![ok(Chunk::text("hi")), ok(finish())];
        Ok::<_, LlmError>(streamed(chunks))
    };
    let inner = watch(&request().call, future, log.observer("inner"));
    let outer = watch(&request().call, inner, log.observer("outer"));
    let (_, answer) = outer
        .await
        .expect("it commits")
        .collect()
        .await
        .expect("it ends");
    assert_eq!(answer.as_chat().expect("a chat").first_text(), "hi");
    let ends: Vec<_> = log
        .entries()
        .into_iter()
        .filter(|(_, heard)| *heard == Heard::Success)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(ends, ["inner", "outer"]);
    assert_eq!(log.entries()[2], ("inner", Heard::Chunk("hi".into())));
    assert_eq!(log.entries()[3], ("outer", Heard::Chunk("hi".into())));
}

/// The names of those who heard an end, in the order in which they did.
fn told(log: &Log) -> Vec<&'static str> {
    let ends = log.entries().into_iter();
    let ends = ends.filter(|(_, heard)| !matches!(heard, Heard::Committed | Heard::Chunk(_)));
    ends.map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_drop_is_heard_further_in_first() {
    let log = Log::default();
    let request = request();
    let future = pending::<Result<LlmResponse, LlmError>>();
    let inner = watch(&request.call, future, log.observer("inner"));
    let mut outer = spawn(watch(&request.call, inner, log.observer("outer")));
    assert_pending!(outer.poll());
    drop(outer);
    assert_eq!(told(&log), ["inner", "outer"]);

    let log = Log::default();
    let response = streamed(vec![ok(Chunk::text("a"))])
        .observe(log.observer("inner"))
        .map_stream(|stream| stream.wrap(|inner| inner))
        .observe(log.observer("outer"));
    drop(response);
    assert_eq!(told(&log), ["inner", "outer"]);
}

#[tokio::test]
async fn a_wrapper_that_fails_lets_go_of_what_it_wraps_at_once() {
    let log = Log::default();
    let response = streamed(vec![ok(Chunk::text("a"))])
        .observe(log.observer("inner"))
        .map_stream(|stream| {
            stream.wrap(|inner| {
                let error = LlmError::new(ErrorKind::Timeout(TimeoutClock::Idle), "");
                futures_util::stream::iter([Err(error)]).chain(inner)
            })
        })
        .observe(log.observer("outer"));
    let donjon_core::Body::Stream(mut stream) = response.body else {
        unreachable!("it is a stream");
    };
    assert!(stream.next().await.expect("an item").is_err());
    assert_eq!(
        told(&log),
        ["inner", "outer"],
        "although the stream is still held"
    );
    assert!(stream.next().await.is_none());
    // Whoever asks now hears how it ended.
    let late = LlmResponse::stream(Head::new("m"), stream).observe(log.observer("late"));
    drop(late);
    let idle = Heard::Failure(ErrorKind::Timeout(TimeoutClock::Idle));
    assert_eq!(log.entries().last(), Some(&("late", idle)));
}

#[tokio::test]
async fn a_mapped_stream_is_heard_as_it_stood() {
    let log = Log::default();
    let response = streamed(vec![ok(Chunk::text("a")), ok(finish())])
        .observe(log.observer("below"))
        .map_stream(|stream| {
            stream.wrap(|inner| {
                inner.map(|item| {
                    item.map(|mut chunk| {
                        for choice in &mut chunk.edit().choices {
                            choice.content = choice.content.take().map(|_| "b".into());
                        }
                        chunk
                    })
                })
            })
        })
        .observe(log.observer("above"));
    response.collect().await.expect("it ends");
    assert!(log.entries().contains(&("below", Heard::Chunk("a".into()))));
    assert!(log.entries().contains(&("above", Heard::Chunk("b".into()))));
    assert_eq!(log.ends(), 2);
}

#[tokio::test]
async fn a_cut_stream_is_never_a_short_success() {
    let log = Log::default();
    let response = streamed(vec![ok(Chunk::text("a"))]).observe(log.observer("a"));
    let error = response.collect().await.expect_err("no finish reason came");
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    let failure = Heard::Failure(ErrorKind::Incomplete);
    assert_eq!(log.heard().last(), Some(&failure));
}

#[tokio::test]
async fn an_error_fuses_the_stream_and_ends_the_call_at_once() {
    let log = Log::default();
    let items = vec![ok(Chunk::text("a")), broken(), ok(Chunk::text("b"))];
    let response = streamed(items).observe(log.observer("a"));
    let donjon_core::Body::Stream(mut stream) = response.body else {
        unreachable!("it is a stream");
    };
    assert!(stream.next().await.expect("an item").is_ok());
    assert!(stream.next().await.expect("an item").is_err());
    assert_eq!(log.ends(), 1, "told before the stream is dropped");
    assert!(stream.next().await.is_none());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn once_complete_a_drop_or_a_broken_connection_is_a_success() {
    for after in [None, broken()] {
        let log = Log::default();
        let response =
            streamed(vec![ok(finish()), after.clone(), after]).observe(log.observer("a"));
        let donjon_core::Body::Stream(mut stream) = response.body else {
            unreachable!("it is a stream");
        };
        assert!(stream.next().await.expect("the finish").is_ok());
        assert_eq!(log.ends(), 0, "the end is told when it is pulled");
        drop(stream);
        assert_eq!(log.heard().last(), Some(&Heard::Success));
    }
    let (_, answer) = streamed(vec![ok(Chunk::text("a")), ok(finish()), broken()])
        .collect()
        .await
        .expect("the answer was complete");
    assert_eq!(answer.as_chat().expect("a chat").first_text(), "a");
}

#[tokio::test]
async fn each_choice_needs_its_finish_reason() {
    let one = |index| Chunk::new([donjon_core::ChoiceDelta::finish(index, FinishReason::Stop)]);
    let stream = ResponseStream::new(2, Items(vec![ok(one(0)), ok(one(0))]));
    let response = LlmResponse::stream(Head::new("m"), stream);
    assert_eq!(
        response
            .collect()
            .await
            .expect_err("choice 1 is missing")
            .kind(),
        ErrorKind::Incomplete
    );
    let stream = ResponseStream::new(2, Items(vec![ok(one(1)), ok(one(0))]));
    assert!(
        LlmResponse::stream(Head::new("m"), stream)
            .collect()
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_usage_after_the_finish_reason_is_heard() {
    let items = vec![ok(finish()), ok(Chunk::usage(Usage::new(3, 4)))];
    let (_, answer) = streamed(items).collect().await.expect("it ends");
    assert_eq!(answer.usage(), Some(&Usage::new(3, 4)));
}

#[tokio::test]
async fn nothing_is_allocated_for_a_whole_answer() {
    struct Count(u64);
    impl donjon_core::Observer for Count {
        fn end(&mut self, _: &donjon_core::End<'_>) {
            self.0 += 1;
        }
    }
    let mut request = request();
    request.call.begin();
    let answer = donjon_core::Completion::from(ChatCompletion::text("m", "hello"));
    let head = Head::new("m");
    let counted = allocation_counter::measure(|| {
        let future = std::future::ready(Ok::<_, LlmError>(LlmResponse::complete(
            head.clone(),
            answer.clone(),
        )));
        let inner = watch(&request.call, future, Count(0));
        let mut outer = spawn_unboxed(watch(&request.call, inner, Count(0)));
        assert!(outer.is_ok());
        outer = outer.map(|response| response.observe(Count(0)));
        drop(outer);
    });
    assert_eq!(counted.count_total, 0);
}

/// Polls a future that is ready at once, on the stack.
fn spawn_unboxed<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = std::task::Waker::noop();
    let poll = future
        .as_mut()
        .poll(&mut std::task::Context::from_waker(waker));
    assert_ready!(poll)
}

#[derive(Clone, Debug)]
enum Step {
    Pending,
    Text,
    Finish,
    Usage,
    Break,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Pending),
        3 => Just(Step::Text),
        1 => Just(Step::Finish),
        1 => Just(Step::Usage),
        1 => Just(Step::Break),
    ];
    prop::collection::vec(step, 0..12)
}

proptest! {
    /// Against a model that says in a few lines how a call must end.
    #[test]
    fn exactly_one_end_whatever_happens(
        before in 0_usize..3,
        fails in any::<bool>(),
        steps in steps(),
        polls in 0_usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let _guard = runtime.enter();
        let items: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Pending => None,
                Step::Text => ok(Chunk::text("x")),
                Step::Finish => ok(finish()),
                Step::Usage => ok(Chunk::usage(Usage::new(1, 1))),
                Step::Break => broken(),
            })
            .collect();
        let log = Log::default();
        let mut left = polls;
        let mut waits = before;
        let future = std::future::poll_fn(move |_| {
            if waits > 0 {
                waits -= 1;
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(if fails {
                Err(LlmError::new(ErrorKind::ServerError, ""))
            } else {
                Ok(streamed(items.clone()))
            })
        });
        let mut call = spawn(watch(&request().call, future, log.observer("a")));

        // The model.
        let mut expected = "cancelled";
        let mut budget = polls.saturating_sub(before);
        if polls > before {
            budget -= 1;
            if fails {
                expected = "failure";
            } else {
                let mut finished = false;
                let mut rest = steps.iter();
                while budget > 0 {
                    budget -= 1;
                    match rest.next() {
                        Some(Step::Finish) => finished = true,
                        Some(Step::Break) | None => {
                            expected = if finished { "success" } else { "failure" };
                            break;
                        }
                        Some(_) => {}
                    }
                }
                if expected == "cancelled" && finished {
                    expected = "success";
                }
            }
        }

        let mut response = None;
        while left > 0 {
            left -= 1;
            if let std::task::Poll::Ready(result) = call.poll() {
                response = result.ok();
                break;
            }
        }
        if let Some(LlmResponse { body: donjon_core::Body::Stream(stream), .. }) = response {
            let mut stream = spawn(stream);
            while left > 0 {
                left -= 1;
                let _ = stream.poll_next();
            }
        }
        drop(call);
        prop_assert_eq!(log.ends(), 1);
        let heard = match log.heard().last() {
            Some(Heard::Success) => "success",
            Some(Heard::Failure(_)) => "failure",
            _ => "cancelled",
        };
        prop_assert_eq!(heard, expected);
    }
}
