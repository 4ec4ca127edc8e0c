//! Streams that break over real HTTP and are gone on with, through the whole stack, in both dialects.

use std::time::Duration;

use bytes::Bytes;
use donjon::{
    BoxLlmService, ErrorKind, LlmRequest, NanoUsd, Preset, Stack, TimeoutClock, Usage,
    budget::{Budgets, Price, PriceTable},
    failover::{Resume, ResumeWay, Target},
    pool::PoolLayer,
    providers::{
        Anthropic, OpenAi, Provider,
        transport::{HttpClient, Proxy},
    },
    rate_limit::{Limit, RateLimitLayer},
};
use donjon_serve::Serve;
use donjon_testkit::upstream::{End, Failure, Request, Script, Upstream};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{Got, preset, read, streamed};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    OpenAi,
    Anthropic,
}

use Speaks::{Anthropic as Claude, OpenAi as Gpt};

fn target(name: &'static str, upstream: &Upstream, speaks: Speaks) -> Target<BoxLlmService> {
    let client = HttpClient::builder()
        .proxy(Proxy::none())
        .build_with_connector(upstream.connector())
        .expect("a good configuration");
    let service = match speaks {
        Gpt => {
            let codec = OpenAi::compatible("http://upstream.test/v1").build();
            BoxLlmService::new(Provider::new(codec.expect("good"), client))
        }
        Claude => {
            let codec = Anthropic::builder()
                .base_url("http://upstream.test")
                .api_key("k");
            BoxLlmService::new(Provider::new(codec.build().expect("good"), client))
        }
    };
    Target::new(name, service).continues(true)
}

/// The clocks of the preset of all tests, around other targets.
fn around(targets: impl IntoIterator<Item = Target<BoxLlmService>>) -> Preset<BoxLlmService> {
    let clocks = donjon::timeout::TimeoutLayer::builder()
        .first_token(Duration::from_secs(10))
        .idle(Duration::from_secs(15))
        .build()
        .expect("a good configuration");
    let preset = Preset::new().timeout(clocks).resume(Resume::new());
    let preset = preset.total_timeout(Duration::from_secs(120));
    targets.into_iter().fold(preset, Preset::target)
}

fn stack(targets: impl IntoIterator<Item = Target<BoxLlmService>>) -> Stack<BoxLlmService> {
    around(targets).build().expect("a good configuration")
}

fn words(n: usize) -> String {
    (0..n).map(|i| format!("w{i} ")).collect()
}

/// What the last message says, if it is the assistant's.
fn begun(request: &Request) -> Option<String> {
    let last = request.json["messages"].as_array()?.last()?;
    if last["role"] != "assistant" {
        return None;
    }
    Some(match &last["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => panic!("no content"),
    })
}

/// Goes on with what was begun, and else says all of it.
fn continuing() -> Upstream {
    let respond = |request: &Request| match begun(request) {
        Some(begun) => Script::answer(&words(60)[begun.len()..]),
        None => Script::answer(words(60)),
    };
    Upstream::builder().respond(respond).in_memory()
}

/// The tokens of what [`continuing`] adds, which begins with a blank.
const REST: u64 = 21;

/// The tokens of an answer that was cut after 40 words, as estimated, and of the rest, as told.
fn used() -> u64 {
    words(40).len().div_ceil(4) as u64 + REST
}

/// Rejects what was begun, and else plays `script`.
fn rejecting(script: Script) -> Upstream {
    let respond = move |request: &Request| match begun(request) {
        Some(_) => Script::from(Failure::invalid_request()),
        None => script.clone(),
    };
    Upstream::builder().respond(respond).in_memory()
}

fn cut() -> Upstream {
    crate::always(Script::answer(words(60)).cut_after(40))
}

async fn call(stack: &Stack<BoxLlmService>, request: LlmRequest) -> Got {
    let began = Instant::now();
    let response = stack.send(request).await.expect("it begins");
    let mut got = Got {
        text: String::new(),
        error: None,
        target: None,
        model: None,
        committed_after: began.elapsed(),
        ended_after: Duration::ZERO,
        sent: 0,
    };
    read(response, &mut got).await;
    got.ended_after = began.elapsed();
    got
}

