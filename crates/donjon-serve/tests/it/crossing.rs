//! Callers of one dialect, served by a provider of another.

use bytes::Bytes;
use donjon_core::CommitLayer;
use donjon_providers::{Gemini, Ollama, Provider};
use donjon_serve::Serve;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Layer;

use crate::support::{CHAT, post, read};

const GEMINI: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Let me see."},{"functionCall":{"name":"now","args":{"zone":"UTC"}},"thoughtSignature":"s"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":5,"thoughtsTokenCount":2},"modelVersion":"g-1","responseId":"r1"}"#;
const OLLAMA: &str = r#"{"model":"o-1","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":"Let me see.","tool_calls":[{"function":{"name":"now","arguments":{"zone":"UTC"}}}]},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":7}"#;

fn ask(stream: bool) -> String {
    json!({"model": "m", "stream": stream, "stream_options": stream.then(|| json!({"include_usage": true})),
        "messages": [{"role": "user", "content": "When?"}],
        "tools": [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]})
    .to_string()
}

fn check_call(call: &Value) {
    assert_eq!(call["type"], "function");
    assert!(
        call["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("call_"))
    );
    assert_eq!(
        call["function"],
        json!({"name": "now", "arguments": r#"{"zone":"UTC"}"#})
    );
}

macro_rules! crossing {
    ($codec:expr, $whole:expr, $stream:expr, $type:expr) => {
        for stream in [false, true] {
            let http = tower::service_fn(move |request: http::Request<Full<Bytes>>| async move {
                let sent = request
                    .into_body()
                    .collect()
                    .await
                    .expect("in memory")
                    .to_bytes();
                let sent: Value = serde_json::from_slice(&sent).expect("JSON");
                assert!(sent["tools"].is_array());
                let (kind, body) = match stream {
                    true => ($type, $stream),
                    false => ("application/json", $whole.to_owned()),
                };
                let response = http::Response::builder().header("content-type", kind);
                let body = Full::<Bytes>::from(body);
                Ok::<_, std::convert::Infallible>(response.body(body).expect("a response"))
            });
            let serve = Serve::new(CommitLayer::new().layer(Provider::new($codec, http)));
            let got = read(&serve, post(CHAT, ask(stream))).await;
            assert_eq!(got.status, 200);
            if !stream {
                let got = got.json();
                let choice = &got["choices"][0];
                assert_eq!(choice["finish_reason"], "tool_calls");
                assert_eq!(choice["message"]["content"], "Let me see.");
                check_call(&choice["message"]["tool_calls"][0]);
                let usage = &got["usage"];
                assert_eq!(
                    (&usage["prompt_tokens"], &usage["completion_tokens"]),
                    (&json!(9), &json!(7))
                );
                continue;
            }
            let told = got.events();
            assert_eq!(told.last().map(String::as_str), Some("[DONE]"));
            let events: Vec<Value> = told
                .iter()
                .filter_map(|event| serde_json::from_str(event).ok())
                .collect();
            let roles = events
                .iter()
                .filter(|e| !e["choices"][0]["delta"]["role"].is_null());
            assert_eq!(roles.count(), 1);
            let calls: Vec<_> = events
                .iter()
                .filter_map(|e| e["choices"][0]["delta"]["tool_calls"].as_array())
                .flatten()
                .collect();
            assert_eq!((calls.len(), &calls[0]["index"]), (1, &json!(0)));
            check_call(calls[0]);
            let ends: Vec<_> = events
                .iter()
                .filter_map(|e| e["choices"][0]["finish_reason"].as_str())
                .collect();
            assert_eq!(ends, ["tool_calls"]);
            assert_eq!(
                events.last().expect("usage")["usage"]["completion_tokens"],
                7
            );
        }
    };
}

#[tokio::test]
async fn openais_callers_served_by_gemini() {
    let codec = || Gemini::builder().api_key("k").build().expect("valid");
    crossing!(
        codec(),
        GEMINI,
        format!("data: {GEMINI}\n\n"),
        "text/event-stream"
    );
}

#[tokio::test]
async fn openais_callers_served_by_ollama() {
    let codec = || Ollama::builder().build().expect("valid");
    crossing!(
        codec(),
        OLLAMA,
        format!("{OLLAMA}\n"),
        "application/x-ndjson"
    );
}
