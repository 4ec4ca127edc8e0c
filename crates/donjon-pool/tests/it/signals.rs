//! What a limit hears of calls.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use donjon_core::{
    AttemptCause, Body, CommitLayer, DropReason, ErrorKind, Head, LlmError, LlmRequest,
    LlmResponse, Origin,
};
use donjon_pool::{HoldUntil, Limit, PoolBuilder, PoolLayer, Sample, Signal};
use donjon_testkit::{Script, ScriptedLlm, probe::poll_once};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{SECOND, request, send};

/// Writes down what it hears.
#[derive(Clone, Debug, Default)]
struct Ear(Arc<Mutex<Vec<Sample>>>);

impl Limit for Ear {
    fn limit(&self) -> u32 {
        2
    }

    fn set(&mut self, _: u32, _: Duration) {}

    fn sample(&mut self, sample: &Sample) {
        self.0.lock().expect("no panic").push(*sample);
    }
}

impl Ear {
    fn pool(&self) -> PoolBuilder {
        let ear = self.clone();
        PoolLayer::builder().limit(move || ear.clone())
    }

    fn layer(&self) -> PoolLayer {
        self.pool().build().expect("sensible")
    }

    fn heard(&self) -> Vec<Signal> {
        let heard = std::mem::take(&mut *self.0.lock().expect("no panic"));
        heard.into_iter().map(|sample| sample.signal).collect()
    }
}

/// What a limit hears of one call to a model that plays `script`, read to its end.
async fn heard(script: impl Into<Script>, request: LlmRequest) -> Vec<Signal> {
    let ear = Ear::default();
    let service = ear.layer().layer(ScriptedLlm::new(script).commits());
    if let Ok(answer) = send(&service, request).await {
        let _ = answer.collect().await;
    }
    ear.heard()
}

/// L12: not the whole latency.
#[tokio::test(start_paused = true)]
async fn the_first_token_of_a_stream_however_long_it_goes_on() {
    let script = || Script::words(5).first_token_after(2 * SECOND).gap(SECOND);
    let signals = heard(script(), request().streamed()).await;
    assert_eq!(signals, [Signal::FirstToken(2 * SECOND)]);
    // A whole answer has none.
    assert_eq!(heard(script(), request()).await, [Signal::Success]);
}

#[tokio::test(start_paused = true)]
async fn time_in_queues_of_ours_is_not_in_it() {
    let ear = Ear::default();
    let model = ScriptedLlm::new(Script::words(1).first_token_after(SECOND)).commits();
    // A queue between the pool and the model.
    let between = service_fn(move |request| {
        let model = model.clone();
        async move {
            tokio::time::sleep(30 * SECOND).await;
            model.oneshot(request).await
        }
    });
    let service = ear.layer().layer(between);
    let answer = send(&service, request().streamed()).await.expect("served");
    answer.collect().await.expect("it ends");
    assert_eq!(ear.heard(), [Signal::FirstToken(SECOND)]);
}

/// Where nobody stamps the ledger, it is the time from the slot to the commit point.
#[tokio::test(start_paused = true)]
async fn a_service_that_stamps_nothing_is_measured_from_its_slot() {
    let ear = Ear::default();
    let plain = service_fn(|request: LlmRequest| async move {
        tokio::time::sleep(3 * SECOND).await;
        let chunks = [donjon_core::Chunk::finish(donjon_core::FinishReason::Stop)];
        let chunks = futures_util::stream::iter(chunks.map(Ok));
        let stream = donjon_core::ResponseStream::new(1, chunks);
        Ok::<_, LlmError>(LlmResponse::stream(
            Head::new(request.model().clone()),
            stream,
        ))
    });
    let service = ear.layer().layer(plain);
    let answer = send(&service, request().streamed()).await.expect("served");
    answer.collect().await.expect("it ends");
    assert_eq!(ear.heard(), [Signal::FirstToken(3 * SECOND)]);
}

