//! What may be spent through the gateway.

use donjon_examples::gateway::{Config, Gateway};
use donjon_testkit::upstream::{Script, Usage};
use serde_json::{Value, json};

use crate::support::{ANTHROPIC, CHAT, Caller, Gate, MESSAGES, OPENAI, always, config, messages};

/// $0.0025 for `gpt-4o`: 600 tokens of prompt for $2.50 a million, 100 of answer for $10.
fn served() -> Script {
    Script::answer("served").usage(Usage::new(600, 100))
}

fn chat() -> String {
    json!({
        "model": "gpt-4o",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "x".repeat(600)}],
    })
    .to_string()
}

fn figure(report: &Value, name: &str) -> f64 {
    let layers = report["layers"].as_array().expect("layers");
    let budget = layers.iter().find(|layer| layer["layer"] == "budget");
    let figures = budget.expect("a budget")["figures"]
        .as_array()
        .expect("figures");
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.expect("the figure")["value"]
        .as_f64()
        .expect("a number")
}

#[tokio::test]
async fn what_would_pass_a_cent_is_refused_in_the_callers_dialect() {
    let upstream = always(served()).await;
    let more = "[budget]\n[[budget.limits]]\nusd = 0.01\nper = \"day\"";
    let gate = Gate::open(&config(&[(OPENAI, &upstream)], 1, more)).await;
    let mut served = 0;
    let refused = loop {
        let answer = gate.post(CHAT, chat()).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served <= 4, "a cent is spent");
    };
    assert!(
        served >= 3,
        "{served}: the worst case is not much more than what is used"
    );
    assert_eq!(upstream.count(), served, "what is refused is not sent");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let after: u64 = refused
        .header("retry-after")
        .expect("when")
        .parse()
        .expect("seconds");
    assert!((1..=86_401).contains(&after), "until the day is over");
    let error = &refused.json()["error"];
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("$0.01"), "{message}");

    let dear = messages(false).replace("100", "1000");
    let dear = gate.post(MESSAGES, dear).await;
    assert_eq!(dear.json()["type"], "error", "{}", dear.text());
    assert_eq!(dear.status, 429);

    let report = gate.get("/health").await.json();
    assert!(figure(&report, "spent_usd") <= 0.01, "{report}");
    assert!(figure(&report, "refused") >= 2.0, "{report}");
}

#[tokio::test]
async fn a_tenants_money_is_its_own_and_a_hit_costs_nothing() {
    let upstream = always(served()).await;
    let more = "[cache]\nstrategy = \"aggressive\"\n[tenants]\n\
                [budget]\n[[budget.limits]]\nusd = 0.005\nper = \"day\"\nby = \"tenant\"";
    let gate = Gate::open(&config(&[(OPENAI, &upstream)], 1, more)).await;
    let ask = async |tenant, body: String| {
        let mut caller = Caller::connect(&gate).await.of(tenant);
        caller.post(CHAT, body).await.read().await.status
    };
    for _ in 0..20 {
        assert_eq!(
            ask("a", chat()).await,
            200,
            "once upstream, then from memory"
        );
    }
    assert_eq!(upstream.count(), 1);
    let other = chat().replace("xxx", "yyy");
    let another = chat().replace("xxx", "zzz");
    assert_eq!(
        ask("a", other.clone()).await,
        429,
        "the second does not fit"
    );
    assert_eq!(ask("b", other).await, 200, "another tenant");
    assert_eq!(ask("a", another).await, 429);
    assert_eq!(
        ask("a", chat()).await,
        200,
        "what is in memory is still there"
    );
}

#[tokio::test]
async fn a_model_without_a_price_goes_where_there_is_one() {
    let (first, second) = (always(served()).await, always(served()).await);
    let text = config(&[(OPENAI, &first), (ANTHROPIC, &second)], 1, "[budget]");
    // Only the second knows what it is asked for.
    let text = text.replace(
        "targets = [{ provider = \"t0\" }, { provider = \"t1\" }]",
        "targets = [{ provider = \"t0\", model = \"castle-1\" }, { provider = \"t1\", model = \"claude-sonnet-4-5\" }]",
    );
    let gate = Gate::open(&text).await;
    let answer = gate.post(CHAT, chat()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-donjon-target"), Some("t1"));
    assert_eq!((first.count(), second.count()), (0, 1));
}

/// A prompt that is too long for the first model, and what was counted of it.
#[tokio::test]
async fn a_prompt_that_does_not_fit_goes_to_a_larger_model() {
    let (first, second) = (always(served()).await, always(served()).await);
    let text = config(&[(OPENAI, &first), (OPENAI, &second)], 1, "[tokens]");
    let text = text.replace(
        "targets = [{ provider = \"t0\" }, { provider = \"t1\" }]",
        "targets = [{ provider = \"t0\", model = \"gpt-3.5-turbo\" }, { provider = \"t1\" }]",
    );
    let gate = Gate::open(&text).await;
    let long = chat().replace(
        "xxx",
        " word word word word word word word word word word word word word word",
    );
    for (body, target) in [
        (chat(), "t0"),
        (
            long.replace("word", "word word word word word word word word word word"),
            "t1",
        ),
    ] {
        let answer = gate.post(CHAT, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-donjon-target"), Some(target));
    }
    let report = gate.get("/health").await.json();
    let layers = report["layers"].as_array().expect("layers");
    assert!(
        layers.iter().any(|layer| layer["layer"] == "token_count"),
        "{report}"
    );
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let start = "[providers.main]\nkind = \"scripted\"\n\
                 [[routes]]\nmodel = \"*\"\ntargets = [{ provider = \"main\" }]\n[budget]\n";
    let limit = "[[budget.limits]]\n";
    for (wrong, path) in [
        ("time_zone = \"Moon/Base\"".to_owned(), "budget.time_zone"),
        (format!("{limit}usd = 0.0\nper = \"day\""), "budget.limits"),
        (
            format!("{limit}usd = -1.0\nper = \"day\""),
            "budget.limits[0].usd",
        ),
        (
            format!("{limit}usd = 1.0\nper = \"soon\""),
            "budget.limits[0].per",
        ),
        (format!("{limit}usd = 1.0\nper = \"1s\""), "budget.limits"),
        (
            format!("{limit}usd = 1.0\nper = \"day\"\nby = \"moon\""),
            "budget.limits[0].by",
        ),
        (
            "[[budget.prices]]\nprovider = \"p\"\nmodel = \"m\"\ninput = 1e7\noutput = 1.0".into(),
            "budget.prices[0]",
        ),
    ] {
        let built = Config::from_toml(&format!("{start}{wrong}"))
            .and_then(|config| Gateway::build(&config).map(drop));
        assert_eq!(built.expect_err("refused").path(), path, "{wrong}");
    }
}
