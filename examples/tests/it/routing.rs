//! Who is asked, and who is left alone: what a route says is what its targets see.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use donjon_examples::gateway::{Config, Gateway};
use donjon_testkit::upstream::{Failure, Script, Upstream};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    outage::switched,
    support::{
        ANTHROPIC, Answer, CHAT, Caller, Gate, MESSAGES, OPENAI, SOON, always, chat, messages,
        provider, seen, steady, text_of, upstream,
    },
};

const GEMINI: &str = "gemini";
const OLLAMA: &str = "ollama-native";
const EMBEDDINGS: &str = "/v1/embeddings";
const NO_BREAKER: &str = "[breaker]\nenabled = false\n";

/// One route to these targets, named `t0`, `t1`, …, each with keys of its own and asked once.
fn routed(targets: &[(&str, &Upstream, &str)], route: &str, more: &str) -> String {
    let mut text = String::new();
    for (at, (kind, upstream, _)) in targets.iter().enumerate() {
        text += &provider(&format!("t{at}"), kind, upstream);
    }
    text += "[[routes]]\nmodel = \"*\"\n";
    let all = targets.iter().enumerate().map(|(at, (.., keys))| {
        let comma = if keys.is_empty() { "" } else { ", " };
        format!("{{ provider = \"t{at}\"{comma}{keys} }}")
    });
    let all: Vec<_> = all.collect();
    write!(
        text,
        "targets = [{}]\n{route}\n[retry]\nmax_attempts = 1\n{more}\n",
        all.join(", ")
    )
    .expect("a string takes everything");
    text
}

