//! A call resolves at its commit point, and not before.

use std::sync::Arc;

use donjon_core::{
    Billed, ChatCompletion, Choice, ChoiceDelta, Chunk, CommitLayer, Delta, ErrorKind,
    FinishReason, Head, LlmError, LlmRequest, LlmResponse, Message, ResponseStream, Role,
};
use futures_util::StreamExt;
use tokio_test::task::spawn;
use tower::{Layer, Service, service_fn};

use crate::{DeltaText, Items};

type Item = Option<Result<Chunk, LlmError>>;

fn chunk(chunk: Chunk) -> Item {
    Some(Ok(chunk))
}

/// The outcome of a call whose stream has these items, and how many polls it took.
fn commit_with(
    layer: CommitLayer,
    choices: u32,
    items: Vec<Item>,
) -> (Result<LlmResponse, LlmError>, usize, LlmRequest) {
    let mut request = LlmRequest::chat("m", []).streamed();
    request.call.begin();
    let items = std::sync::Mutex::new(Some(items));
    let items = Arc::new(items);
    let mut service = layer.layer(service_fn(move |_: LlmRequest| {
        let items = items.lock().expect("no panic").take().unwrap_or_default();
        let stream = ResponseStream::new(choices, Items(items));
        std::future::ready(Ok::<_, LlmError>(LlmResponse::stream(
            Head::new("m"),
            stream,
        )))
    }));
    let mut call = spawn(service.call(request.clone()));
    for polls in 1.. {
        if let std::task::Poll::Ready(result) = call.poll() {
            return (result, polls, request);
        }
        assert!(polls < 1000, "it must commit some time");
    }
    unreachable!("the loop ends")
}

fn commit(items: Vec<Item>) -> (Result<LlmResponse, LlmError>, usize) {
    let (result, polls, _) = commit_with(CommitLayer::new(), 1, items);
    (result, polls)
}

async fn texts(response: LlmResponse) -> Vec<String> {
    let donjon_core::Body::Stream(stream) = response.body else {
        unreachable!("it is a stream");
    };
    stream
        .map(|item| item.map_or_else(|e| e.kind().to_string(), |c| c.delta_text()))
        .collect()
        .await
}

#[tokio::test]
async fn roles_empty_texts_pings_and_bare_usage_do_not_commit() {
    let (result, polls) = commit(vec![
        chunk(Chunk::role()),
        None,
        chunk(Chunk::text("")),
        None,
        chunk(Chunk::ping()),
        chunk(Chunk::usage(donjon_core::Usage::new(1, 0))),
        None,
        chunk(Chunk::text("hi")),
        chunk(Chunk::ping()),
        chunk(Chunk::finish(FinishReason::Stop)),
    ]);
    assert_eq!(polls, 4, "each wait was before the commit point");
    let texts = texts(result.expect("it commits")).await;
    assert_eq!(
        texts,
        ["", "", "", "hi", ""],
        "pings are dropped, all else is replayed in order"
    );
}

#[tokio::test]
async fn whatever_shows_something_commits() {
    let mut unknown = Delta::default();
    unknown.unknown = true;
    let audio = r#"{"choices":[{"index":0,"delta":{"audio":{"id":"a"}}}]}"#;
    let refusal = r#"{"choices":[{"index":0,"delta":{"refusal":"no"}}]}"#;
    let tool = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]}"#;
    let new = r#"{"choices":[{"index":0,"delta":{"hologram":"h"}}]}"#;
    let reasoning = r#"{"choices":[{"index":0,"delta":{"reasoning":"hm"}}]}"#;
    let read = |json: &'static str| Chunk::from_openai(json).expect("valid");
    for shows in [
        Chunk::from(unknown),
        read(audio),
        read(refusal),
        read(tool),
        read(new),
        read(reasoning),
        Chunk::finish(FinishReason::Stop),
        Chunk::new([ChoiceDelta::text(1, "second choice")]),
    ] {
        let (result, polls) = commit(vec![chunk(Chunk::role()), chunk(shows.clone()), None]);
        assert!(result.is_ok() && polls == 1, "{shows:?} commits at once");
    }
    let blank = r#"{"choices":[{"index":0,"delta":{"audio":null,"content":null,"x":""}}]}"#;
    let (result, polls) = commit(vec![chunk(read(blank)), None, chunk(Chunk::text("x"))]);
    assert!(result.is_ok() && polls == 2, "what is blank shows nothing");
}

