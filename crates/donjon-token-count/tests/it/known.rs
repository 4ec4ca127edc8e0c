//! The models that are known.

use donjon_token_count::{Model, Registry, TokenCountLayer};

fn known(name: &str) -> Option<String> {
    Registry::known().get(name).map(|(name, _)| name.to_owned())
}

#[test]
fn names_are_found_by_what_they_begin_with() {
    for (asked, found) in [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4o-Mini", "gpt-4o-mini"),
        ("gpt-4.1-nano-2025-04-14", "gpt-4.1-nano"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-5.1-codex", "gpt-5.1"),
        ("gpt-6.2-sol", "gpt-6.2"),
        ("gpt-5.4-mini", "gpt-5.4-mini"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openrouter/openai/o3-mini", "o3-mini"),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", "gpt-4o-mini"),
        ("anthropic/claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-opus-4.8", "claude-opus-4.8"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        (
            "us.anthropic.claude-3-5-sonnet-20241022-v2:0",
            "claude-3-5-sonnet",
        ),
        ("models/gemini-2.5-flash-lite", "gemini-2.5-flash"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3"),
        ("llama3.1:8b", "llama3.1"),
        ("claude-next", "claude"),
    ] {
        assert_eq!(known(asked).as_deref(), Some(found), "{asked}");
    }
    for unknown in ["", "gpt-4omega", "mygpt-4o", "o1x", "é/中", "///"] {
        assert_eq!(known(unknown), None, "{unknown}");
    }
}

#[test]
fn each_says_where_its_facts_stand() {
    for (name, model) in Registry::known().iter() {
        assert!(model.source.starts_with("https://"), "{name}");
        assert_eq!(model.as_of.len(), "2025-10".len(), "{name}");
    }
    assert!(Registry::known().iter().count() > 100);
}

/// Pages of the providers, read by hand.
#[test]
fn windows_are_those_that_providers_state() {
    let registry = Registry::known();
    for (name, limits) in [
        ("gpt-4o-2024-05-13", [Some(128_000), None, Some(4_096)]),
        ("gpt-5-pro", [Some(400_000), Some(272_000), Some(272_000)]),
        (
            "gpt-6.2-astra",
            [Some(1_050_000), Some(922_000), Some(128_000)],
        ),
        ("claude-opus-4.8", [Some(1_000_000), None, Some(128_000)]),
        ("claude-opus-4-1", [Some(200_000), None, Some(32_000)]),
        (
            "claude-haiku-4-5-20251001",
            [Some(200_000), None, Some(64_000)],
        ),
        ("gemini-3.8-flash", [None, Some(1_048_576), Some(65_536)]),
        ("mistral-large-latest", [None; 3]),
    ] {
        let (_, model) = registry.get(name).expect(name);
        let known = [model.context, model.max_input, model.max_output];
        assert_eq!(known, limits, "{name}");
    }
}

#[test]
fn facts_can_be_overridden() {
    let handle = TokenCountLayer::default().handle();
    let o3 = handle.model("o3").context(1_000_000);
    let layer = TokenCountLayer::builder().model("o3", o3).build();
    let model: Model = layer.expect("sensible").handle().model("o3-2025-04-16");
    assert_eq!(
        (model.context, model.max_output),
        (Some(1_000_000), Some(100_000))
    );
}
