//! Whole answers.

use std::time::{Duration, SystemTime};

use donjon_core::{
    ChatCompletion, Embeddings, Identity, LlmRequest, LlmResponse, Origin, Usage, WallClock,
};
use donjon_providers::{anthropic, openai};
use donjon_serve::Serve;
use serde_json::{Value, json};

use crate::support::{CHAT, HELLO, MESSAGES, head, hello_chunks, llm, post, read, stream_of};

#[tokio::test]
async fn says_who_served_and_passes_the_answer_on() {
    let serve = Serve::new(llm(|mut request: LlmRequest| {
        assert_eq!(&**request.model(), "m");
        assert!(!request.is_stream());
        request
            .call
            .open_attempt(donjon_core::AttemptCause::Retry)
            .stamp_sent();
        request
            .call
            .open_attempt(donjon_core::AttemptCause::Retry)
            .stamp_sent();
        let answer = r#"{"id":"c1","object":"chat.completion","created":5,"model":"m-2024",
            "choices":[{"index":0,"message":{"role":"assistant","content":"hi","annotations":[]},
            "finish_reason":"stop"}],"system_fingerprint":"fp"}"#;
        let answer: ChatCompletion = serde_json::from_str(answer).unwrap();
        let mut head = head();
        head.target = Some("spare".into());
        head.origin = Origin::Cache;
        head.age = 7;
        Ok(LlmResponse::complete(head, answer))
    }));
    let answer = read(&serve, post(CHAT, HELLO)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-donjon-target"), Some("spare"));
    assert_eq!(answer.header("x-donjon-model"), Some("m-2024"));
    assert_eq!(answer.header("x-donjon-origin"), Some("cache"));
    assert_eq!(answer.header("age"), Some("7"));
    assert_eq!(answer.header("x-donjon-attempts"), Some("2"));
    assert_eq!(answer.header("x-should-retry"), None);
    let answer = answer.json();
    assert_eq!(answer["id"], "c1");
    assert_eq!(answer["choices"][0]["message"]["annotations"], json!([]));
    assert_eq!(answer["system_fingerprint"], "fp");
    assert!(answer.get("usage").is_none());
}

const OPENAI: &str = r#"{"id":"c1", "choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"odd":1.50}"#;
const ANTHROPIC: &str = r#"{"id":"msg_1","model":"c", "content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","odd":1.50}"#;

#[tokio::test]
async fn an_answer_in_the_callers_dialect_goes_out_as_it_came_and_another_is_translated() {
    let openai = Serve::new(llm(|_| {
        let answer = openai::completion_from_json(OPENAI.into())?;
        Ok(LlmResponse::complete(head(), answer))
    }));
    let anthropic = Serve::new(llm(|_| {
        let answer = anthropic::completion_from_json(ANTHROPIC.into())?;
        Ok(LlmResponse::complete(head(), answer))
    }));
    assert_eq!(read(&openai, post(CHAT, HELLO)).await.body, OPENAI);
    assert_eq!(
        read(&anthropic, post(MESSAGES, HELLO)).await.body,
        ANTHROPIC
    );
    let answer = read(&openai, post(MESSAGES, HELLO)).await.json();
    assert_eq!(answer["content"][0]["text"], "hi");
    let answer = read(&anthropic, post(CHAT, HELLO)).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "hi");
    assert_eq!(answer["id"], "msg_1");
}

#[tokio::test]
async fn what_the_provider_left_out_is_filled_in() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(77);
    let serve = Serve::builder(llm(|_| {
        let mut answer = ChatCompletion::text("x", "hi");
        answer.model = None;
        Ok(LlmResponse::complete(head(), answer))
    }));
    let serve = serve.wall_clock(WallClock::fixed(at)).build().unwrap();
    let answer = read(&serve, post(CHAT, HELLO)).await.json();
    assert_eq!(answer["model"], "m-2024");
    assert_eq!(answer["created"], 77);
    let id = answer["id"].as_str().unwrap();
    assert!(id.starts_with("chatcmpl-") && id.len() == 33, "{id}");
    assert_ne!(read(&serve, post(CHAT, HELLO)).await.json()["id"], id);
}

