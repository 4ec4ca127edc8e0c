//! What a route may say.

use donjon_examples::gateway::{Config, Gateway};

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
[routes.hedge]
percentile = 0.95
minimum_calls = 100
until_known = "2s"
budget = 0.1
burst = 10
max_hedges = 1
pause = "5s"
[routes.resume]
most = 2
within = "60s"
align_within = 65536
restart = true
same_target = false
prefill_again_after = "10m"
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
        ("percentile = 0.95", "percentile = 1.0", "hedge.percentile"),
        ("percentile = 0.95", "delay = \"1s\"", "hedge.minimum_calls"),
        (
            "minimum_calls = 100",
            "minimum_calls = 0",
            "hedge.minimum_calls",
        ),
        (
            "until_known = \"2s\"",
            "until_known = \"0s\"",
            "hedge.until_known",
        ),
        ("budget = 0.1", "budget = 0.0", "hedge.budget"),
        ("burst = 10", "burst = 0", "hedge.burst"),
        ("max_hedges = 1", "max_hedges = 9", "hedge.max_hedges"),
        ("pause = \"5s\"", "pause = \"0s\"", "hedge.pause"),
        ("pause = \"5s\"", "pauses = \"5s\"", "hedge.pauses"),
        ("most = 2", "most = 0", "resume.most"),
        ("within = \"60s\"", "within = \"0s\"", "resume.within"),
        (
            "align_within = 65536",
            "align_within = 0",
            "resume.align_within",
        ),
        ("restart = true", "restarts = true", "resume.restarts"),
        (
            "same_target = false",
            "same_target = 0",
            "resume.same_target",
        ),
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
