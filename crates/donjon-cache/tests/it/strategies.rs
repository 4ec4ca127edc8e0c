//! Which questions are answered from the cache.

use donjon_cache::{CacheLayer, Policy, Strategy};
use donjon_core::{Chat, Function, LlmRequest, Origin, Tool};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{SECOND, around, ask, hear, plain};

fn chat(edit: impl FnOnce(&mut Chat)) -> LlmRequest {
    let mut request = ask("Hi");
    edit(request.edit_chat().expect("a chat"));
    request
}

fn tool(name: &str) -> std::sync::Arc<[Tool]> {
    [Tool::function(Function::new(name))].into()
}

/// Whether the second of two calls is answered from the cache.
async fn keeps(strategy: Strategy, request: &LlmRequest) -> bool {
    let model = ScriptedLlm::new("Hello!");
    let builder = plain().strategy(strategy).harmless_tools(["look_up"]);
    let (service, _) = around(&model, builder);
    hear(&service, request.clone()).await;
    hear(&service, request.clone()).await.1 == Origin::Cache
}

#[tokio::test(start_paused = true)]
async fn each_keeps_its_own() {
    use Strategy::{Aggressive, Conservative, Disabled, Selective};
    let table = [
        // aggressive, conservative, selective
        (chat(|_| ()), [true, true, false]),
        (
            chat(|chat| chat.temperature = Some(1.0)),
            [true, true, false],
        ),
        (
            chat(|chat| chat.temperature = Some(0.0)),
            [true, true, true],
        ),
        (chat(|chat| chat.seed = Some(7)), [true, true, true]),
        (
            chat(|chat| {
                chat.seed = Some(7);
                chat.n = Some(2);
            }),
            [true, false, true],
        ),
        (
            chat(|chat| {
                chat.temperature = Some(0.0);
                chat.tools = tool("send_mail");
            }),
            [true, false, false],
        ),
        (
            chat(|chat| {
                chat.temperature = Some(0.0);
                chat.tools = tool("look_up");
            }),
            [true, false, true],
        ),
    ];
    for (request, expected) in &table {
        for (strategy, expected) in [Aggressive, Conservative, Selective].iter().zip(expected) {
            let kept = keeps(strategy.clone(), request).await;
            assert_eq!(kept, *expected, "{strategy:?} {:?}", request.prompt());
        }
        assert!(!keeps(Disabled, request).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_tools_is_kept_by_those_who_keep_it() {
    for (strategy, kept) in [
        (Strategy::Aggressive, true),
        (Strategy::Conservative, false),
    ] {
        let model = ScriptedLlm::new(Script::answer("").tool_call("f", "{}"));
        let (service, handle) = around(&model, plain().strategy(strategy));
        hear(&service, ask("Hi")).await;
        assert_eq!(handle.entries() == 1, kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_decides_for_each() {
    let model = ScriptedLlm::new("Hello!");
    let strategy = Strategy::custom(|request| match &**request.model() {
        "never" => None,
        "briefly" => Some(Policy::new(SECOND)),
        _ => Some(Policy::new(60 * SECOND)),
    });
    let (service, _) = around(&model, CacheLayer::builder().strategy(strategy));
    let origins = async || {
        let mut origins = Vec::new();
        for name in ["never", "briefly", "long"] {
            origins.push(hear(&service, ask("Hi").with_model(name)).await.1);
        }
        origins
    };
    use Origin::{Cache, Upstream};
    assert_eq!(origins().await, [Upstream, Upstream, Upstream]);
    assert_eq!(origins().await, [Upstream, Cache, Cache]);
    tokio::time::advance(SECOND).await;
    assert_eq!(origins().await, [Upstream, Upstream, Cache]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    use std::time::Duration;
    let refused = |builder: donjon_cache::CacheBuilder| {
        builder.build().expect_err("it makes no sense").to_string()
    };
    for (builder, field) in [
        (plain().ttl(Duration::ZERO), "ttl"),
        (plain().ttl(Duration::MAX), "ttl"),
        (plain().negative_ttl(Duration::ZERO), "negative_ttl"),
        (plain().max_bytes(0), "max_bytes"),
        (plain().max_entry_bytes(0), "max_entry_bytes"),
        (
            plain().max_bytes(1_000).max_entry_bytes(999),
            "max_entry_bytes",
        ),
        (plain().store_timeout(Duration::ZERO), "store_timeout"),
        (plain().refresh_timeout(Duration::ZERO), "refresh_timeout"),
        (
            plain().replay(donjon_cache::Replay::Paced { speed: 0.0 }),
            "replay",
        ),
        (
            plain().replay(donjon_cache::Replay::Paced { speed: f64::NAN }),
            "replay",
        ),
    ] {
        let error = refused(builder);
        assert!(error.contains(field), "{error} does not name {field}");
    }
    #[cfg(not(feature = "zstd"))]
    assert!(refused(plain().compress_above(1)).contains("compress_above"));
}