#[tokio::test]
async fn a_service_that_streams_all_the_same_is_folded() {
    let serve = Serve::new(llm(|_| {
        let mut chunks = hello_chunks();
        chunks.push(Ok(donjon_core::Chunk::usage(Usage::new(1, 2))));
        Ok(stream_of(chunks))
    }));
    let answer = read(&serve, post(CHAT, HELLO)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = answer.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "hello");
    assert_eq!(answer["usage"]["total_tokens"], 3);

    let serve = Serve::new(llm(|_| Ok(stream_of(hello_chunks().into_iter().take(2)))));
    let answer = read(&serve, post(CHAT, HELLO)).await;
    assert_eq!(answer.status, 502, "a stream that was cut is no answer");
    assert_eq!(answer.json()["error"]["code"], "incomplete_response");
}

#[tokio::test]
async fn an_answer_to_something_else_is_an_error_of_ours() {
    let serve = Serve::new(llm(|_| {
        Ok(LlmResponse::complete(head(), Embeddings::default()))
    }));
    assert_eq!(read(&serve, post(CHAT, HELLO)).await.status, 500);
}

async fn identity_of(body: &'static str, closure: bool) -> Value {
    let llm = llm(|request: LlmRequest| {
        let Identity { tenant, user, .. } = &**request.identity();
        let text = json!([tenant.as_deref(), user.as_deref()]).to_string();
        let answer = ChatCompletion::text("m", text);
        Ok(LlmResponse::complete(head(), answer))
    });
    let serve = match closure {
        false => Serve::new(llm),
        true => Serve::builder(llm)
            .identity(|parts| {
                let header = |name| parts.headers.get(name).map(|v| v.to_str().unwrap());
                let identity = Identity::builder().tenant(header("x-tenant").unwrap());
                match header("x-user") {
                    Some(user) => identity.user(user).build(),
                    None => identity.build(),
                }
            })
            .build()
            .unwrap(),
    };
    let path = match body.contains("user_id") {
        true => MESSAGES,
        false => CHAT,
    };
    let mut request = post(path, body);
    let headers = request.headers_mut();
    headers.insert("x-tenant", "castle".parse().unwrap());
    if body == HELLO {
        headers.insert("x-user", "guard".parse().unwrap());
    }
    let answer = read(&serve, request).await.json();
    let text = match path {
        MESSAGES => &answer["content"][0]["text"],
        _ => &answer["choices"][0]["message"]["content"],
    };
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn identity_from_the_head_and_the_user_from_the_body() {
    const WITH_USER: &str = r#"{"model":"m","user":"cook","messages":[]}"#;
    assert_eq!(identity_of(HELLO, false).await, json!([null, null]));
    assert_eq!(identity_of(WITH_USER, false).await, json!([null, "cook"]));
    assert_eq!(identity_of(HELLO, true).await, json!(["castle", "guard"]));
    assert_eq!(
        identity_of(WITH_USER, true).await,
        json!(["castle", "cook"])
    );
}

#[tokio::test]
async fn a_user_may_have_a_name_that_json_escapes() {
    const ESCAPED: &str = r#"{"model":"m","user":"J\u00fcrgen","messages":[]}"#;
    assert_eq!(identity_of(ESCAPED, false).await, json!([null, "Jürgen"]));
    const QUOTED: &str = r#"{"model":"m","max_tokens":9,"metadata":{"user_id":"{\"id\":\"a b\"}"},
        "messages":[{"role":"user","content":"hello"}]}"#;
    assert_eq!(
        identity_of(QUOTED, false).await,
        json!([null, "{\"id\":\"a b\"}"])
    );
}

#[tokio::test]
async fn cache_control_says_what_is_asked_of_a_cache() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let serve = Serve::new(llm(move |request| {
        seen.lock().unwrap().push(*request.cache());
        Ok(LlmResponse::complete(
            head(),
            ChatCompletion::text("m", "hi"),
        ))
    }));
    for said in [
        None,
        Some("no-cache"),
        Some("no-store, max-age=60"),
        Some("max-age=soon"),
    ] {
        let mut request = post(CHAT, HELLO);
        if let Some(said) = said {
            let said = said.parse().unwrap();
            request.headers_mut().insert("cache-control", said);
        }
        assert_eq!(read(&serve, request).await.header("age"), None);
    }
    let asked = asked.lock().unwrap();
    let flags: Vec<_> = asked
        .iter()
        .map(|it| (it.no_cache, it.no_store, it.max_age))
        .collect();
    let minute = std::time::Duration::from_secs(60);
    assert_eq!(
        flags,
        [
            (false, false, None),
            (true, false, None),
            (false, true, Some(minute)),
            (false, false, None),
        ]
    );
}
