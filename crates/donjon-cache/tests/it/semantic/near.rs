//! What is near, and what must be the same.

use donjon_cache::{
    Scope,
    semantic::{Compared, SemanticEvent},
};
use donjon_core::{Function, Heard, LlmRequest, Message, Part, Tool};
use donjon_testkit::{Script, ScriptedLlm};

use super::{around, is_near, plain};
use crate::{ask, chunks, hear, of_tenant, send, written};

fn model() -> ScriptedLlm {
    ScriptedLlm::new(Script::words(3))
}

fn chat(messages: impl IntoIterator<Item = Message>) -> LlmRequest {
    LlmRequest::chat("m", messages)
}

#[tokio::test(start_paused = true)]
async fn what_is_nearer_than_the_threshold_is_answered() {
    let (service, handle) = around(&model(), plain());
    assert!(!is_near(&service, ask("40")).await);
    let mut events = handle.events().listen();
    assert!(is_near(&service, ask("about 58")).await);
    let Some(Heard::Event(SemanticEvent::Answered { similarity, .. })) = events.try_next() else {
        panic!("nothing was told");
    };
    assert!((similarity - 18_f32.to_radians().cos()).abs() < 1e-5);
    assert!(!is_near(&service, ask("59")).await);
    assert_eq!((handle.hits(), handle.misses(), handle.stored()), (1, 2, 2));
    // Of two the nearer.
    let text = hear(&service, ask("59")).await.0;
    assert_eq!(hear(&service, ask("52")).await.0, text);
    handle.set_threshold(0.99).expect("sensible");
    assert!(!is_near(&service, ask("about 29")).await);
    assert!(handle.set_threshold(f32::NAN).is_err());
}

