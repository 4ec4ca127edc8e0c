//! Requests that are refused before anybody is asked.

use serde_json::{Value, json};

use super::ask;
use crate::support::{CHAT, Gate, MESSAGES, OPENAI, chat, config, messages, steady};

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_with_the_name_of_the_field() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    let mut cases = vec![
        (CHAT, r#"{"model":"m","messages":["#.to_owned(), None),
        (CHAT, "[]".to_owned(), None),
        (CHAT, json!({"messages": []}).to_string(), Some("model")),
        (CHAT, json!({"model": "m"}).to_string(), Some("messages")),
        (
            CHAT,
            json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": "hot"})
                .to_string(),
            Some("temperature"),
        ),
        (
            CHAT,
            json!({"model": "m", "messages": [{"role": "user"}, {"role": 7}]}).to_string(),
            Some("messages[1].role"),
        ),
        (
            CHAT,
            json!({"model": "m", "messages": [], "stream": "yes"}).to_string(),
            Some("stream"),
        ),
        (MESSAGES, "{".to_owned(), None),
    ];
    let good: Value = serde_json::from_str(&messages(false)).expect("JSON");
    for (field, bad) in [
        ("model", Value::Null),
        ("messages", Value::Null),
        ("max_tokens", json!("many")),
        ("messages", json!("hello")),
        ("stream", json!("yes")),
    ] {
        let mut body = good.clone();
        match bad {
            Value::Null => drop(body.as_object_mut().and_then(|body| body.remove(field))),
            bad => body[field] = bad,
        }
        cases.push((MESSAGES, body.to_string(), Some(field)));
    }
    for (path, body, field) in cases {
        let answer = gate.post(path, body.clone()).await;
        let what = format!("{path} {body}: {}", answer.text());
        assert_eq!(answer.status, 400, "{what}");
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{what}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(field.is_none_or(|field| message.contains(field)), "{what}");
        if path == CHAT {
            assert_eq!(error["param"].as_str(), field, "{what}");
        }
    }
    assert_eq!(only.count(), 0);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let only = steady().await;
    let config = config(&[(OPENAI, &only)], 1, "[server]\nmax_body_bytes = 1000");
    let gate = Gate::open(&config).await;
    let long = "x".repeat(2000);
    for (path, kind) in [
        (CHAT, "invalid_request_error"),
        (MESSAGES, "request_too_large"),
    ] {
        let body = ask(path, false).replace("What is a donjon?", &long);
        let answer = gate.post(path, body).await;
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert_eq!(answer.json()["error"]["type"], kind, "{}", answer.text());
    }
    assert_eq!(only.count(), 0);
    assert_eq!(gate.post(CHAT, chat(false)).await.status, 200);
}

#[tokio::test]
async fn no_such_endpoint_and_no_such_method() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    let answer = gate.post("/v1/completions", chat(false)).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["code"], "unknown_url");
    let answer = gate.get(CHAT).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(only.count(), 0);
}
