//! Streams: recorded, replayed, and asked for whole.

use std::time::Duration;

use donjon_cache::Replay;
use donjon_core::{Body, Chunk, Dialect, Origin, Usage, Wire};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::Instant;

use crate::{SECOND, around, ask, chunks, hear, plain, send, told_no_usage, written};

/// Everything that a stream can carry.
fn rich() -> Script {
    let json = r#"{"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"x","audio":{"id":"a"}},"finish_reason":null,"odd":[1, 2]}],"system_fingerprint":"fp"}"#;
    Script::answer("one two three four ")
        .reasoning("let me see ")
        .tool_call("search", r#"{"q":"donjon"}"#)
        .unknown_at(1)
        .chunk_at(2, Chunk::from_openai(json.to_owned()).expect("a chunk"))
        .usage(Usage::new(9, 11))
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_replayed_chunk_for_chunk() {
    let model = ScriptedLlm::new(rich());
    let (service, _) = around(&model, plain());
    let live = chunks(
        send(&service, ask("Hi").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    let again = send(&service, ask("Hi").streamed())
        .await
        .expect("a stream");
    assert_eq!(again.head.origin, Origin::Cache);
    let again = chunks(again).await;
    assert_eq!(written(&again), written(&live));
    let wires = |chunks: &[Chunk]| -> Vec<_> {
        chunks
            .iter()
            .map(|chunk| chunk.wire(Dialect::OpenAi).cloned())
            .collect()
    };
    assert_eq!(wires(&again), wires(&live));
    assert!(
        wires(&live).iter().any(Option::is_some),
        "one came from the wire"
    );
    assert!(again.iter().any(|chunk| chunk.unknown));
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_answers_who_asks_for_it_whole() {
    let model = ScriptedLlm::new(rich());
    let (service, _) = around(&model, plain());
    let live = send(&service, ask("Hi").streamed())
        .await
        .expect("a stream");
    let (_, live) = live.collect().await.expect("whole");
    let again = send(&service, ask("Hi")).await.expect("an answer");
    let Body::Complete(again) = &again.body else {
        panic!("asked for whole")
    };
    let json = |completion: &donjon_core::Completion| {
        serde_json::to_string(completion.as_chat().expect("a chat")).expect("written")
    };
    assert_eq!(json(again), json(&live));
    assert_eq!(again.usage(), Some(&Usage::new(9, 11)));
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_serves_who_asks_for_a_stream() {
    let script = Script::answer("one two ")
        .tool_call("search", "{}")
        .choices(1);
    let model = ScriptedLlm::new(script.usage(Usage::new(9, 11)));
    let (service, _) = around(&model, plain());
    let whole = send(&service, ask("Hi")).await.expect("an answer");
    let (_, whole) = whole.collect().await.expect("whole");
    let again = send(&service, ask("Hi").streamed())
        .await
        .expect("a stream");
    assert!(again.is_stream());
    let (head, again) = again.collect().await.expect("whole");
    assert_eq!(head.origin, Origin::Cache);
    let json = |completion: &donjon_core::Completion| {
        serde_json::to_string(completion.as_chat().expect("a chat")).expect("written")
    };
    assert_eq!(json(&again), json(&whole));
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_did_not_ask_for_the_usage_is_not_told() {
    let model = ScriptedLlm::new(Script::words(3).usage(Usage::new(9, 11)));
    let (service, _) = around(&model, plain());
    let live = chunks(
        send(&service, ask("Hi").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    assert!(live.iter().any(|chunk| chunk.usage.is_some()));
    for (request, told) in [
        (told_no_usage(ask("Hi")), false),
        (ask("Hi").streamed(), true),
    ] {
        let again = chunks(send(&service, request).await.expect("a stream")).await;
        assert_eq!(again.iter().any(|chunk| chunk.usage.is_some()), told);
        let fewer = usize::from(!told);
        assert_eq!(
            again.len(),
            live.len() - fewer,
            "only the chunk of the usage is left out"
        );
    }
    // The same where the answer had come whole.
    hear(&service, ask("Ho")).await;
    let again = send(&service, told_no_usage(ask("Ho")))
        .await
        .expect("a stream");
    assert!(
        chunks(again)
            .await
            .iter()
            .all(|chunk| chunk.usage.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_replayed_at_once_or_as_it_came() {
    let script = || Script::words(11).gap(Duration::from_millis(100));
    for (replay, takes) in [
        (Replay::AtOnce, Duration::ZERO),
        (Replay::Paced { speed: 1.0 }, SECOND),
        (Replay::Paced { speed: 2.0 }, SECOND / 2),
    ] {
        let model = ScriptedLlm::new(script());
        let (service, _) = around(&model, plain().replay(replay));
        let live = chunks(
            send(&service, ask("Hi").streamed())
                .await
                .expect("a stream"),
        )
        .await;
        let began = Instant::now();
        let again = chunks(
            send(&service, ask("Hi").streamed())
                .await
                .expect("a stream"),
        )
        .await;
        let took = began.elapsed();
        assert_eq!(written(&again), written(&live));
        // Timers tick by the millisecond.
        let slack = Duration::from_millis(12);
        assert!(
            took >= takes && took <= takes + slack,
            "{replay:?} took {took:?}"
        );
    }
}

/// Chunks keep their own copy of the wire, in whatever words it is.
#[tokio::test(start_paused = true)]
async fn a_chunk_in_other_words_is_replayed_in_them() {
    let wire = Wire::new(Dialect::Anthropic, r#"{"type":"content_block_delta"}"#);
    let chunk = Chunk::from_wire(Chunk::text("bonjour ").into_delta(), wire.clone());
    let model = ScriptedLlm::new(Script::words(1).chunk_at(1, chunk));
    let (service, _) = around(&model, plain());
    chunks(
        send(&service, ask("Hi").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    let again = chunks(
        send(&service, ask("Hi").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    let found = again
        .iter()
        .find_map(|chunk| chunk.wire(Dialect::Anthropic));
    assert_eq!(found, Some(&wire.json));
}

/// Compressed, an answer is the same. What is small, or does not become smaller, is left alone.
#[cfg(feature = "zstd")]
#[tokio::test]
async fn a_compressed_answer_is_the_same() {
    let script = Script::tokens((0..400).map(|n| format!("word{n} "))).usage(Usage::new(9, 11));
    for stream in [true, false] {
        // Each has a model of its own: a model numbers its answers.
        let plainly = around(&ScriptedLlm::new(script.clone()), plain());
        let packed = around(
            &ScriptedLlm::new(script.clone()),
            plain().compress_above(1_024),
        );
        let request = || match stream {
            true => ask("Hi").streamed(),
            false => ask("Hi"),
        };
        for service in [&plainly.0, &packed.0] {
            hear(service, request()).await;
        }
        // Compressed where nobody waits for it.
        while packed.1.stored() == 0 {
            tokio::task::yield_now().await;
        }
        let (less, more) = (packed.1.bytes(), plainly.1.bytes());
        assert!(
            less * 3 < more * 2,
            "{less} of {more} bytes, streamed: {stream}"
        );
        let one = chunks(
            send(&plainly.0, ask("Hi").streamed())
                .await
                .expect("a stream"),
        )
        .await;
        let other = send(&packed.0, ask("Hi").streamed())
            .await
            .expect("a stream");
        assert_eq!(other.head.origin, Origin::Cache);
        assert!(
            written(&chunks(other).await) == written(&one),
            "streamed: {stream}"
        );
        assert!(hear(&packed.0, ask("Hi")).await == hear(&plainly.0, ask("Hi")).await);
    }
}