/// A unary call that is fetched as a stream, and folded below the pool, has a first token.
#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_was_fetched_as_a_stream_has_a_first_token() {
    let ear = Ear::default();
    let script = Script::words(4).first_token_after(2 * SECOND).gap(SECOND);
    let below = CommitLayer::new().layer(ScriptedLlm::new(script));
    let folds = service_fn(move |request: LlmRequest| {
        let below = below.clone();
        async move {
            let answer = below.oneshot(request.streamed()).await?;
            let (head, whole) = answer.collect().await?;
            Ok::<_, LlmError>(LlmResponse::complete(head, whole))
        }
    });
    let service = ear.layer().layer(folds);
    send(&service, request()).await.expect("served");
    assert_eq!(ear.heard(), [Signal::FirstToken(2 * SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn overload_and_timeouts_and_no_other_failure() {
    use donjon_core::TimeoutClock::{Connect, FirstToken, Idle, Response};
    for kind in ErrorKind::ALL {
        let expected = match kind {
            ErrorKind::RateLimited | ErrorKind::Overloaded => true,
            ErrorKind::Timeout(clock) => matches!(clock, Connect | FirstToken | Idle | Response),
            _ => false,
        };
        let overload = heard(Script::fail(*kind), request()).await == [Signal::Overload];
        // The whole call's time counts only where it was sent, which is said by its stamp.
        let total = *kind == ErrorKind::Timeout(donjon_core::TimeoutClock::Total);
        assert!(overload == expected || total, "{kind}");
    }
    // In the middle of a stream too, after its first token was heard.
    let script = Script::words(3).fail_after(1, ErrorKind::Overloaded);
    let signals = heard(script, request().streamed()).await;
    assert!(matches!(
        signals[..],
        [Signal::FirstToken(_), Signal::Overload]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_counts_where_the_call_was_sent() {
    let ear = Ear::default();
    for (below, counts) in [(true, true), (false, false)] {
        let model = ScriptedLlm::new(Script::hang());
        let service = ear.layer().layer(service_fn(move |request: LlmRequest| {
            let model = model.clone();
            async move {
                if below {
                    model.oneshot(request).await
                } else {
                    // Still in a queue of ours.
                    std::future::pending().await
                }
            }
        }));
        let mut call = Box::pin(service.oneshot(request().with_timeout(SECOND)));
        assert!(poll_once(&mut call).is_pending());
        tokio::time::advance(2 * SECOND).await;
        drop(call);
        let expected: &[Signal] = if counts { &[Signal::Overload] } else { &[] };
        assert_eq!(ear.heard(), expected, "sent: {below}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_lost_against_a_hedge_was_at_least_as_slow() {
    let ear = Ear::default();
    let model = ScriptedLlm::new(Script::hang());
    let mut service = ear.layer().layer(model);
    let mut hedged = request();
    let attempt = hedged.call.open_attempt(AttemptCause::First).clone();
    let mut call = Box::pin(service.ready().await.expect("ready").call(hedged));
    assert!(poll_once(&mut call).is_pending());
    tokio::time::advance(4 * SECOND).await;
    attempt.set_dropped(DropReason::Superseded);
    drop(call);
    assert_eq!(ear.heard(), [Signal::NoTokenAfter(4 * SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_caller_left_says_nothing() {
    let ear = Ear::default();
    let mut service = ear.layer().layer(ScriptedLlm::new(Script::hang()));
    let mut call = Box::pin(service.ready().await.expect("ready").call(request()));
    assert!(poll_once(&mut call).is_pending());
    tokio::time::advance(4 * SECOND).await;
    drop(call);
    assert_eq!(ear.heard(), []);
}

#[tokio::test(start_paused = true)]
async fn what_a_cache_answered_says_nothing() {
    let ear = Ear::default();
    let cached = ScriptedLlm::new(Script::words(2)).commits();
    let service = ear.layer().layer(service_fn(move |request: LlmRequest| {
        let cached = cached.clone();
        async move {
            let mut answer = cached.oneshot(request).await?;
            answer.head.origin = Origin::Cache;
            Ok::<_, LlmError>(answer)
        }
    }));
    for request in [request(), request().streamed()] {
        let answer = send(&service, request).await.expect("served");
        answer.collect().await.expect("it ends");
    }
    assert_eq!(ear.heard(), []);
}

/// A slot that is given back at the commit point does not keep the limit from hearing of the call.
#[tokio::test(start_paused = true)]
async fn calls_are_heard_of_after_their_slot_was_given_back() {
    let ear = Ear::default();
    let layer = ear.pool().hold_until(HoldUntil::Committed).build();
    let layer = layer.expect("sensible");
    let script = Script::words(3).first_token_after(SECOND).gap(SECOND);
    let service = layer.layer(ScriptedLlm::new(script).commits());
    let answer = send(&service, request().streamed()).await.expect("served");
    assert_eq!(layer.handle().stats().in_use, 0);
    assert!(matches!(answer.body, Body::Stream(_)));
    answer.collect().await.expect("it ends");
    assert_eq!(ear.heard(), [Signal::FirstToken(SECOND)]);
}

/// A limit of one's own: its samples tell how many were in flight.
#[tokio::test(start_paused = true)]
async fn samples_tell_when_and_among_how_many() {
    let ear = Ear::default();
    let service = ear
        .layer()
        .layer(ScriptedLlm::new(Script::answer("Hi.").head_after(SECOND)));
    let calls = (0..3).map(|_| send(&service, request()));
    for answer in futures_util::future::join_all(calls).await {
        answer.expect("served");
    }
    let samples = ear.0.lock().expect("no panic").clone();
    let in_flight: Vec<_> = samples.iter().map(|sample| sample.in_flight).collect();
    assert_eq!(in_flight, [1, 2, 2]);
    let waited = samples[2].admitted_at - samples[0].admitted_at;
    assert_eq!(waited, SECOND);
    assert_eq!(samples[2].at - samples[2].admitted_at, SECOND);
}

type Meanwhile = Box<dyn FnOnce() + Send>;

/// Fails the call of another service while it hears that of its own.
#[derive(Clone)]
struct Busy {
    heard: Arc<Mutex<Vec<Signal>>>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Busy")
    }
}

impl Limit for Busy {
    fn limit(&self) -> u32 {
        2
    }

    fn set(&mut self, _: u32, _: Duration) {}

    fn sample(&mut self, sample: &Sample) {
        self.heard.lock().expect("no panic").push(sample.signal);
        let meanwhile = self.meanwhile.lock().expect("no panic").take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

/// The limit hears of one call at a time, and misses no overload for it.
#[tokio::test(start_paused = true)]
async fn an_overload_that_is_told_while_another_call_is_heard_is_not_lost() {
    let busy = Busy {
        heard: Arc::default(),
        meanwhile: Arc::default(),
    };
    let limit = busy.clone();
    let layer = PoolLayer::builder().limit(move || limit.clone()).build();
    let layer = layer.expect("sensible");
    let overloaded = layer.layer(service_fn(|_: LlmRequest| async {
        Err::<LlmResponse, _>(LlmError::new(ErrorKind::Overloaded, "too much"))
    }));
    *busy.meanwhile.lock().expect("no panic") = Some(Box::new(move || {
        let mut call = Box::pin(overloaded.oneshot(request()));
        assert!(poll_once(&mut call).is_ready());
    }));
    let service = layer.layer(ScriptedLlm::new("hi").commits());
    send(&service, request()).await.expect("served");
    let heard = std::mem::take(&mut *busy.heard.lock().expect("no panic"));
    assert_eq!(heard, [Signal::Success, Signal::Overload]);
    send(&service, request()).await.expect("served");
    assert_eq!(*busy.heard.lock().expect("no panic"), [Signal::Success]);
}
