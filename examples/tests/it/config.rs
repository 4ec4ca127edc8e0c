//! What the configuration says is what is done, and what makes no sense is refused by its path.

use donjon_examples::gateway::{Config, Gateway};
use donjon_testkit::upstream::{Failure, Upstream};
use serde_json::Value;

use crate::support::{
    ANTHROPIC, CHAT, Gate, MESSAGES, OPENAI, always, chat, config, messages, provider, steady,
};

const GOOD: &str = r#"
[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "k"
[providers.spare]
kind = "anthropic"
base_url = "http://127.0.0.1:9"
api_key = "k"

[[routes]]
model = "gpt-4*"
targets = [{ provider = "main" }, { provider = "spare", model = "other-model" }]

[retry]
max_attempts = 3
base_delay = "10ms"
max_delay = "20ms"
[timeout]
connect = "5s"
first_token = "10s"
idle = "15s"
response = "90s"
total = "120s"
[failover]
patience = "2s"
[server]
max_body_bytes = 1000000
"#;

/// The path that is complained about when `from` is replaced by `to`, wherever it is noticed.
fn refused(from: &str, to: &str) -> String {
    let text = GOOD.replacen(from, to, 1);
    assert_ne!(text, GOOD, "`{from}` is not there");
    let built =
        Config::from_toml(&text).and_then(|config| Gateway::build(&config)?.service().map(drop));
    let error = built.expect_err(to);
    assert!(error.to_string().contains(error.path()), "{error}");
    error.path().to_owned()
}

#[test]
fn a_good_one_is_built() {
    let config = Config::from_toml(GOOD).expect("good");
    let gateway = Gateway::build(&config).expect("good");
    gateway.service().expect("good");
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let mut wrong = Vec::new();
    let targets = "[{ provider = \"main\" }, { provider = \"spare\", model = \"other-model\" }]";
    for (from, to, path) in [
        // Keys that nobody knows.
        ("[retry]", "[retries]", "retries"),
        ("max_attempts", "max_atempts", "retry.max_atempts"),
        ("first_token", "first_tokens", "timeout.first_tokens"),
        ("patience", "patients", "failover.patients"),
        ("max_body_bytes", "max_body", "server.max_body"),
        ("base_url", "url", "providers.main.url"),
        (
            "model = \"gpt-4*\"",
            "models = \"gpt-4*\"",
            "routes[0].models",
        ),
        (
            "model = \"other-model\"",
            "modle = \"x\"",
            "routes[0].targets[1].modle",
        ),
        // Values of the wrong shape.
        ("\"openai\"", "\"open-ai\"", "providers.main.kind"),
        ("api_key = \"k\"", "api_key = 7", "providers.main.api_key"),
        (
            "max_attempts = 3",
            "max_attempts = -1",
            "retry.max_attempts",
        ),
        ("\"15s\"", "\"soon\"", "timeout.idle"),
        ("\"120s\"", "120", "timeout.total"),
        ("\"other-model\"", "7", "routes[0].targets[1].model"),
        // Values that cannot be.
        ("max_attempts = 3", "max_attempts = 0", "retry.max_attempts"),
        ("\"20ms\"", "\"5ms\"", "retry.max_delay"),
        ("\"90s\"", "\"0s\"", "timeout.response"),
        ("\"5s\"", "\"0ms\"", "timeout.connect"),
        ("\"2s\"", "\"0s\"", "failover.patience"),
        (
            "max_body_bytes = 1000000",
            "max_body_bytes = 0",
            "server.max_body_bytes",
        ),
        (
            "max_body_bytes = 1000000",
            "final_status = 503",
            "server.final_status",
        ),
        (
            "http://127.0.0.1:9/v1",
            "ftp://h/v1",
            "providers.main.base_url",
        ),
        ("http://127.0.0.1:9/v1", "", "providers.main.base_url"),
        (
            "http://127.0.0.1:9\"",
            "not an address\"",
            "providers.spare.base_url",
        ),
        (
            "api_key = \"k\"",
            "api_key = \"a\\nb\"",
            "providers.main.api_key",
        ),
        (
            "api_key = \"k\"",
            "api_key = \"\"",
            "providers.main.api_key",
        ),
        ("api_key = \"k\"", "", "providers.main.api_key"),
        (
            "api_key = \"k\"",
            "max_connections = 0\napi_key = \"k\"",
            "providers.main.max_connections",
        ),
        // Names that lead nowhere, and nothing where something is needed.
        (
            "provider = \"spare\"",
            "provider = \"spade\"",
            "routes[0].targets[1].provider",
        ),
        (targets, "[]", "routes[0].targets"),
        ("\"gpt-4*\"", "\"\"", "routes[0].model"),
        (
            "api_key = \"k\"",
            "api_key = { env = \"NO_SUCH_VARIABLE_IS_SET\" }",
            "providers.main.api_key",
        ),
        (
            "api_key = \"k\"",
            "api_key = { var = \"HOME\" }",
            "providers.main.api_key.var",
        ),
    ] {
        let told = refused(from, to);
        if told != path {
            wrong.push(format!("`{from}` replaced by `{to}`: {told}, not {path}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn the_files_that_are_documented_are_good_ones() {
    let pages = [
        include_str!("../../../docs/gateway.md"),
        include_str!("../../../README.md"),
    ];
    for page in pages {
        let (_, rest) = page.split_once("```toml\n").expect("a file");
        let (file, _) = rest.split_once("```").expect("its end");
        // What it takes from outside is not there.
        let lines = file.lines().filter(|line| !line.starts_with("file = "));
        let lines = lines.map(|line| match line.split_once("{ env = ") {
            Some((key, _)) => format!("{key}\"k\"\n"),
            None => format!("{line}\n"),
        });
        let config = Config::from_toml(&lines.collect::<String>()).expect("good");
        let gateway = Gateway::build(&config).expect("good");
        gateway.service().expect("good");
    }
}

#[test]
fn what_is_no_toml_is_refused() {
    for text in ["[providers", "routes = 7\n[providers.a]", ""] {
        Config::from_toml(text).expect_err(text);
    }
}

#[tokio::test]
async fn the_first_route_that_matches_takes_the_call() {
    let (a, b, c) = (steady().await, steady().await, steady().await);
    let text = format!(
        "{}{}{}\
         [[routes]]\nmodel = \"gpt-4o-mini\"\ntargets = [{{ provider = \"a\" }}]\n\
         [[routes]]\nmodel = \"gpt-4*\"\ntargets = [{{ provider = \"b\", model = \"keep-?\" }}]\n\
         [[routes]]\nmodel = \"claude-?\"\ntargets = [{{ provider = \"c\" }}]\n",
        provider("a", OPENAI, &a),
        provider("b", OPENAI, &b),
        provider("c", ANTHROPIC, &c),
    );
    let gate = Gate::open(&text).await;
    let models = [
        ("gpt-4o-mini", Some((&a, "gpt-4o-mini"))),
        ("gpt-4o", Some((&b, "keep-?"))),
        ("gpt-4", Some((&b, "keep-?"))),
        ("claude-3", Some((&c, "claude-3"))),
        ("claude-", None),
        ("claude-35", None),
        ("xgpt-4o", None),
    ];
    for (model, served) in models {
        for path in [CHAT, MESSAGES] {
            let asked = |upstream: &Upstream| upstream.count();
            let before = [&a, &b, &c].map(asked);
            let body = match path {
                MESSAGES => messages(false).replace("claude-sonnet-4-5", model),
                _ => chat(false).replace("gpt-4o", model),
            };
            let answer = gate.post(path, body).await;
            let Some((upstream, asked_for)) = served else {
                assert_eq!(answer.status, 404, "{model}: {}", answer.text());
                let error = &answer.json()["error"];
                match path {
                    MESSAGES => assert_eq!(error["type"], "not_found_error"),
                    _ => assert_eq!(error["code"], "model_not_found"),
                }
                assert_eq!([&a, &b, &c].map(asked), before, "{model}");
                continue;
            };
            assert_eq!(answer.status, 200, "{model}: {}", answer.text());
            let calls = upstream.calls();
            let call = calls.last().expect("a call");
            assert_eq!(call.request.model(), Some(asked_for));
            let asked: usize = [&a, &b, &c].map(asked).iter().sum();
            assert_eq!(asked, before.iter().sum::<usize>() + 1);
        }
    }
}

#[tokio::test]
async fn a_provider_can_be_a_target_twice() {
    let only = always(Failure::service_unavailable()).await;
    let text = format!(
        "{}[[routes]]\nmodel = \"*\"\n\
         targets = [{{ provider = \"a\", model = \"m1\" }}, {{ provider = \"a\", model = \"m2\" }}]\n\
         [retry]\nmax_attempts = 1\n",
        provider("a", OPENAI, &only)
    );
    let gate = Gate::open(&text).await;
    let answer = gate.post(CHAT, chat(false)).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let calls = only.calls();
    let models: Vec<_> = calls
        .iter()
        .filter_map(|call| call.request.model())
        .collect();
    assert_eq!(models, ["m1", "m2"]);
    let message = answer.json()["error"]["message"].to_string();
    assert!(
        message.contains("a: ") && message.contains("a-2: "),
        "{message}"
    );
}

/// The figures of one layer with one name, summed up over its labels.
pub(crate) fn figure(report: &Value, layer: &str, name: &str) -> f64 {
    let layers = report["layers"].as_array().expect("layers").iter();
    let figures = layers
        .filter(|entry| entry["layer"] == layer)
        .flat_map(|entry| entry["figures"].as_array().expect("figures"));
    let named: Vec<_> = figures.filter(|figure| figure["name"] == name).collect();
    assert!(!named.is_empty(), "{layer} has no {name}: {report}");
    named
        .iter()
        .filter_map(|figure| figure["value"].as_f64())
        .sum()
}

#[tokio::test]
async fn health_is_told() {
    let down = always(Failure::service_unavailable()).await;
    let spare = steady().await;
    let targets = [(OPENAI, &down), (OPENAI, &spare)];
    let gate = Gate::open(&config(&targets, 2, "")).await;
    for path in ["/health", "/health/live", "/health/ready"] {
        let answer = gate.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["status"], "ok", "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(gate.post(CHAT, chat(false)).await.status, 200);
    let report = gate.get("/health").await.json();
    assert_eq!(figure(&report, "failover", "failovers"), 1.0);
    assert_eq!(figure(&report, "retry", "calls"), 2.0);
    assert_eq!(figure(&report, "retry", "attempts"), 3.0);
    assert_eq!((down.count(), spare.count()), (2, 1));
}

#[tokio::test]
async fn models_are_listed_in_both_dialects() {
    let only = steady().await;
    let config = config(&[(OPENAI, &only)], 1, "").replace("\"*\"", "\"keep-1\"");
    let gate = Gate::open(&config).await;
    let list = gate.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "keep-1");
    assert_eq!(
        gate.get("/v1/models/keep-1").await.json()["object"],
        "model"
    );
    assert_eq!(gate.get("/v1/models/keep-2").await.status, 404);
    assert_eq!(only.count(), 0);
}

#[tokio::test]
async fn every_kind_of_provider_is_asked_in_its_own_way() {
    let bearer = ("authorization", "Bearer sk-upstream");
    for (kind, base, path, (header, value)) in [
        ("openai", "/v1", "/v1/chat/completions", bearer),
        ("openrouter", "/api/v1", "/api/v1/chat/completions", bearer),
        ("ollama", "/v1", "/v1/chat/completions", bearer),
        (
            "anthropic",
            "",
            "/v1/messages",
            ("x-api-key", "sk-upstream"),
        ),
        (
            "azure-openai",
            "",
            "/openai/deployments/gpt-4o/chat/completions?api-version=2025-01-01",
            ("api-key", "sk-upstream"),
        ),
    ] {
        let only = steady().await;
        let mut table = provider("t0", kind, &only).replace("/v1\"", &format!("{base}\""));
        if kind == "azure-openai" {
            table.push_str("api_version = \"2025-01-01\"\n");
        }
        let route = "[[routes]]\nmodel = \"*\"\ntargets = [{ provider = \"t0\" }]\n";
        let gate = Gate::open(&(table + route)).await;
        for stream in [false, true] {
            let answer = gate.post(CHAT, chat(stream)).await;
            assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
            assert!(
                answer.text().contains("served"),
                "{kind}: {}",
                answer.text()
            );
        }
        for call in only.calls() {
            assert_eq!(call.request.path, path, "{kind}");
            assert_eq!(call.request.header(header), Some(value), "{kind}");
        }
    }
}

#[tokio::test]
async fn scripted_providers_need_nobody_and_show_a_failover() {
    let text = "[providers.flaky]\nkind = \"scripted\"\nfail_every = 2\n\
                [providers.steady]\nkind = \"scripted\"\n\
                [[routes]]\nmodel = \"*\"\n\
                targets = [{ provider = \"flaky\" }, { provider = \"steady\" }]\n\
                [retry]\nmax_attempts = 1\n";
    let gate = Gate::open(text).await;
    for target in ["flaky", "steady", "flaky", "steady"] {
        let answer = gate.post(CHAT, chat(false)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-donjon-target"), Some(target));
    }
}
