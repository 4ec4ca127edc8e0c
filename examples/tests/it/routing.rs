//! Who is asked, and who is left alone: what a route says is what its targets see.

mod config;
mod dialects;
mod health;
mod survive;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use donjon_testkit::upstream::{Failure, Upstream};
use serde_json::{Value, json};

use crate::{
    outage::switched,
    support::{Answer, CHAT, Caller, Gate, MESSAGES, OPENAI, chat, messages, provider, steady},
};

const GEMINI: &str = "gemini";
const OLLAMA: &str = "ollama-native";
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
async fn what_a_request_in_anthropics_words_needs_is_known_too() {
    let (first, second) = (steady().await, steady().await);
    let targets = [
        (OPENAI, &first, "vision = false, tools = false"),
        (GEMINI, &second, ""),
    ];
    let gate = Gate::open(&routed(&targets, "", "")).await;
    let plain: Value = serde_json::from_str(&messages(false)).expect("a question");
    let mut image = plain.clone();
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    image["messages"][0]["content"] = json!([
        {"type": "image", "source": source}, {"type": "text", "text": "What is it?"},
    ]);
    let mut tools = plain.clone();
    tools["tools"] = json!([{"name": "now", "input_schema": {"type": "object", "properties": {}}}]);
    for (body, target) in [(plain, "t0"), (image, "t1"), (tools, "t1")] {
        let answer = gate.post(MESSAGES, body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-donjon-target"), Some(target), "{body}");
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