#[tokio::test]
async fn hidden_reasoning_can_be_held_back() {
    let reasoning = r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#;
    let reasoning = Chunk::from_openai(reasoning).expect("valid");
    let layer = CommitLayer::new().reasoning_commits(false);
    let items = vec![chunk(reasoning), None, chunk(Chunk::text("x"))];
    let (result, polls, _) = commit_with(layer, 1, items);
    assert!(result.is_ok());
    assert_eq!(polls, 2);
}

#[tokio::test]
async fn a_failure_before_the_commit_point_is_an_err() {
    let cut = LlmError::new(ErrorKind::StreamBroken, "cut");
    let (result, _) = commit(vec![chunk(Chunk::role()), Some(Err(cut))]);
    assert_eq!(result.expect_err("cut").kind(), ErrorKind::StreamBroken);
    let (result, _) = commit(vec![chunk(Chunk::role())]);
    assert_eq!(result.expect_err("cut").kind(), ErrorKind::Incomplete);
}

#[tokio::test]
async fn a_withheld_answer_is_a_content_policy_error() {
    let filtered = Chunk::finish(FinishReason::ContentFilter);
    let (result, _) = commit(vec![chunk(Chunk::role()), chunk(filtered.clone())]);
    assert_eq!(
        result.expect_err("withheld").kind(),
        ErrorKind::ContentPolicy
    );

    let (result, _) = commit(vec![chunk(Chunk::text("some")), chunk(filtered.clone())]);
    assert!(result.is_ok(), "something was shown");

    let other = Chunk::new([ChoiceDelta::text(1, "shown")]);
    let (result, _, _) = commit_with(CommitLayer::new(), 2, vec![chunk(filtered), chunk(other)]);
    assert!(result.is_ok(), "another choice shows something");

    let mut answer = ChatCompletion::text("m", "");
    let message = Message::new(Role::Assistant, "");
    answer.choices = vec![Choice::new(0, message, FinishReason::ContentFilter)];
    let mut service = CommitLayer::new().layer(service_fn(move |_: LlmRequest| {
        let response = LlmResponse::complete(Head::new("m"), answer.clone());
        std::future::ready(Ok::<_, LlmError>(response))
    }));
    let result = service.call(LlmRequest::chat("m", [])).await;
    assert_eq!(
        result.expect_err("withheld").kind(),
        ErrorKind::ContentPolicy
    );
}

#[tokio::test]
async fn what_is_held_back_is_bounded() {
    // How many polls it takes when a wait follows each of these counts of events.
    let empty = || chunk(Chunk::text(""));
    for (events, polls) in [(63, 2), (64, 1)] {
        let mut items: Vec<Item> = (0..events).map(|_| empty()).collect();
        items.push(None);
        items.push(chunk(Chunk::text("x")));
        let (result, took) = commit(items);
        assert!(result.is_ok());
        assert_eq!(took, polls, "{events} events");
    }
    for (size, polls) in [(256 * 1024 - 1, 2), (256 * 1024, 1)] {
        let layer = CommitLayer::new().reasoning_commits(false);
        let mut big = ChoiceDelta::default();
        big.reasoning = Some("x".repeat(size).into());
        let items = vec![chunk(Chunk::new([big])), None, chunk(Chunk::text("x"))];
        let (result, took, _) = commit_with(layer, 1, items);
        assert!(result.is_ok());
        assert_eq!(took, polls, "{size} bytes");
    }
}

#[tokio::test]
async fn what_is_no_text_commits_and_survives() {
    let image = r#"{"choices":[{"index":0,"delta":{"content":[{"type":"image","data":"AA"}]}}]}"#;
    let image = Chunk::from_openai(image).expect("valid");
    let (result, polls) = commit(vec![chunk(image.clone()), None]);
    assert!(result.is_ok() && polls == 1);
    assert!(image.choices[0].extra.get("content").is_some());
    let texts = r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"a"}]}}]}"#;
    assert_eq!(Chunk::from_openai(texts).expect("valid").delta_text(), "a");
}