/// Each of these differs in one thing from what is kept.
#[tokio::test(start_paused = true)]
async fn all_but_the_text_must_be_the_same() {
    let base = || chat([Message::system("Be brief."), Message::user("40")]);
    let with = |change: fn(&mut donjon_core::Chat)| {
        let mut request = chat([Message::system("Be brief."), Message::user("41")]);
        change(request.edit_chat().expect("a chat"));
        request
    };
    let picture = || Part::image_url("https://example.com/a.png");
    let others = [
        chat([Message::system("Be verbose."), Message::user("41")]),
        chat([Message::user("41")]),
        chat([
            Message::system("Be brief."),
            Message::user("41"),
            Message::assistant("Well,"),
        ]),
        chat([
            Message::system("Be brief."),
            Message::user(vec![Part::text("41"), picture()]),
        ]),
        with(|_| ()).with_model("another"),
        of_tenant(with(|_| ()), "acme"),
        with(|chat| chat.temperature = Some(0.5)),
        with(|chat| chat.max_tokens = Some(5)),
        with(|chat| chat.seed = Some(5)),
        with(|chat| chat.stop = serde_json::from_str("\".\"").ok()),
        with(|chat| chat.response_format = serde_json::from_str(r#"{"type":"json_object"}"#).ok()),
        with(|chat| {
            let yes = serde_json::value::to_raw_value(&true).expect("JSON");
            chat.extra.insert("logprobs", yes);
        }),
    ];
    for (n, other) in others.into_iter().enumerate() {
        let (service, _) = around(&model(), plain());
        assert!(!is_near(&service, base()).await);
        assert!(!is_near(&service, other).await, "the {n}th");
        assert!(is_near(&service, with(|_| ())).await, "it would have been");
    }
}

#[tokio::test(start_paused = true)]
async fn tenants_share_where_they_are_told_to() {
    let (service, _) = around(&model(), plain().scope(Scope::Shared));
    assert!(!is_near(&service, of_tenant(ask("40"), "acme")).await);
    assert!(is_near(&service, of_tenant(ask("41"), "other")).await);
}

#[tokio::test(start_paused = true)]
async fn of_a_conversation_the_last_turn_is_compared_or_as_many_as_were_chosen() {
    let talk = |before: &str, last: &str| {
        chat([
            Message::user(before),
            Message::assistant("So."),
            Message::user(last),
        ])
    };
    let (service, _) = around(&model(), plain());
    assert!(!is_near(&service, talk("10", "20")).await);
    assert!(is_near(&service, talk("10", "22")).await);
    assert!(!is_near(&service, talk("11", "21")).await);

    let before = Compared::LastUser { before: 2 };
    let (service, _) = around(&model(), plain().compared(before));
    assert!(!is_near(&service, talk("10", "20")).await);
    assert!(is_near(&service, talk("11", "21")).await);
    assert!(!is_near(&service, talk("30", "21")).await);

    // A closure chooses; what it does not choose must be the same.
    let first = Compared::custom(|chat| (chat.messages.len() > 1).then_some(0..1));
    let (service, handle) = around(&model(), plain().compared(first));
    assert!(!is_near(&service, talk("10", "20")).await);
    assert!(is_near(&service, talk("11", "20")).await);
    assert!(!is_near(&service, talk("10", "21")).await);
    assert!(!is_near(&service, ask("10")).await);
    assert_eq!(handle.bypassed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_names_no_messages_lets_the_call_through() {
    #[expect(clippy::reversed_empty_ranges, reason = "what a closure may say")]
    for range in [0..0, 0..7, 9..2, 7..8] {
        let compared = Compared::custom(move |_| Some(range.clone()));
        let (service, handle) = around(&model(), plain().compared(compared));
        assert!(!is_near(&service, ask("10")).await);
        assert_eq!(handle.bypassed(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_with_tools_are_not_answered_unless_told_so() {
    let with_tools = |text| {
        let mut request = ask(text);
        let chat = request.edit_chat().expect("a chat");
        chat.tools = [Tool::function(Function::new("launch"))].into();
        request
    };
    for (allowed, answered) in [(false, false), (true, true)] {
        let (service, handle) = around(&model(), plain().answer_with_tools(allowed));
        assert!(!is_near(&service, with_tools("40")).await);
        assert_eq!(is_near(&service, with_tools("41")).await, answered);
        assert!(!is_near(&service, ask("41")).await, "without them is apart");
        assert_eq!(handle.bypassed(), if allowed { 0 } else { 2 });
    }
    // An answer that calls tools where none were offered is not kept either.
    let calling = ScriptedLlm::new(Script::answer("").tool_call("launch", "{}"));
    let (service, handle) = around(&calling, plain());
    hear(&service, ask("40")).await;
    assert_eq!(handle.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_in_other_words_of_the_wire_is_let_through() {
    let wire = donjon_core::Wire::new(donjon_core::Dialect::Anthropic, r#"{"messages":[]}"#);
    let asks = |text: &str| {
        let mut request = ask(text);
        request.edit_chat().expect("a chat").wire = Some(wire.clone());
        request
    };
    let (service, handle) = around(&model(), plain());
    for text in ["40", "41"] {
        assert!(!is_near(&service, asks(text)).await);
    }
    assert_eq!((handle.bypassed(), handle.entries()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_shadow_tells_and_answers_nothing() {
    let model = model();
    let (service, handle) = around(&model, plain().shadow(true));
    let mut events = handle.events().listen();
    for text in ["40", "41", "40"] {
        assert!(!is_near(&service, ask(text)).await);
    }
    assert_eq!(
        (model.count(), handle.hits(), handle.exact_hits()),
        (3, 0, 0)
    );
    assert_eq!(handle.shadow_hits(), 2);
    for similarity in [1_f32.to_radians().cos(), 1.0] {
        match events.try_next() {
            Some(Heard::Event(SemanticEvent::WouldAnswer {
                similarity: told, ..
            })) => {
                assert!((told - similarity).abs() < 1e-5);
            }
            other => panic!("{other:?}"),
        }
    }
    handle.set_shadow(false);
    assert!(is_near(&service, ask("42")).await);
}

#[tokio::test(start_paused = true)]
async fn streams_and_whole_answers_serve_each_other() {
    for (kept, asked) in [(false, true), (true, false), (true, true), (false, false)] {
        let (service, _) = around(&model(), plain());
        let asks = |text, streamed| match streamed {
            true => ask(text).streamed(),
            false => ask(text),
        };
        let live = hear(&service, asks("40", kept)).await.0;
        let near = send(&service, asks("41", asked)).await.expect("an answer");
        assert_eq!(near.is_stream(), asked);
        assert_eq!(near.text().await.expect("whole"), live);
    }
    let (service, _) = around(&model(), plain());
    let live = chunks(
        send(&service, ask("40").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    let near = chunks(
        send(&service, ask("41").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    assert_eq!(written(&near), written(&live));
}