async fn ask(gate: &Gate, body: &str) -> Answer {
    let answer = gate.post(CHAT, body.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// Who served a plain question.
async fn served(gate: &Gate) -> String {
    let answer = ask(gate, &chat(false)).await;
    answer.header("x-donjon-target").expect("a name").to_owned()
}

/// How a target stands, and why, by the report.
async fn status(gate: &Gate, target: &str) -> (String, Option<String>) {
    let report = gate.get("/health").await.json();
    let layers = report["layers"].as_array().expect("layers");
    let mut figures = layers
        .iter()
        .filter_map(|l| l["figures"].as_array())
        .flatten();
    let figure = figures
        .find(|f| f["name"] == "status" && f["labels"]["target"] == target)
        .expect("it stands somehow");
    let label = |name: &str| figure["labels"][name].as_str().map(String::from);
    (label("status").expect("a word"), label("reason"))
}

/// Waits until that is how it stands.
async fn until(gate: &Gate, target: &str, word: &str) {
    let look = async {
        while status(gate, target).await.0 != word {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = timeout(SOON, look).await;
    waited.unwrap_or_else(|_| panic!("{target} is never {word}"));
}

#[tokio::test]
async fn each_gets_its_share_by_weight() {
    let (first, second) = (steady().await, steady().await);
    let targets = [(OPENAI, &first, "weight = 3"), (OPENAI, &second, "")];
    let gate = Gate::open(&routed(&targets, "strategy = \"weighted\"", "")).await;
    for _ in 0..40 {
        served(&gate).await;
    }
    assert_eq!((first.count(), second.count()), (30, 10));
}

#[tokio::test]
async fn round_robin_and_least_busy_and_least_latency_spread() {
    for strategy in ["round-robin", "least-busy", "least-latency"] {
        let (first, second) = (steady().await, steady().await);
        let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
        let route = format!("strategy = \"{strategy}\"\nlatency_decay = \"50ms\"");
        let gate = Gate::open(&routed(&targets, &route, "")).await;
        for _ in 0..40 {
            served(&gate).await;
        }
        let (one, two) = (first.count(), second.count());
        assert!(one > 0 && two > 0, "{strategy}: {one} and {two}");
        if strategy == "round-robin" {
            assert_eq!((one, two), (20, 20));
        }
    }
}

#[tokio::test]
async fn a_key_stays_where_it_is() {
    const TENANTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (first, second) = (steady().await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let sticky = |by: &str| format!("strategy = \"sticky\"\nsticky_by = \"{by}\"");
    let tenants = "[tenants]";
    let gate = Gate::open(&routed(&targets, &sticky("tenant"), tenants)).await;
    let mut homes = BTreeSet::new();
    for tenant in TENANTS {
        let mut of_tenant = BTreeSet::new();
        for _ in 0..4 {
            let mut caller = Caller::connect(&gate).await.of(tenant);
            let answer = caller.post(CHAT, chat(false)).await.read().await;
            of_tenant.insert(answer.header("x-donjon-target").map(String::from));
        }
        assert_eq!(of_tenant.len(), 1, "{tenant} is at {of_tenant:?}");
        homes.extend(of_tenant);
    }
    assert_eq!(homes.len(), 2, "they are spread");

    for by in ["user", "first-message"] {
        let gate = Gate::open(&routed(&targets, &sticky(by), "")).await;
        let mut homes = BTreeSet::new();
        for key in TENANTS {
            let mut of_key = BTreeSet::new();
            for turn in 0..4 {
                let system = if by == "user" { "be brief" } else { key };
                let body = json!({"model": "gpt-4o", "user": key, "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": format!("turn {turn}")},
                ]});
                let answer = ask(&gate, &body.to_string()).await;
                of_key.insert(answer.header("x-donjon-target").map(String::from));
            }
            assert_eq!(of_key.len(), 1, "{by} {key} is at {of_key:?}");
            homes.extend(of_key);
        }
        assert_eq!(homes.len(), 2, "{by}: they are spread");
    }
}

#[tokio::test]
async fn the_lowest_priority_is_asked_first_and_the_next_when_it_fails() {
    let down = Arc::new(AtomicBool::new(false));
    let (spare, main, off) = (steady().await, switched(&down).await, steady().await);
    let targets = [
        (OPENAI, &spare, "priority = 1"),
        (OPENAI, &main, ""),
        (OPENAI, &off, "enabled = false"),
    ];
    let gate = Gate::open(&routed(&targets, "", NO_BREAKER)).await;
    assert_eq!(served(&gate).await, "t1");
    down.store(true, SeqCst);
    assert_eq!(served(&gate).await, "t0");
    down.store(false, SeqCst);
    assert_eq!(served(&gate).await, "t1");
    assert_eq!(off.count(), 0);
    assert_eq!(status(&gate, "t2").await.0, "disabled");
}

#[tokio::test]
async fn a_target_that_fails_is_left_alone_and_its_reason_is_told() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down).await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let health = "[routes.health]\nconsecutive_failures = 2\nout_for = \"1h\"\nlongest = \"2h\"";
    let gate = Gate::open(&routed(&targets, health, NO_BREAKER)).await;
    for _ in 0..10 {
        assert_eq!(served(&gate).await, "t1");
    }
    assert_eq!(first.count(), 2, "two faults in a row");
    let (word, reason) = status(&gate, "t0").await;
    assert_eq!(word, "out");
    assert_eq!(reason.as_deref(), Some("unavailable"));
    assert_eq!(status(&gate, "t1").await, ("up".into(), None));
    assert_eq!(gate.get("/health").await.status, 200, "the route can serve");
}

#[tokio::test]
async fn a_target_that_works_again_comes_back() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down).await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let health = "[routes.health]\nconsecutive_failures = 1\nout_for = \"10ms\"\n\
                  longest = \"10ms\"\nreturn_over = \"10ms\"";
    let gate = Gate::open(&routed(&targets, health, NO_BREAKER)).await;
    assert_eq!(served(&gate).await, "t1");
    // Once after the other it is tried, and nobody notices.
    let tried = async {
        while first.count() < 4 {
            assert_eq!(served(&gate).await, "t1");
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, tried).await.expect("it is tried");
    down.store(false, SeqCst);
    let back = async {
        while served(&gate).await != "t0" {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, back).await.expect("it comes back");
    until(&gate, "t0", "up").await;
    assert_eq!(served(&gate).await, "t0");
}

#[tokio::test]
async fn one_that_is_slow_is_left_alone() {
    let slow = Script::answer("served").first_token_after(Duration::from_millis(50));
    let (first, second) = (always(slow).await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let health = "[routes.health]\nconsecutive_failures = 2\nslow_first_token = \"20ms\"\n\
                  slow_answer = \"20ms\"\nout_for = \"1h\"\nlongest = \"1h\"";
    for stream in [true, false] {
        let gate = Gate::open(&routed(&targets, health, "")).await;
        let before = first.count();
        for _ in 0..6 {
            ask(&gate, &chat(stream)).await;
        }
        assert_eq!(first.count() - before, 2, "streamed: {stream}");
        let (word, reason) = status(&gate, "t0").await;
        assert_eq!((&*word, reason.as_deref()), ("out", Some("slow")));
    }
}

#[tokio::test]
async fn probes_find_out_before_callers_do() {
    for kind in [OPENAI, ANTHROPIC, GEMINI, OLLAMA] {
        let (first, second) = (steady().await, steady().await);
        first.refuse_listings(Failure::service_unavailable());
        let targets = [(kind, &first, ""), (OPENAI, &second, "")];
        let probes = "[routes.health]\nreturn_over = \"1ms\"\n\
                      [routes.probes]\ninterval = \"5ms\"\ntimeout = \"5s\"\ndown_after = 2\nup_after = 2";
        let gate = Gate::open(&routed(&targets, probes, "")).await;
        until(&gate, "t0", "down").await;
        assert!(first.seen().listings >= 2, "{kind}");
        let (_, reason) = status(&gate, "t0").await;
        assert_eq!(reason.as_deref(), Some("probe"));
        assert_eq!(served(&gate).await, "t1");
        assert_eq!(first.count(), 0, "no call found it out");
        first.refuse_listings(None);
        let back = async {
            while served(&gate).await != "t0" {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, back).await.expect("it comes back");
    }
}

#[tokio::test]
async fn when_all_are_out_it_is_told_exactly_when_to_come_back() {
    const MOMENT: Duration = Duration::from_secs(1);
    let refusal = |script: Script| upstream([script]);
    let limited = || Script::fail(Failure::rate_limited());
    let first = refusal(limited().retry_after(60)).await;
    let second = refusal(limited().retry_after_ms(1_000)).await;
    // One that has all the calls it may have is not out, and asked by nobody.
    let full = always(Script::hang()).await;
    let targets = [
        (OPENAI, &first, "priority = 1"),
        (OPENAI, &second, "priority = 1"),
        (OPENAI, &full, "max_in_flight = 1"),
    ];
    let route = "when_out = \"fail\"\n[routes.health]\nmost_out = 1.0";
    let gate = Gate::open(&routed(&targets, route, NO_BREAKER)).await;
    let mut held = Caller::connect(&gate).await;
    let hangs = tokio::spawn(held.start(Method::POST, CHAT, chat(false).into()));
    seen(&full, |seen| seen.in_progress == 1).await;

    let began = Instant::now();
    let failed = gate.post(CHAT, chat(false)).await;
    assert!([429, 503].contains(&failed.status), "{}", failed.text());
    let out = Instant::now();
    let refused = gate.post(CHAT, chat(false)).await;
    let told = Instant::now();
    if told - began >= MOMENT {
        // The machine was so busy that it had come back.
        return;
    }
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!((first.count(), second.count()), (1, 1), "nobody was asked");
    let header = |name| refused.header(name).expect("when").parse::<u64>();
    let after = Duration::from_millis(header("retry-after-ms").expect("milliseconds"));
    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    assert_eq!(header("retry-after"), Ok(whole));
    assert!(told + after >= began + MOMENT, "{after:?} is too early");
    let latest = out + MOMENT + Duration::from_millis(1);
    assert!(out + after <= latest, "{after:?} is too late");
    sleep(after).await;
    assert_eq!(served(&gate).await, "t1", "as it was told");
    held.leave().await;
    hangs.abort();
}

#[tokio::test]
async fn where_the_least_bad_is_asked_nobody_is_refused() {
    let limited = Script::fail(Failure::rate_limited()).retry_after(60);
    let (first, full) = (upstream([limited]).await, always(Script::hang()).await);
    let targets = [
        (OPENAI, &first, "priority = 1"),
        (OPENAI, &full, "max_in_flight = 1"),
    ];
    let route = "when_out = \"least-bad\"\n[routes.health]\nmost_out = 1.0";
    let gate = Gate::open(&routed(&targets, route, NO_BREAKER)).await;
    let mut held = Caller::connect(&gate).await;
    let hangs = tokio::spawn(held.start(Method::POST, CHAT, chat(false).into()));
    seen(&full, |seen| seen.in_progress == 1).await;
    assert_ne!(gate.post(CHAT, chat(false)).await.status, 200);
    assert_eq!(status(&gate, "t0").await.0, "out");
    assert_eq!(served(&gate).await, "t0");
    held.leave().await;
    hangs.abort();
}

#[tokio::test]
async fn the_cheapest_is_asked_first() {
    let (first, second) = (steady().await, steady().await);
    let own = |at: usize, usd: f64| {
        format!(
            "[[budget.prices]]\nprovider = \"p{at}\"\nmodel = \"gpt-4o\"\ninput = {usd}\noutput = {usd}\n"
        )
    };
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let route = "strategy = \"lowest-cost\"";
    let more = format!("[budget]\n{}{}", own(0, 2.0), own(1, 1.0));
    let text = routed(&targets, route, &more);
    let text = text.replace("[providers.t0]\n", "[providers.t0]\nprices = \"p0\"\n");
    let text = text.replace("[providers.t1]\n", "[providers.t1]\nprices = \"p1\"\n");
    let gate = Gate::open(&text).await;
    assert_eq!(served(&gate).await, "t1");
    second.push(Failure::overloaded());
    assert_eq!(served(&gate).await, "t0", "the next cheapest");
    assert_eq!((first.count(), second.count()), (1, 2));

    // By the list, without a budget; whose price nobody knows comes last.
    let targets = [
        (OPENAI, &first, "model = \"no-such-model\""),
        (OPENAI, &first, "model = \"gpt-4o\""),
        (OPENAI, &second, "model = \"gpt-4o-mini\""),
    ];
    let text = routed(&targets, route, "");
    let text = text.replace(
        "kind = \"openai\"\n",
        "kind = \"openai\"\nprices = \"openai\"\n",
    );
    let gate = Gate::open(&text).await;
    assert_eq!(served(&gate).await, "t2");
    let calls = second.calls();
    let last = calls.last().expect("it was asked");
    assert_eq!(last.request.model(), Some("gpt-4o-mini"));
}

/// A question that needs this of whoever answers it.
fn needs(what: &str) -> Value {
    let mut body: Value = serde_json::from_str(&chat(false)).expect("a question");
    match what {
        "tools" => {
            let parameters = json!({"type": "object", "properties": {}});
            body["tools"] = json!([{"type": "function",
                "function": {"name": "now", "parameters": parameters}}]);
        }
        "vision" => {
            let image =
                json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
            body["messages"][0]["content"] =
                json!([{"type": "text", "text": "What is it?"}, image]);
        }
        "prefill" => {
            let begun = json!({"role": "assistant", "content": "A donjon is"});
            body["messages"]
                .as_array_mut()
                .expect("messages")
                .push(begun);
        }
        "structured_output" => body["response_format"] = json!({"type": "json_object"}),
        "context_window" => body["messages"][0]["content"] = "word ".repeat(500).into(),
        other => panic!("{other}?"),
    }
    body
}

#[tokio::test]
async fn a_request_goes_to_a_target_that_can_do_what_it_needs() {
    for (what, keys) in [
        ("tools", "tools = false"),
        ("vision", "vision = false"),
        ("prefill", "prefill = false"),
        ("structured_output", "structured_output = false"),
        ("context_window", "context_window = 100"),
    ] {
        let (first, second) = (steady().await, steady().await);
        let targets = [(OPENAI, &first, keys), (OPENAI, &second, "")];
        let gate = Gate::open(&routed(&targets, "", "")).await;
        assert_eq!(served(&gate).await, "t0", "{what} is not needed");
        let answer = ask(&gate, &needs(what).to_string()).await;
        assert_eq!(answer.header("x-donjon-target"), Some("t1"), "{what}");
        assert_eq!(answer.header("x-donjon-attempts"), Some("1"), "{what}");
        assert_eq!((first.count(), second.count()), (1, 1), "{what}");

        // Where nobody can, that is what is told.
        let gate = Gate::open(&routed(&targets[..1], "", "")).await;
        let answer = gate.post(CHAT, needs(what).to_string()).await;
        assert!((400..600).contains(&answer.status), "{}", answer.text());
        assert_eq!(first.count(), 1, "{what}: it is not asked");
    }
}

#[tokio::test]
async fn a_target_has_models_of_its_own() {
    let first = steady().await;
    let keys = "models = { \"gpt-4o\" = \"llama-70b\" }, model = \"llama-8b\"";
    let gate = Gate::open(&routed(&[(OPENAI, &first, keys)], "", "")).await;
    ask(&gate, &chat(false)).await;
    ask(&gate, &chat(false).replace("gpt-4o", "gpt-3.5")).await;
    let calls = first.calls();
    let asked: Vec<_> = calls.iter().map(|call| call.request.model()).collect();
    assert_eq!(asked, [Some("llama-70b"), Some("llama-8b")]);
}

#[tokio::test]
async fn gemini_and_ollama_answer_in_both_dialects() {
    for kind in [GEMINI, OLLAMA] {
        let only = always(Script::answer("one two three")).await;
        let gate = Gate::open(&routed(&[(kind, &only, "")], "", "")).await;
        let whole = ask(&gate, &chat(false)).await.json();
        let text = &whole["choices"][0]["message"]["content"];
        assert_eq!(text, "one two three", "{kind}");
        assert_eq!(whole["usage"]["completion_tokens"], 3, "{kind}");
        let stream = ask(&gate, &chat(true)).await;
        assert_eq!(text_of(&stream.chunks(), 0), "one two three", "{kind}");

        let whole = gate.post(MESSAGES, messages(false)).await.json();
        assert_eq!(
            whole["content"][0]["text"], "one two three",
            "{kind}: {whole}"
        );
        assert_eq!(whole["stop_reason"], "end_turn");
        let stream = gate.post(MESSAGES, messages(true)).await;
        let events = stream.events();
        let said: String = events
            .iter()
            .filter_map(|event| event.json()["delta"]["text"].as_str().map(String::from))
            .collect();
        assert_eq!(said, "one two three", "{kind}");
        let last = events.last().expect("an event");
        assert_eq!(last.name.as_deref(), Some("message_stop"));
        assert_eq!(only.count(), 4);
    }
}

#[tokio::test]
async fn gemini_and_ollama_call_tools_and_fail_over_like_any_other() {
    for kind in [GEMINI, OLLAMA] {
        let script = Script::empty_answer().tool_call("now", r#"{"zone":"UTC"}"#);
        let first = upstream([
            Script::fail(Failure::overloaded()),
            Script::words(4).cut_after(0),
        ])
        .await;
        let second = always(script).await;
        let targets = [(kind, &first, ""), (kind, &second, "")];
        let gate = Gate::open(&routed(&targets, "", NO_BREAKER)).await;
        let answer = ask(&gate, &needs("tools").to_string()).await;
        assert_eq!(answer.header("x-donjon-target"), Some("t1"), "{kind}");
        let body = answer.json();
        let call = &body["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(call["name"], "now", "{kind}: {body}");
        let streamed = ask(&gate, &chat(true)).await;
        assert_eq!(streamed.header("x-donjon-target"), Some("t1"), "{kind}");
        assert_eq!((first.count(), second.count()), (2, 2));
    }
}

#[tokio::test]
async fn embeddings_come_from_ollama_and_are_balanced_as_chats_are() {
    let (first, second) = (steady().await, steady().await);
    let targets = [(OLLAMA, &first, ""), (OPENAI, &second, "")];
    let gate = Gate::open(&routed(&targets, "strategy = \"round-robin\"", "")).await;
    let body = r#"{"model":"e-1","input":["a","keep"]}"#;
    for _ in 0..4 {
        let answer = gate.post(EMBEDDINGS, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = answer.json();
        assert_eq!(got["data"][1]["embedding"], json!([4.0, 1.0]));
        assert_eq!(got["usage"]["prompt_tokens"], 12);
    }
    assert_eq!((first.count(), second.count()), (2, 2));
    assert_eq!(first.calls()[0].request.path, "/api/embed");
}

const GOOD: &str = r#"
[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "k"

[[routes]]
model = "*"
targets = [{ provider = "main", model = "m", models = { a = "b" }, weight = 2, priority = 1, max_in_flight = 3, tools = false, context_window = 100, enabled = true }, { provider = "main" }]
strategy = "sticky"
sticky_by = "user"
latency_decay = "10s"
when_out = "fail"
[routes.health]
consecutive_failures = 5
failure_rate = 0.5
minimum_calls = 20
window = "30s"
out_for = "10s"
longest = "5m"
most_out = 0.5
return_over = "30s"
overload_hints = true
slow_first_token = "8s"
slow_answer = "90s"
[routes.probes]
interval = "15s"
timeout = "5s"
down_after = 3
up_after = 2
"#;

#[tokio::test]
async fn what_makes_no_sense_is_named_by_its_path() {
    let build =
        |text: &str| Config::from_toml(text).and_then(|config| Gateway::build(&config).map(drop));
    build(GOOD).expect("good");
    let mut wrong = Vec::new();
    for (from, to, path) in [
        ("\"sticky\"", "\"stick\"", "strategy"),
        ("\"sticky\"", "\"weighted\"", "sticky_by"),
        ("\"user\"", "\"tenant\"", "sticky_by"),
        ("\"user\"", "\"model\"", "sticky_by"),
        ("\"fail\"", "\"wait\"", "when_out"),
        (
            "latency_decay = \"10s\"",
            "latency_decay = \"0s\"",
            "latency_decay",
        ),
        ("weight = 2", "weight = 0", "targets[0].weight"),
        ("weight = 2", "weight = -1", "targets[0].weight"),
        ("weight = 2", "weigth = 2", "targets[0].weigth"),
        ("priority = 1", "priority = \"high\"", "targets[0].priority"),
        (
            "max_in_flight = 3",
            "max_in_flight = 0",
            "targets[0].max_in_flight",
        ),
        ("tools = false", "tools = \"no\"", "targets[0].tools"),
        ("tools = false", "tool = false", "targets[0].tool"),
        (
            "context_window = 100",
            "context_window = 0",
            "targets[0].context_window",
        ),
        ("enabled = true", "enabled = 1", "targets[0].enabled"),
        ("model = \"m\"", "model = \"\"", "targets[0].model"),
        ("a = \"b\"", "a = \"\"", "targets[0].models.a"),
        (
            "consecutive_failures = 5",
            "consecutive_failures = 0",
            "health.consecutive_failures",
        ),
        (
            "failure_rate = 0.5",
            "failure_rate = 0.0",
            "health.failure_rate",
        ),
        (
            "failure_rate = 0.5",
            "failure_rate = 1.5",
            "health.failure_rate",
        ),
        (
            "minimum_calls = 20",
            "minimum_calls = 0",
            "health.minimum_calls",
        ),
        ("window = \"30s\"", "window = \"0s\"", "health.window"),
        ("longest = \"5m\"", "longest = \"5s\"", "health.longest"),
        ("out_for = \"10s\"", "out_for = 10", "health.out_for"),
        ("most_out = 0.5", "most_out = 2.0", "health.most_out"),
        ("return_over", "return_after", "health.return_after"),
        (
            "overload_hints = true",
            "overload_hints = 1",
            "health.overload_hints",
        ),
        (
            "slow_first_token = \"8s\"",
            "slow_first_token = \"soon\"",
            "health.slow_first_token",
        ),
        (
            "slow_answer = \"90s\"",
            "slow_answer = \"0s\"",
            "health.slow_answer",
        ),
        ("interval = \"15s\"", "interval = \"0s\"", "probes.interval"),
        ("timeout = \"5s\"", "timeout = \"now\"", "probes.timeout"),
        ("down_after = 3", "down_after = 0", "probes.down_after"),
        ("up_after = 2", "up_after = 0", "probes.up_after"),
        ("up_after = 2", "upafter = 2", "probes.upafter"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "`{from}` is not there");
        let error = build(&text).expect_err(to);
        let path = format!("routes[0].{path}");
        if error.path() != path {
            wrong.push(format!("`{to}`: {error}, not {path}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