#[tokio::test]
async fn a_choice_that_is_filtered_twice_does_not_speak_for_the_other() {
    let filtered = || chunk(Chunk::finish(FinishReason::ContentFilter));
    let other = chunk(Chunk::new([ChoiceDelta::text(1, "shown")]));
    let items = vec![filtered(), filtered(), other];
    let (result, _, _) = commit_with(CommitLayer::new(), 2, items);
    assert!(result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_time_to_first_token_runs_from_sending() {
    let wait = std::time::Duration::from_secs(5);
    let mut service = CommitLayer::new().layer(service_fn(move |_: LlmRequest| {
        // The headers come at once, the first token later.
        let stream = futures_util::stream::once(async move {
            tokio::time::sleep(wait).await;
            Ok(Chunk::text("x"))
        });
        let stream = ResponseStream::new(1, stream);
        std::future::ready(Ok::<_, LlmError>(LlmResponse::stream(
            Head::new("m"),
            stream,
        )))
    }));
    let mut request = LlmRequest::chat("m", []).streamed();
    let ledger = request.call.begin().clone();
    drop(service.call(request.clone()).await.expect("it commits"));
    let attempt = ledger.attempts().next().expect("one attempt");
    assert_eq!(attempt.time_to_first_token(), Some(wait));
    assert_eq!(attempt.dropped, Some(donjon_core::DropReason::CallerLeft));

    // Dropped before the first token it was sent all the same.
    let ledger = request.call.begin().clone();
    let call = tokio::time::timeout(wait / 2, service.call(request)).await;
    assert!(call.is_err());
    assert_eq!(ledger.sent(), 2);
    let attempt = ledger.attempts().last().expect("another attempt");
    assert!(attempt.ended_at.is_some() && attempt.dropped.is_some());
}

#[tokio::test]
async fn the_head_tells_the_model_that_served() {
    let json = r#"{"id":"c1","model":"served","choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let (result, _) = commit(vec![chunk(Chunk::from_openai(json).expect("valid"))]);
    let head = result.expect("it commits").head;
    assert_eq!(&*head.model, "served");
    assert_eq!(head.id.as_deref(), Some("c1"));
}

#[tokio::test]
async fn the_ledger_is_stamped() {
    let items = vec![
        chunk(Chunk::text("x")),
        chunk(Chunk::finish(FinishReason::Stop)),
        chunk(Chunk::usage(donjon_core::Usage::new(5, 6))),
    ];
    let (result, _, request) = commit_with(CommitLayer::new(), 1, items);
    let ledger = request.call.ledger().expect("it began").clone();
    let attempt = ledger.attempts().next().expect("one attempt");
    assert!(attempt.sent_at.is_some() && attempt.committed_at.is_some());
    assert!(attempt.ended_at.is_none(), "the stream has not ended");
    assert_eq!((ledger.sent(), attempt.billed), (1, Billed::Yes));
    result
        .expect("it commits")
        .collect()
        .await
        .expect("it ends");
    let attempt = ledger.attempts().next().expect("one attempt");
    assert!(attempt.ended_at.is_some());
    assert_eq!(attempt.usage, donjon_core::Usage::new(5, 6));
}

#[tokio::test]
async fn a_call_refused_on_our_side_was_never_sent() {
    for (kind, sent) in [(ErrorKind::CircuitOpen, 0), (ErrorKind::ServerError, 1)] {
        let mut service = CommitLayer::new().layer(service_fn(move |_: LlmRequest| {
            std::future::ready(Err::<LlmResponse, _>(LlmError::new(kind, "")))
        }));
        let mut request = LlmRequest::chat("m", []);
        let ledger = request.call.begin().clone();
        assert!(service.call(request).await.is_err());
        assert_eq!(ledger.sent(), sent);
        let attempt = ledger.attempts().next().expect("one attempt");
        assert_eq!(attempt.error.map(|e| e.kind()), Some(kind));
    }
}
