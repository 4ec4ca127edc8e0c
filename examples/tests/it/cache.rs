//! The cache of the gateway.

use donjon_examples::gateway::{Config, Gateway};
use donjon_testkit::upstream::{Script, Usage};
use futures_util::future::join_all;

use crate::support::{
    ANTHROPIC, CHAT, Caller, Gate, MESSAGES, OPENAI, always, chat, config, messages,
};

const CACHE: &str = "[cache]\nstrategy = \"aggressive\"";

fn served() -> Script {
    Script::answer("four words of answer").usage(Usage::new(7, 4))
}

#[tokio::test]
async fn a_question_that_is_repeated_is_answered_from_memory() {
    for kind in [OPENAI, ANTHROPIC] {
        let upstream = always(served()).await;
        let gate = Gate::open(&config(&[(kind, &upstream)], 1, CACHE)).await;
        for (path, ask) in [(CHAT, chat as fn(bool) -> String), (MESSAGES, messages)] {
            for streamed in [false, true] {
                let answer = gate.post(path, ask(streamed)).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let origin = answer.header("x-donjon-origin").map(str::to_owned);
                let again = gate.post(path, ask(streamed)).await;
                assert_eq!(again.header("x-donjon-origin"), Some("cache"));
                assert!(again.header("age").is_some());
                assert_eq!(again.header("x-donjon-attempts"), Some("0"));
                assert_eq!(again.header("x-donjon-target"), Some("t0"));
                assert!(streamed || again.text().contains("four words of answer"));
                assert!(again.text().contains("answer"), "{}", again.text());
                if origin.as_deref() == Some("cache") {
                    assert_eq!(again.text(), answer.text(), "the same, chunk for chunk");
                }
            }
        }
        let report = gate.get("/health").await.json();
        let layers = report["layers"].as_array().expect("layers");
        let cache = layers.iter().find(|layer| layer["layer"] == "cache");
        let figures = cache.expect("a cache")["figures"]
            .as_array()
            .expect("figures");
        let hits = figures.iter().find(|figure| figure["name"] == "hits");
        assert!(
            hits.expect("hits")["value"].as_f64() >= Some(4.0),
            "{report}"
        );
        assert!(upstream.count() <= 2, "once for each way to put it");
    }
}

#[tokio::test]
async fn a_caller_can_ask_for_a_new_answer() {
    let upstream = always(served()).await;
    let gate = Gate::open(&config(&[(OPENAI, &upstream)], 1, CACHE)).await;
    gate.post(CHAT, chat(false)).await;
    let caller = Caller::connect(&gate).await;
    let mut caller = caller.asking("cache-control", "no-cache");
    let fresh = caller.post(CHAT, chat(false)).await.read().await;
    assert_eq!(fresh.header("x-donjon-origin"), Some("upstream"));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn tenants_do_not_share_answers() {
    let upstream = always(served()).await;
    let text = config(&[(OPENAI, &upstream)], 1, &format!("{CACHE}\n[tenants]"));
    let gate = Gate::open(&text).await;
    for (tenant, calls) in [("a", 1), ("a", 1), ("b", 2), ("a", 2)] {
        let mut caller = Caller::connect(&gate).await.of(tenant);
        caller.post(CHAT, chat(false)).await.read().await;
        assert_eq!(upstream.count(), calls);
    }
}

#[tokio::test]
async fn those_who_ask_the_same_at_once_share_a_call() {
    let slow = served().headers_after(std::time::Duration::from_millis(50));
    let upstream = always(slow).await;
    let gate = Gate::open(&config(&[(OPENAI, &upstream)], 1, CACHE)).await;
    let all = join_all((0..20).map(|n| gate.post(CHAT, chat(n % 2 == 0)))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    assert!(
        upstream.count() <= 2,
        "whole and streamed: {}",
        upstream.count()
    );
    let origins: Vec<_> = all
        .iter()
        .filter_map(|one| one.header("x-donjon-origin"))
        .collect();
    assert!(
        origins
            .iter()
            .filter(|origin| **origin == "upstream")
            .count()
            <= 2,
        "{origins:?}"
    );
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let start = "[providers.main]\nkind = \"scripted\"\n\
                 [[routes]]\nmodel = \"*\"\ntargets = [{ provider = \"main\" }]\n[cache]\n";
    for (wrong, path) in [
        ("strategy = \"all\"", "cache.strategy"),
        ("ttl = \"0s\"", "cache.ttl"),
        ("max_bytes = 0", "cache.max_bytes"),
        (
            "max_bytes = 1000\nmax_entry_bytes = 900",
            "cache.max_entry_bytes",
        ),
        ("ttl = \"200years\"", "cache.ttl"),
        ("size = 3", "cache.size"),
    ] {
        let built = Config::from_toml(&format!("{start}{wrong}"))
            .and_then(|config| Gateway::build(&config).map(drop));
        assert_eq!(built.expect_err("refused").path(), path);
    }
}
