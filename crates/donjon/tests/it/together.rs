//! Hedges, streams that are continued, failovers in failovers, retries and caches over one call.

mod paid;
mod whatever;

use std::time::Duration;

use donjon::{
    AttemptCause, Body, BoxLlmService, DropReason, ErrorKind, Estimate, Ledger, LlmError,
    LlmRequest, LlmResponse, Message, Preset, TimeoutClock,
    cache::{CacheLayer, Strategy},
    failover::{Failover, Resume, Target},
    hedge::{HedgeBuilder, HedgeLayer},
    retry::{Backoff, RetryBudget, RetryLayer},
};
use donjon_testkit::{
    Script, ScriptedLlm,
    probe::EndLog,
    upstream::{End, Script as Upstreams},
};
use futures_util::StreamExt;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const NAMES: [&str; 3] = ["a", "b", "c"];

fn model(script: impl Into<Script>) -> ScriptedLlm {
    ScriptedLlm::new(script).commits()
}

fn words(n: usize) -> String {
    (0..n).map(|n| format!("w{n} ")).collect()
}

/// All sixty words, the first of them after so long.
fn whole(wait: Duration) -> Script {
    Script::words(60).first_token_after(wait)
}

fn cut(wait: Duration) -> Script {
    whole(wait).cut_after(40)
}

fn request() -> LlmRequest {
    let mut request = LlmRequest::chat("m", [Message::user("What is a donjon?")]).streamed();
    request.call.estimate = Some(Estimate::new(100, 50));
    request
}

fn after_a_second() -> HedgeBuilder {
    HedgeLayer::builder().delay(SECOND).budget(1.0)
}

fn built(hedge: HedgeBuilder) -> HedgeLayer {
    hedge.build().expect("sensible")
}

/// Targets `a`, `b`, `c` whose streams are continued.
fn resuming<S>(services: &[S]) -> Failover<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    let targets = NAMES.iter().zip(services);
    let targets = targets.map(|(name, service)| Target::new(*name, service.clone()));
    let built = Failover::builder().targets(targets).resume(Resume::new());
    built.build().expect("a good configuration")
}

/// What a caller got: the text, and what it ended with.
async fn ask<S>(service: &S, request: LlmRequest) -> (String, Option<LlmError>)
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let all = async {
        match service.clone().oneshot(request).await {
            Ok(answer) => read(answer).await,
            Err(error) => (String::new(), Some(error)),
        }
    };
    tokio::time::timeout(3600 * SECOND, all)
        .await
        .expect("it hangs")
}

async fn read(answer: LlmResponse) -> (String, Option<LlmError>) {
    let Body::Stream(mut stream) = answer.body else {
        panic!("it does not stream")
    };
    let (mut text, mut error) = (String::new(), None);
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => text.extend(chunk.choices.iter().filter_map(|c| c.content.as_deref())),
            Err(e) => error = Some(e),
        }
    }
    (text, error)
}

fn counts(models: &[ScriptedLlm]) -> Vec<usize> {
    models.iter().map(ScriptedLlm::count).collect()
}

fn assert_idle(models: &[ScriptedLlm]) {
    for model in models {
        assert_eq!((model.in_progress(), model.held()), (0, 0));
    }
}

/// Cause and target of each attempt that was sent.
fn sent(ledger: &Ledger) -> Vec<(AttemptCause, String)> {
    let sent = ledger.attempts().filter(|a| a.sent_at.is_some());
    sent.map(|a| (a.cause, a.target.map(|t| t.to_string()).unwrap_or_default()))
        .collect()
}

/// The hedge wins, its stream breaks, and whoever was too slow for the first token goes on.
#[tokio::test(start_paused = true)]
async fn whoever_lost_to_a_hedge_may_go_on_with_its_stream() {
    let models = [model(whole(SECOND / 2)), model(cut(SECOND / 2))];
    models[0].push(whole(9 * SECOND));
    let log = EndLog::new();
    let models = models.map(|model| model.observed_by(&log));
    let layer = built(after_a_second());
    let service = layer.layer(resuming(&models));
    let mut request = request();
    let ledger = request.call.begin().clone();
    let began = Instant::now();
    let (text, error) = ask(&service, request).await;
    assert_eq!((text, error.map(|e| e.kind())), (words(60), None));
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(counts(&models), [2, 1]);
    use AttemptCause::{First, Hedge, Resume};
    let [first, hedge, resumed] = &sent(&ledger)[..] else {
        panic!("{ledger:?}")
    };
    assert_eq!((&*first.1, &*hedge.1, &*resumed.1), ("a", "b", "a"));
    assert_eq!(resumed.0, Resume);
    assert!(matches!(first.0, First) && matches!(hedge.0, First | Hedge));
    let lost = ledger.attempts().find(|a| a.sent_at.is_some());
    assert_eq!(lost.and_then(|a| a.dropped), Some(DropReason::Superseded));
    assert_eq!(layer.handle().won_by_hedge(), 1);
    assert_idle(&models);
    log.assert_one_each();
    assert_eq!(ledger.untried(), 0);
}

