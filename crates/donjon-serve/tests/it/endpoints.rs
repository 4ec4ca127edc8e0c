//! Every path, and the ones there are not.

use std::sync::Arc;

use donjon_core::{ChatCompletion, Figure, LlmResponse, Snapshot};
use donjon_serve::Serve;
use serde_json::json;

use crate::support::{CHAT, HELLO, MESSAGES, Read, get, head, llm, nobody, post, read};

fn answers() -> impl Fn(donjon_core::LlmRequest) -> Result<LlmResponse, donjon_core::LlmError> + Copy
{
    |_| {
        let completion = ChatCompletion::text("m-2024", "hi");
        Ok(LlmResponse::complete(head(), completion))
    }
}

#[tokio::test]
async fn with_and_without_prefix_and_version() {
    let serve = Serve::new(llm(answers()));
    for path in [CHAT, "/chat/completions"] {
        assert_eq!(read(&serve, post(path, HELLO)).await.status, 200, "{path}");
    }
    let serve = Serve::builder(llm(answers())).prefix("/llm");
    let serve = serve.build().unwrap();
    for (path, status) in [
        ("/llm/v1/chat/completions", 200),
        ("/llm/chat/completions", 200),
        (CHAT, 404),
    ] {
        let answer = read(&serve, post(path, HELLO)).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_both_dialects() {
    let serve = Serve::new(nobody());
    let answer = read(&serve, get("/v2/chat")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json(),
        json!({"error": {
            "message": "there is no GET /v2/chat",
            "type": "invalid_request_error",
            "param": null,
            "code": "unknown_url",
        }})
    );
    let mut request = get("/v2/chat");
    let headers = request.headers_mut();
    headers.insert("anthropic-version", "2023-06-01".parse().unwrap());
    let answer = read(&serve, request).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json(),
        json!({"type": "error", "error": {
            "type": "not_found_error",
            "message": "there is no GET /v2/chat",
        }})
    );

    let answer = read(&serve, get(CHAT)).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    let answer = read(&serve, get(MESSAGES)).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    assert_eq!(answer.json()["type"], "error");
    let answer = read(&serve, post("/health", "")).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn models_in_both_dialects() {
    let serve = Serve::builder(nobody()).models(["gpt-4o", "meta/llama"]);
    let serve = serve.build().unwrap();
    let list = read(&serve, get("/v1/models")).await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][1]["id"], "meta/llama");
    assert_eq!(list["data"][1]["object"], "model");
    let one = read(&serve, get("/v1/models/meta%2Fllama")).await;
    assert_eq!(one.json()["id"], "meta/llama");
    let none = read(&serve, get("/v1/models/other")).await;
    assert_eq!(none.status, 404);
    assert_eq!(none.json()["error"]["code"], "model_not_found");

    let mut request = get("/v1/models");
    let headers = request.headers_mut();
    headers.insert("anthropic-version", "2023-06-01".parse().unwrap());
    let list = read(&serve, request).await.json();
    assert_eq!(list["data"][0]["type"], "model");
    assert_eq!(list["first_id"], "gpt-4o");
    assert_eq!(list["last_id"], "meta/llama");
    assert_eq!(list["has_more"], false);
}

struct Keep {
    well: bool,
}

impl Snapshot for Keep {
    fn layer(&self) -> &'static str {
        "keep"
    }

    fn figures(&self) -> Vec<Figure> {
        vec![Figure::counter("sieges", 7).label("side", "north")]
    }

    fn health(&self) -> Result<(), String> {
        match self.well {
            true => Ok(()),
            false => Err("the wall is down".into()),
        }
    }
}

async fn probe(keep: Keep, path: &str) -> Read {
    let serve = Serve::builder(nobody()).snapshot(Arc::new(keep));
    read(&serve.build().unwrap(), get(path)).await
}

#[tokio::test]
async fn readiness_asks_every_layer_and_liveness_none() {
    let answer = probe(Keep { well: true }, "/health/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"status": "ok", "layers": []}));
    let answer = probe(Keep { well: false }, "/health/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({"status": "unavailable", "layers": [
            {"layer": "keep", "reason": "the wall is down"},
        ]})
    );
    let answer = probe(Keep { well: false }, "/health/live").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn the_report_has_the_figures() {
    let figures = json!([
        {"name": "sieges", "kind": "counter", "labels": {"side": "north"}, "value": 7.0},
    ]);
    let answer = probe(Keep { well: true }, "/health").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.json(),
        json!({"status": "ok", "layers": [
            {"layer": "keep", "reason": null, "figures": figures},
        ]})
    );
    let answer = probe(Keep { well: false }, "/health").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["layers"][0]["figures"], figures);
}