const DIALECTS: [(Speaks, Speaks); 4] =
    [(Gpt, Gpt), (Gpt, Claude), (Claude, Gpt), (Claude, Claude)];

#[tokio::test(start_paused = true)]
async fn a_cut_after_40_of_60_words_is_continued_by_prefill() {
    for (first, second) in DIALECTS {
        let (a, b) = (cut(), continuing());
        let stack = stack([target("a", &a, first), target("b", &b, second)]);
        let got = call(&stack, streamed()).await;
        assert_eq!(
            (got.text, got.error.map(|e| e.kind())),
            (words(60), None),
            "{first:?} {second:?}"
        );
        assert_eq!((a.count(), b.count()), (1, 1));
        let seen = &b.calls()[0];
        assert_eq!(begun(&seen.request).as_deref(), Some(words(40).trim_end()));
        assert_eq!(seen.end(), Some(End::Completed));
        assert_eq!(stack.failover().resumed(ResumeWay::Prefill), 1);
        assert!(got.ended_after < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_rejects_prefill_answers_anew() {
    for (first, second) in DIALECTS {
        let (a, b) = (cut(), rejecting(Script::answer(words(60))));
        let stack = stack([target("a", &a, first), target("b", &b, second)]);
        let got = call(&stack, streamed()).await;
        assert_eq!(
            (got.text, got.error.map(|e| e.kind())),
            (words(60), None),
            "{first:?} {second:?}"
        );
        assert_eq!((a.count(), b.count()), (1, 2));
        let failover = stack.failover();
        assert_eq!(
            (
                failover.prefill_rejected(),
                failover.resumed(ResumeWay::Aligned)
            ),
            (1, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_differently_and_none_end_in_the_first_error() {
    let other = || rejecting(Script::answer("w0 w1 w2 and something else altogether"));
    for (first, second) in DIALECTS {
        let (a, b) = (cut(), other());
        let stack = stack([target("a", &a, first), target("b", &b, second)]);
        let got = call(&stack, streamed()).await;
        assert_eq!(got.text, words(40), "{first:?} {second:?}");
        let error = got.error.expect("an error in the stream");
        assert_eq!(error.target().as_deref(), Some("a"));
        let reasons: Vec<_> = error
            .attempts()
            .iter()
            .map(|a| (a.target.to_string(), a.error.kind()))
            .collect();
        assert_eq!(reasons[0], ("a".into(), error.kind()));
        assert_eq!(reasons[1], ("b".into(), ErrorKind::InvalidRequest));
        assert_eq!(reasons[2], ("b".into(), ErrorKind::InvalidResponse));
        // What is of no use is not read to its end.
        b.wait_for(|seen| seen.in_progress == 0).await;
        assert_eq!((a.count(), b.count()), (1, 2));
    }
    for speaks in [Gpt, Claude] {
        let a = cut();
        let got = call(&stack([target("a", &a, speaks)]), streamed()).await;
        assert_eq!((got.text, a.count()), (words(40), 1));
        assert!(got.error.expect("an error").attempts().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_30_s_after_20_words_is_left_when_the_idle_clock_says_so() {
    for (first, second) in DIALECTS {
        let stalls = Script::answer(words(60)).stall_after(20, Duration::from_secs(30));
        let (a, b) = (crate::always(stalls), continuing());
        let stack = stack([target("a", &a, first), target("b", &b, second)]);
        let got = call(&stack, streamed()).await;
        assert_eq!(
            (got.text, got.error.map(|e| e.kind())),
            (words(60), None),
            "{first:?} {second:?}"
        );
        assert_eq!(got.ended_after.as_secs(), 15);
        a.wait_for(|seen| seen.ended(End::PeerLeft) == 1).await;
        let stats = stack.failover().target("a").expect("it is there");
        assert_eq!(stats.failed_with(ErrorKind::Timeout(TimeoutClock::Idle)), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_event_and_a_reset_are_continued_too() {
    let scripts = [
        Script::answer(words(60)).error_event_at(40, Failure::overloaded()),
        Script::answer(words(60)).reset_after(40),
        Script::answer(words(60)).cut_inside_event(40),
    ];
    for script in scripts {
        let (a, b) = (crate::always(script), continuing());
        let stack = stack([target("a", &a, Gpt), target("b", &b, Gpt)]);
        let got = call(&stack, streamed()).await;
        assert_eq!((got.text, got.error.map(|e| e.kind())), (words(60), None));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_call_may_take() {
    let (a, b) = (cut(), crate::always(Script::hang()));
    let preset = around([target("a", &a, Gpt), target("b", &b, Gpt)]);
    let stack = preset
        .total_timeout(Duration::from_secs(6))
        .build()
        .expect("good");
    let got = call(&stack, streamed()).await;
    assert_eq!((got.text, got.ended_after.as_secs()), (words(40), 6));
    assert_eq!(got.error.expect("an error").target().as_deref(), Some("a"));
    b.wait_for(|seen| seen.in_progress == 0).await;
}

/// Each target is paid at its own price, and its limits are charged with its own tokens.
#[tokio::test(start_paused = true)]
async fn each_target_is_priced_and_limited_apart() {
    let mut prices = PriceTable::empty();
    for (model, dollars) in [("cheap", 1), ("dear", 100)] {
        let price = Price::new(
            NanoUsd::from_dollars(dollars),
            NanoUsd::from_dollars(dollars),
        );
        prices.set("home", model, price).expect("sensible");
    }
    let budgets = Budgets::builder().prices(prices).build().expect("sensible");
    let limit = || RateLimitLayer::builder().limit(Limit::tokens(1_000_000).per_day());
    let (a, b) = (cut(), continuing());
    let stack = around([
        target("a", &a, Gpt).with_model("cheap"),
        target("b", &b, Gpt).with_model("dear"),
    ])
    .budget_of("a", budgets.layer().provider("home"))
    .budget_of("b", budgets.layer().provider("home"))
    .budgets(budgets.clone())
    .rate_limit(limit())
    .caller_limit(limit().for_callers().build().expect("sensible"))
    .pool(PoolLayer::builder().size(1))
    .build()
    .expect("a good configuration");
    let mut request = streamed();
    request.call.estimate = Some(donjon::Estimate::new(1000, 1000));
    let got = call(&stack, request).await;
    assert_eq!(got.text, words(60));
    // What the first streamed is estimated, a token for four bytes; the second has said it.
    let first = Usage::new(1000, words(40).len().div_ceil(4) as u64);
    let second = Usage::new(12, REST);
    let tokens = |usage: Usage| i64::try_from(usage.total()).expect("few");
    let paid = NanoUsd::from_nanos(tokens(first) * 1_000 + tokens(second) * 100_000);
    assert_eq!(budgets.handle().report().total().cost, paid);
    let used = |of: &donjon::TargetHandles| {
        let limit = of.rate_limit.as_ref().expect("limited");
        i64::try_from(limit.peek(&donjon::Key::Global)[0].used).expect("few")
    };
    let each: Vec<_> = stack.targets().iter().map(used).collect();
    assert_eq!(each, [tokens(first), tokens(second)]);
    let callers = stack.caller_limit().expect("limited");
    let key = donjon::Key::Global;
    let used = i64::try_from(callers.peek(&key)[0].used).expect("few");
    assert_eq!(used, tokens(first.plus(second)), "the caller pays for both");
    for target in stack.targets() {
        assert_eq!(target.pool.as_ref().expect("a pool").stats().in_use, 0);
    }
}

async fn post(stack: Stack<BoxLlmService>, path: &str, body: &'static str) -> String {
    let serve = Serve::new(stack);
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .expect("a request");
    let response = serve.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 200);
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

fn data(body: &str) -> Vec<Value> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let json = lines.filter(|line| *line != "[DONE]");
    json.map(|json| serde_json::from_str(json).expect("JSON"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_openais_words_sees_one_answer() {
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},
        "messages":[{"role":"user","content":"hello"}]}"#;
    for (first, second) in DIALECTS {
        let (a, b) = (cut(), continuing());
        let stack = stack([target("a", &a, first), target("b", &b, second)]);
        let text = post(stack, "/v1/chat/completions", body).await;
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let events = data(&text);
        let deltas: Vec<_> = events.iter().filter_map(|e| e["choices"].get(0)).collect();
        let said: String = deltas
            .iter()
            .filter_map(|c| c["delta"]["content"].as_str())
            .collect();
        assert_eq!(said, words(60), "{first:?} {second:?}");
        let roles = deltas.iter().filter(|c| c["delta"]["role"].is_string());
        assert_eq!(roles.count(), 1, "one role");
        let ends = deltas.iter().filter(|c| c["finish_reason"].is_string());
        assert_eq!(ends.count(), 1, "one end");
        for event in &events {
            assert_eq!(event["id"], events[0]["id"]);
            assert_eq!(event["model"], events[0]["model"]);
        }
        let usages: Vec<_> = events.iter().filter(|e| e["usage"].is_object()).collect();
        assert_eq!(usages.len(), 1, "one usage: {text}");
        let told = usages[0]["usage"]["completion_tokens"].as_u64();
        assert_eq!(told, Some(used()), "what both used");
    }
}

/// Usage is what everybody here needs, and is shown to those who ask for it.
#[tokio::test(start_paused = true)]
async fn a_caller_that_asks_for_no_usage_sees_none() {
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    for (first, second) in DIALECTS {
        for second_goes_on in [true, false] {
            let a = cut();
            let b = match second_goes_on {
                true => continuing(),
                false => crate::always(Script::answer("otherwise")),
            };
            let stack = stack([target("a", &a, first), target("b", &b, second)]);
            let text = post(stack, "/v1/chat/completions", body).await;
            let events = data(&text);
            assert!(
                events.iter().all(|event| !event["usage"].is_object()),
                "{text}"
            );
            let bare = |e: &Value| e["choices"].as_array().is_some_and(Vec::is_empty);
            assert!(!events.iter().any(bare), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_anthropics_words_sees_one_answer() {
    let body = r#"{"model":"m","stream":true,"max_tokens":500,
        "messages":[{"role":"user","content":"hello"}]}"#;
    for (first, second) in DIALECTS {
        let (a, b) = (cut(), continuing());
        let stack = stack([target("a", &a, first), target("b", &b, second)]);
        let text = post(stack, "/v1/messages", body).await;
        let events = data(&text);
        let of = |kind: &str| {
            events
                .iter()
                .filter(|e| e["type"] == kind)
                .collect::<Vec<_>>()
        };
        let said = of("content_block_delta");
        let said: String = said
            .iter()
            .filter_map(|e| e["delta"]["text"].as_str())
            .collect();
        assert_eq!(said, words(60), "{first:?} {second:?}");
        for once in ["message_start", "message_delta", "message_stop"] {
            assert_eq!(of(once).len(), 1, "{once}: {text}");
        }
        // Each block is begun and ended under an index of its own.
        let (begun, ended) = (of("content_block_start"), of("content_block_stop"));
        assert_eq!(begun.len(), ended.len());
        for (at, (begun, ended)) in begun.iter().zip(&ended).enumerate() {
            assert_eq!((&begun["index"], &ended["index"]), (&at.into(), &at.into()));
        }
        let told = of("message_delta")[0]["usage"]["output_tokens"].as_u64();
        assert_eq!(told, Some(used()), "what both used");
        assert!(events.last().is_some_and(|e| e["type"] == "message_stop"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_over_http_is_told_of_the_first_failure() {
    let a = crate::always(Script::answer(words(60)).error_event_at(40, Failure::overloaded()));
    let b = rejecting(Script::answer("something else altogether"));
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    let stack = stack([target("a", &a, Gpt), target("b", &b, Gpt)]);
    let text = post(stack, "/v1/chat/completions", body).await;
    assert!(
        !text.contains("[DONE]") && !text.contains("finish_reason\":\"stop"),
        "{text}"
    );
    let events = data(&text);
    let error = &events.last().expect("an event")["error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("not resumed")),
        "{error}"
    );
}

/// The preset of the other tests, whose targets are all of one type, can resume as well.
#[tokio::test(start_paused = true)]
async fn targets_of_one_type_need_no_box() {
    let (a, b) = (cut(), crate::always(Script::answer(words(60))));
    let stack = preset(&[&a, &b])
        .resume(Resume::new())
        .build()
        .expect("good");
    let got = crate::call(&stack, streamed()).await;
    assert_eq!((got.text, got.sent), (words(60), 2));
}