/// The first wins against its hedge, and breaks: the target of the hedge goes on.
#[tokio::test(start_paused = true)]
async fn the_target_of_a_hedge_that_lost_may_go_on() {
    let models = [model(cut(3 * SECOND / 2)), model(whole(SECOND))];
    let service = built(after_a_second()).layer(resuming(&models));
    let (text, error) = ask(&service, request()).await;
    assert_eq!((text, error.map(|e| e.kind())), (words(60), None));
    assert_eq!(counts(&models), [1, 2]);
    assert_eq!(models[1].cancelled(), 1);
    assert_idle(&models);
}

/// A hedge and a stream that is continued are attempts like others.
#[tokio::test(start_paused = true)]
async fn the_cap_of_a_call_holds_for_hedges_and_continued_streams_together() {
    for (cap, text, seen) in [(2, words(40), [1, 1]), (3, words(60), [2, 1])] {
        let models = [model(whole(SECOND / 2)), model(cut(SECOND / 2))];
        models[0].push(whole(9 * SECOND));
        let service = built(after_a_second()).layer(resuming(&models));
        let mut request = request();
        let ledger = request.call.begin().clone();
        ledger.limit_attempts(cap);
        let (got, error) = ask(&service, request).await;
        assert_eq!((got, error.is_some()), (text, cap == 2));
        assert_eq!((counts(&models), ledger.sent()), (seen.to_vec(), cap));
        assert_idle(&models);
    }
}

/// A target that is asked to go on is retried like any other, within what the call may make.
#[tokio::test(start_paused = true)]
async fn a_target_that_goes_on_is_retried_within_the_cap() {
    let retry = RetryLayer::builder().backoff(Backoff::fixed(100 * MILLI));
    let retry = retry.budget(RetryBudget::unlimited()).build();
    let retry = retry.expect("sensible");
    for (cap, seen) in [(0, [1, 2]), (2, [1, 1])] {
        let models = [model(cut(MILLI)), model(whole(MILLI))];
        models[1].push(ErrorKind::Unavailable);
        let inner: Vec<_> = models.iter().map(|m| retry.layer(m.clone())).collect();
        let mut request = request();
        let ledger = request.call.begin().clone();
        if cap > 0 {
            ledger.limit_attempts(cap);
        }
        let (text, error) = ask(&resuming(&inner), request).await;
        assert_eq!(counts(&models), seen);
        let parents: Vec<_> = ledger.attempts().map(|a| (a.cause, a.parent)).collect();
        if cap == 0 {
            assert_eq!((text, error.map(|e| e.kind())), (words(60), None));
            assert_eq!(parents.last(), Some(&(AttemptCause::Retry, Some(1))));
        } else {
            assert_eq!((text, error.is_some()), (words(40), true));
        }
        assert_idle(&models);
    }
}

/// The inner one goes on while it can; then the outer one does, on a target of another group.
#[tokio::test(start_paused = true)]
async fn a_failover_in_a_failover_goes_on_first() {
    let models = [
        model(cut(MILLI)),
        model(whole(MILLI).cut_after(50)),
        model(whole(MILLI)),
    ];
    let inner = BoxLlmService::new(resuming(&models[..2]));
    let outer = Failover::builder()
        .target(Target::new("near", inner))
        .target(Target::new("far", BoxLlmService::new(models[2].clone())))
        .resume(Resume::new())
        .build()
        .expect("a good configuration");
    let mut request = request();
    let ledger = request.call.begin().clone();
    let (text, error) = ask(&outer, request).await;
    assert_eq!((text, error.map(|e| e.kind())), (words(60), None));
    assert_eq!((counts(&models), ledger.sent()), (vec![1, 1, 1], 3));
    assert_idle(&models);
    // Nobody of either goes on: the first failure is told.
    models[2].set_otherwise(Script::words(3));
    let (text, error) = ask(&outer, self::request()).await;
    let error = error.expect("an error");
    assert_eq!((text, error.kind()), (words(50), ErrorKind::Incomplete));
    assert_idle(&models);
}

