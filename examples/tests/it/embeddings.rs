//! Embeddings through the same layers as chats.

use donjon_testkit::upstream::{Failure, Script};
use serde_json::json;

use crate::support::{Gate, OPENAI, config, steady, upstream};

const EMBEDDINGS: &str = "/v1/embeddings";
const BODY: &str = r#"{"model":"e-1","input":["a","keep"]}"#;

#[tokio::test]
async fn are_retried_and_then_asked_of_the_next_target() {
    let first = upstream([Failure::server_error(), Failure::overloaded()]).await;
    let second = steady().await;
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let gate = Gate::open(&config(&targets, 2, "")).await;
    let answer = gate.post(EMBEDDINGS, BODY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((first.count(), second.count()), (2, 1));
    assert_eq!(answer.header("x-donjon-target"), Some("t1"));
    assert_eq!(answer.header("x-donjon-attempts"), Some("3"));
    let got = answer.json();
    assert_eq!(got["data"][1]["embedding"], json!([4.0, 1.0]));
    assert_eq!(got["usage"]["prompt_tokens"], 12);
}

#[tokio::test]
async fn are_bounded_by_the_clock_of_whole_answers() {
    let first = upstream([Script::hang()]).await;
    let second = steady().await;
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let limit = "[timeout]\nresponse = \"50ms\"";
    let gate = Gate::open(&config(&targets, 1, limit)).await;
    let answer = gate.post(EMBEDDINGS, BODY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-donjon-target"), Some("t1"));
}

#[tokio::test]
async fn are_asked_of_a_target_that_makes_them() {
    let chats = steady().await;
    let second = steady().await;
    let targets = [("gemini", &chats), (OPENAI, &second)];
    let gate = Gate::open(&config(&targets, 1, "")).await;
    let answer = gate.post(EMBEDDINGS, BODY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((chats.count(), second.count()), (0, 1));
    assert_eq!(answer.header("x-donjon-attempts"), Some("1"));
}
