//! What is read, and what is refused.

use super::*;

const GOOD: &str = r#"
        [providers.main]
        kind = "openai"
        base_url = "https://example.invalid/v1"
        api_key = "k"
        [providers.spare]
        kind = "scripted"

        [[routes]]
        model = "gpt-4*"
        targets = [{ provider = "main" }, { provider = "spare", model = "other-model" }]

        [retry]
        max_attempts = 3
        [timeout]
        connect = "5s"
        first_token = "10s"
        idle = "15s"
        response = "90s"
        total = "2m"
    "#;

fn fault(from: &str, to: &str) -> ConfigError {
    let text = GOOD.replacen(from, to, 1);
    assert_ne!(text, GOOD);
    Config::from_toml(&text).expect_err("refused")
}

#[test]
fn a_good_one_is_read() {
    let config = Config::from_toml(GOOD).expect("good");
    assert_eq!(config.timeout.total, Some(Span(Duration::from_secs(120))));
    assert_eq!(
        config.routes[0].targets[1].model.as_deref(),
        Some("other-model")
    );
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    for (from, to, path) in [
        ("max_attempts", "max_attemps", "retry.max_attemps"),
        ("[retry]", "[retries]", "retries"),
        (
            "first_token = \"10s\"",
            "first_token = \"soon\"",
            "timeout.first_token",
        ),
        ("idle = \"15s\"", "idle = \"0s\"", "timeout.idle"),
        ("\"openai\"", "\"opena\"", "providers.main.kind"),
        ("api_key = \"k\"", "", "providers.main.api_key"),
        (
            "\"k\"",
            "{ env = \"NO_SUCH_VARIABLE_HERE\" }",
            "providers.main.api_key",
        ),
        (
            "provider = \"spare\"",
            "provider = \"spar\"",
            "routes[0].targets[1].provider",
        ),
        ("\"other-model\"", "7", "routes[0].targets[1].model"),
        (
            "[{ provider = \"main\" }, { provider = \"spare\", model = \"other-model\" }]",
            "[]",
            "routes[0].targets",
        ),
    ] {
        let error = fault(from, to);
        assert_eq!(error.path(), path, "{error}");
    }
}

#[test]
fn keys_are_not_printed() {
    let config = Config::from_toml(&GOOD.replace("\"k\"", "\"sk-secret\"")).expect("good");
    assert!(!format!("{config:?}").contains("sk-secret"));
}