/// A spliced answer is an answer: whoever asks the same meanwhile has all of it, and it is kept whole; one
/// that broke is not.
#[tokio::test(start_paused = true)]
async fn a_continued_answer_is_shared_and_kept_whole_and_a_broken_one_is_not() {
    for goes_on in [true, false] {
        let last = if goes_on {
            whole(SECOND)
        } else {
            Script::words(3)
        };
        let models = [model(cut(SECOND).gap(10 * MILLI)), model(last)];
        let cache = CacheLayer::builder().strategy(Strategy::Aggressive).build();
        let targets = NAMES.iter().zip(&models);
        let stack = targets.fold(Preset::new(), |preset, (name, model)| {
            preset.target(Target::new(*name, model.clone()))
        });
        let stack = stack.resume(Resume::new()).cache(cache.expect("sensible"));
        let stack = stack.build().expect("a good configuration");
        let asked = |after: Duration| {
            let stack = stack.clone();
            async move {
                tokio::time::sleep(after).await;
                ask(&stack, request()).await
            }
        };
        // One that leads, one that joins before the first token, one after it.
        let all = [Duration::ZERO, 500 * MILLI, 1200 * MILLI].map(asked);
        let due = if goes_on { 60 } else { 40 };
        for (text, error) in futures_util::future::join_all(all).await {
            assert_eq!((text, error.is_none()), (words(due), goes_on));
        }
        assert_idle(&models);
        let before = counts(&models);
        assert_eq!(before, [1, 1], "one asks for all");
        let (text, error) = ask(&stack, request()).await;
        assert_eq!((text, error.is_none()), (words(due), goes_on));
        assert_eq!(counts(&models) == before, goes_on);
    }
}

/// The call of several goes on as long as one of them waits, also while a target is asked to go on; each leaves
/// at its own deadline.
#[tokio::test(start_paused = true)]
async fn whoever_shares_a_call_has_its_own_deadline_while_the_stream_is_continued() {
    for (longest, served) in [(30, true), (7, false)] {
        let models = [model(cut(3 * SECOND)), model(whole(5 * SECOND))];
        let cache = CacheLayer::builder().strategy(Strategy::Aggressive).build();
        let targets = NAMES.iter().zip(&models);
        let stack = targets.fold(Preset::new(), |preset, (name, model)| {
            preset.target(Target::new(*name, model.clone()))
        });
        let stack = stack.resume(Resume::new()).cache(cache.expect("sensible"));
        let stack = stack.build().expect("a good configuration");
        let asked = |within: u64| {
            let request = request().with_timeout(Duration::from_secs(within));
            async {
                let began = Instant::now();
                let (text, error) = ask(&stack, request).await;
                (text, error.map(|e| e.kind()), began.elapsed().as_secs())
            }
        };
        let (leads, joins) = tokio::join!(asked(4), asked(longest));
        let late = Some(ErrorKind::Timeout(TimeoutClock::Total));
        assert_eq!(leads, (words(40), late, 4));
        let (text, error, took) = joins;
        match served {
            true => assert_eq!((text, error, took), (words(60), None, 8)),
            false => assert_eq!((text, error.is_some(), took), (words(40), true, 7)),
        }
        tokio::time::sleep(SECOND).await;
        assert_idle(&models);
    }
}

/// Over HTTP: whoever lost is left within moments of the winner's first token, and so is one that answers otherwise
/// than was shown.
#[tokio::test(start_paused = true)]
async fn whoever_is_of_no_use_any_more_is_left_at_once() {
    let said = |text: String| Upstreams::answer(text).gap(100 * MILLI);
    let quick = crate::always(said(words(60)).cut_after(40));
    let slow = crate::always(said(String::from("something else")).first_token_after(9 * SECOND));
    let stack = crate::preset(&[&slow, &quick]).hedge(built(after_a_second()));
    let stack = stack.build().expect("a good configuration");
    let answer = stack.send(crate::streamed()).await.expect("one of them");
    assert_eq!(answer.head.target.as_deref(), Some("t1"));
    let won = Instant::now();
    slow.wait_for(|seen| seen.ended(End::PeerLeft) == 1).await;
    assert!(won.elapsed() < 50 * MILLI, "{:?}", won.elapsed());
    drop(answer);
    // The other one begins otherwise.
    let other = crate::always(said(format!("no{}", words(60))));
    let stack = crate::preset(&[&quick, &other]).resume(Resume::new());
    let stack = stack.build().expect("a good configuration");
    let (text, error) = read(stack.send(crate::streamed()).await.expect("it begins")).await;
    let broke = Instant::now();
    assert_eq!((text, error.is_some()), (words(40), true));
    other.wait_for(|seen| seen.ended(End::PeerLeft) == 1).await;
    assert!(broke.elapsed() < 50 * MILLI, "{:?}", broke.elapsed());
}
