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
    let mut items: Vec<Item> = (0..200).map(|_| chunk(Chunk::text(""))).collect();
    items.push(None);
    let (result, polls) = commit(items);
    assert!(result.is_ok());
    assert_eq!(polls, 1, "64 events commit without an end in sight");

    let layer = CommitLayer::new().reasoning_commits(false);
    let mut big = ChoiceDelta::default();
    big.reasoning = Some("x".repeat(300 * 1024).into());
    let (result, polls, _) = commit_with(layer, 1, vec![chunk(Chunk::new([big])), None]);
    assert!(result.is_ok());
    assert_eq!(polls, 1, "256 KiB commit");
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
