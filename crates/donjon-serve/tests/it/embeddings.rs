//! Embeddings at `/v1/embeddings`.

use donjon_core::{ChatCompletion, CommitLayer, LlmError, LlmRequest, LlmResponse};
use donjon_providers::{Ollama, OpenAi, Provider};
use donjon_serve::Serve;
use http_body_util::Full;
use serde_json::{Value, json};
use tower::Layer;

use crate::support::{head, llm, nobody, post, read};

const EMBEDDINGS: &str = "/v1/embeddings";

type Answer = http::Response<Full<bytes::Bytes>>;

async fn answer(status: u16, body: &'static str) -> Result<Answer, std::convert::Infallible> {
    let response = http::Response::builder().status(status);
    Ok(response.body(Full::from(body)).expect("a response"))
}

#[tokio::test]
async fn as_numbers_or_in_base64() {
    let codec = OpenAi::compatible("http://h/v1").build().expect("valid");
    let http = tower::service_fn(|request: http::Request<Full<bytes::Bytes>>| {
        assert_eq!(request.uri(), "http://h/v1/embeddings");
        answer(
            200,
            r#"{"data":[{"index":0,"embedding":[0.5,-1]}],"model":"e-1","usage":{"prompt_tokens":3,"total_tokens":3}}"#,
        )
    });
    let serve = Serve::new(CommitLayer::new().layer(Provider::new(codec, http)));
    for (format, vector) in [
        ("float", json!([0.5, -1.0])),
        ("base64", json!("AAAAPwAAgL8=")),
    ] {
        let body = json!({"model": "e", "input": "hi", "encoding_format": format}).to_string();
        let got = read(&serve, post(EMBEDDINGS, body)).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.header("x-donjon-model"), Some("e-1"));
        assert_eq!(
            got.json(),
            json!({"object": "list", "model": "e-1", "usage": {"prompt_tokens": 3, "total_tokens": 3},
                "data": [{"object": "embedding", "index": 0, "embedding": vector}]})
        );
    }
}

#[tokio::test]
async fn of_a_provider_with_other_words() {
    let codec = Ollama::builder().build().expect("valid");
    let http = tower::service_fn(|_: http::Request<Full<bytes::Bytes>>| {
        answer(200, r#"{"embeddings":[[1],[2]],"prompt_eval_count":4}"#)
    });
    let serve = Serve::new(CommitLayer::new().layer(Provider::new(codec, http)));
    let body = r#"{"model":"e","input":["a","b"],"user":"u"}"#;
    let got = read(&serve, post("/embeddings", body)).await.json();
    assert_eq!(
        got["data"][1],
        json!({"object": "embedding", "index": 1, "embedding": [2.0]})
    );
    assert_eq!(
        (&got["model"], &got["usage"]["total_tokens"]),
        (&json!("e"), &json!(4))
    );
}

#[tokio::test]
async fn errors_are_told_in_openais_words() {
    let codec = Ollama::builder().build().expect("valid");
    let http = tower::service_fn(|_: http::Request<Full<bytes::Bytes>>| {
        answer(404, r#"{"error":"model 'e' not found"}"#)
    });
    let serve = Serve::new(CommitLayer::new().layer(Provider::new(codec, http)));
    let got = read(&serve, post(EMBEDDINGS, r#"{"model":"e","input":"a"}"#)).await;
    assert_eq!(got.status, 404);
    assert_eq!(got.json()["error"]["code"], "model_not_found");
    let serve = Serve::new(nobody());
    for (body, field) in [
        (r#"{"input":"a"}"#, json!("model")),
        (r#"{"model":"e"}"#, json!("input")),
        (r#"{"model":"e","input":[]}"#, json!("input")),
        (r#"{"model":"e","input":{}}"#, json!("input")),
        (
            r#"{"model":"e","input":"a","encoding_format":"x"}"#,
            json!("encoding_format"),
        ),
        ("[", Value::Null),
    ] {
        let got = read(&serve, post(EMBEDDINGS, body)).await;
        assert_eq!(
            (got.status.as_u16(), &got.json()["error"]["param"]),
            (400, &field),
            "{body}"
        );
    }
    let serve = Serve::new(llm(|request: LlmRequest| {
        assert_eq!(request.identity().user.as_deref(), Some("u"));
        let chat = ChatCompletion::text("m", "no vectors");
        Ok::<_, LlmError>(LlmResponse::complete(head(), chat))
    }));
    let body = r#"{"model":"e","input":"a","user":"u"}"#;
    assert_eq!(read(&serve, post(EMBEDDINGS, body)).await.status, 500);
}
