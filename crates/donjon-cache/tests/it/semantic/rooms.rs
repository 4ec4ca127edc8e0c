//! What is kept, for how long, and how much of it.

use std::time::Duration;

use donjon_cache::{
    ConfigError, Invalidate, Refused,
    semantic::{SemanticBuilder, SemanticConfigError as Wrong},
};
use donjon_core::{CacheDirective, FinishReason, LlmRequest, Snapshot};
use donjon_testkit::{Script, ScriptedLlm, probe::poll_once};

use super::{around, is_near, plain};
use crate::{SECOND, ask, send};

fn directed(text: &str, change: fn(&mut CacheDirective)) -> LlmRequest {
    let mut request = ask(text);
    let mut directive = CacheDirective::default();
    change(&mut directive);
    request.set_cache(directive);
    request
}

#[tokio::test(start_paused = true)]
async fn what_is_no_whole_answer_is_not_kept() {
    let scripts = [
        (Script::words(3).cut_after(1), Refused::Error),
        (
            Script::words(3).finish(FinishReason::Length),
            Refused::Truncated,
        ),
        (Script::words(3).content_filter(), Refused::Filtered),
    ];
    for (script, why) in scripts {
        for streamed in [false, true] {
            let model = ScriptedLlm::new(script.clone());
            let (service, handle) = around(&model, plain());
            let asks = match streamed {
                true => ask("40").streamed(),
                false => ask("40"),
            };
            if let Ok(answer) = send(&service, asks).await {
                let _ = answer.text().await;
            }
            assert_eq!((handle.entries(), handle.refused(why)), (0, 1), "{why:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_left_is_not_kept() {
    let model = ScriptedLlm::new(Script::words(5).gap(SECOND));
    let (service, handle) = around(&model, plain());
    let answer = send(&service, ask("40").streamed()).await.expect("begins");
    drop(answer);
    // So is a call.
    model.set_otherwise(Script::hang());
    let mut call = Box::pin(send(&service, ask("40")));
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(
        (handle.entries(), handle.refused(Refused::Cancelled)),
        (0, 2)
    );
    assert_eq!(model.in_progress(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_its_time() {
    let (service, _) = around(&ScriptedLlm::new(Script::words(3)), plain().ttl(9 * SECOND));
    assert!(!is_near(&service, ask("40")).await);
    tokio::time::sleep(8 * SECOND).await;
    assert!(is_near(&service, ask("41")).await);
    tokio::time::sleep(2 * SECOND).await;
    assert!(!is_near(&service, ask("42")).await);
    assert!(is_near(&service, ask("41")).await);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many() {
    let model = ScriptedLlm::new(Script::words(3));
    let (service, handle) = around(&model, plain().max_entries(3));
    for text in ["0", "40", "80"] {
        assert!(!is_near(&service, ask(text)).await);
    }
    assert!(is_near(&service, ask("1")).await, "and is used by that");
    assert!(!is_near(&service, ask("120")).await);
    assert_eq!((handle.entries(), handle.evicted()), (3, 1));
    assert!(is_near(&service, ask("2")).await);
    assert!(!is_near(&service, ask("41")).await, "the one that went");
}

/// The answers have a bound of their own; a vector whose answer went finds nothing, and goes.
#[tokio::test(start_paused = true)]
async fn the_answers_take_so_many_bytes() {
    let model = ScriptedLlm::new(Script::answer("x".repeat(2_000)));
    let small = plain().max_bytes(64 * 1024).max_entry_bytes(8 * 1024);
    let (service, handle) = around(&model, small.threshold(0.9999));
    for n in 0..300 {
        is_near(&service, ask(&n.to_string())).await;
    }
    assert!(handle.bytes() < 64 * 1024 + 300 * 64, "{}", handle.bytes());
    let before = handle.entries();
    let mut near = 0;
    // What is new pushes the oldest out.
    for n in (0..300).rev() {
        near += usize::from(is_near(&service, ask(&format!("+{n}"))).await);
    }
    assert!(near > 0 && near < 300, "{near} of {before} were there");
}

#[tokio::test(start_paused = true)]
async fn a_call_says_what_it_wants_of_it() {
    let model = ScriptedLlm::new(Script::words(3));
    let (service, handle) = around(&model, plain());
    assert!(!is_near(&service, directed("40", |it| it.no_store = true)).await);
    assert!(!is_near(&service, ask("40")).await);
    assert!(is_near(&service, directed("41", |it| it.no_store = true)).await);
    assert!(!is_near(&service, directed("42", |it| it.no_cache = true)).await);
    assert_eq!(handle.entries(), 2);
    tokio::time::sleep(9 * SECOND).await;
    let young = |it: &mut CacheDirective| it.max_age = Some(SECOND);
    assert!(!is_near(&service, directed("39", young)).await);
    let old = |it: &mut CacheDirective| it.max_age = Some(10 * SECOND);
    assert!(is_near(&service, directed("45", old)).await);
}

#[tokio::test(start_paused = true)]
async fn the_handle_forgets_and_turns_off() {
    let model = ScriptedLlm::new(Script::words(3));
    let (service, handle) = around(&model, plain());
    assert!(!is_near(&service, ask("40")).await);
    assert_eq!(handle.invalidate(Invalidate::Model("m".into())), 1);
    assert!(!is_near(&service, ask("41")).await);
    handle.set_enabled(false);
    assert!(!is_near(&service, ask("41")).await);
    handle.set_enabled(true);
    assert!(is_near(&service, ask("41")).await);
    assert_eq!(handle.invalidate(Invalidate::All), 1);
    assert_eq!((handle.entries(), handle.bytes()), (0, 0));
    assert_eq!(handle.layer(), "semantic_cache");
    let hits = handle
        .figures()
        .into_iter()
        .find(|it| it.name == "exact_hits");
    assert_eq!(hits.map(|hits| hits.value), Some(1.0));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases: [(SemanticBuilder, Wrong); 9] = [
        (plain().threshold(0.0), Wrong::Threshold(0.0)),
        (plain().threshold(1.1), Wrong::Threshold(1.1)),
        (plain().max_entries(0), Wrong::ZeroMaxEntries),
        (plain().max_dimensions(0), Wrong::ZeroMaxDimensions),
        (plain().max_text_bytes(0), Wrong::ZeroMaxTextBytes),
        (
            plain().embed_timeout(Duration::ZERO),
            Wrong::ZeroEmbedTimeout,
        ),
        (
            plain().embed_timeout(Duration::MAX),
            Wrong::EmbedTimeoutTooLong(Duration::MAX),
        ),
        (
            plain().ttl(Duration::ZERO),
            Wrong::Kept(ConfigError::ZeroTtl),
        ),
        (plain().max_bytes(0), Wrong::Kept(ConfigError::ZeroMaxBytes)),
    ];
    for (builder, wrong) in cases {
        assert_eq!(builder.build().map(drop), Err(wrong));
    }
    assert!(plain().threshold(f32::NAN).build().is_err());
    let said = plain()
        .max_entries(0)
        .build()
        .expect_err("wrong")
        .to_string();
    assert!(said.contains("max_entries"), "{said}");
}
