//! The places where the service is mounted.

use axum::Router;
use donjon_core::{BoxLlmService, ChatCompletion, LlmError, LlmRequest, LlmResponse};
use donjon_serve::Serve;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tower::ServiceExt;

use crate::support::{HELLO, HELLO_STREAM, head, hello_chunks, llm, post, stream_of};

fn answer(request: LlmRequest) -> Result<LlmResponse, LlmError> {
    Ok(match request.is_stream() {
        true => stream_of(hello_chunks()),
        false => LlmResponse::complete(head(), ChatCompletion::text("m", "hi")),
    })
}

#[tokio::test]
async fn nested_and_as_fallback_in_axum() {
    let router = Router::new()
        .nest_service("/llm", Serve::new(llm(answer)))
        .nest_service("/versioned/v1", Serve::new(BoxLlmService::new(llm(answer))))
        .route("/own", axum::routing::get(|| async { "own" }))
        .fallback_service(Serve::new(llm(answer)));
    for path in [
        "/llm/v1/chat/completions",
        "/llm/chat/completions",
        "/versioned/v1/chat/completions",
        "/v1/chat/completions",
    ] {
        for (body, part) in [(HELLO, "\"hi\""), (HELLO_STREAM, "[DONE]")] {
            let response = router.clone().oneshot(post(path, body)).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body = std::str::from_utf8(&body).unwrap();
            assert!(body.contains(part), "{body}");
        }
    }
}

#[tokio::test]
async fn in_hyper_over_a_duplex_pipe() {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let service = TowerToHyperService::new(Serve::new(llm(answer)));
    tokio::spawn(async move {
        let http = auto::Builder::new(TokioExecutor::new());
        http.serve_connection(TokioIo::new(server), service)
            .await
            .ok();
    });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .unwrap();
    tokio::spawn(connection);
    for (body, part) in [(HELLO, "\"hi\""), (HELLO_STREAM, "[DONE]")] {
        let mut request = post("/v1/chat/completions", body);
        request.headers_mut().insert("host", "x".parse().unwrap());
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers().contains_key("content-length"),
            body == HELLO
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(std::str::from_utf8(&body).unwrap().contains(part));
    }
}

#[test]
fn is_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn check_send<T: Send>(_: &T) {}
    let serve = Serve::new(llm(answer));
    check(&serve);
    let mut boxed = Serve::new(BoxLlmService::new(llm(answer)));
    check(&boxed);
    check_send(&tower::Service::<http::Request<Full<bytes::Bytes>>>::call(
        &mut boxed,
        post("/", ""),
    ));
}
