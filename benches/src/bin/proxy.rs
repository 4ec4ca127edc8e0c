//! The least a proxy for `/v1/chat/completions` can do: `proxy --upstream URL [--listen ADDR]`.
//!
//! It parses the request, forwards it over a pooled connection, parses the answer and writes it out again; of a stream, each
//! event, with one write for all that are ready together. No retries, no timeouts, no limits.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints where it listens"
)]

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use donjon_benches::args::Args;
use futures_core::{Stream, ready};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sse_stream::SseStream;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::from_env(&[])?;
    let upstream: String = args.required("upstream")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .build(connector);
    let proxy = Proxy {
        client,
        url: format!("{}/chat/completions", upstream.trim_end_matches('/')).parse()?,
    };
    let app = Router::new()
        .route("/v1/chat/completions", post(chat))
        .with_state(proxy);
    let listener =
        TcpListener::bind(args.or("listen", SocketAddr::from(([127, 0, 0, 1], 0)))?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // Without it small writes wait for acknowledgements; a socket that refuses is served all the same.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await?;
    Ok(())
}

#[derive(Clone)]
struct Proxy {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
}

#[derive(Deserialize, Serialize)]
struct Chat {
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    stream: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A unary answer or a chunk of a streamed one.
#[derive(Deserialize, Serialize)]
struct Completion {
    id: String,
    object: String,
    created: u64,
    model: String,
    choices: Vec<Choice>,
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Choice {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message>,
    logprobs: Option<Value>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Value>,
}

#[derive(Deserialize, Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<Value>,
}

async fn chat(
    State(proxy): State<Proxy>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, (StatusCode, String)> {
    let chat: Chat = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let answer = proxy.send(&headers, &chat).await.map_err(bad_gateway)?;
    let status = answer.status();
    let streamed = chat.stream && status.is_success();
    let (kind, body) = if streamed {
        let events = Events {
            inner: SseStream::new(answer.into_body()),
            scratch: BytesMut::new(),
        };
        ("text/event-stream", Body::from_stream(events))
    } else {
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(bad_gateway)?
            .to_bytes();
        let value: Completion = serde_json::from_slice(&body).map_err(bad_gateway)?;
        (
            "application/json",
            Body::from(serde_json::to_vec(&value).map_err(bad_gateway)?),
        )
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

impl Proxy {
    async fn send(
        &self,
        headers: &HeaderMap,
        chat: &Chat,
    ) -> Result<Response<Incoming>, Box<dyn Error + Send + Sync>> {
        let body = Full::from(serde_json::to_vec(chat)?);
        let mut request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)?;
        if let Some(key) = headers.get(header::AUTHORIZATION) {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, key.clone());
        }
        Ok(self.client.request(request).await?)
    }
}

fn bad_gateway(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, error.to_string())
}

/// The events of a streamed answer, parsed and written again; an item holds all that were ready together.
struct Events {
    inner: SseStream<Incoming>,
    scratch: BytesMut,
}

impl Stream for Events {
    type Item = Result<Bytes, Box<dyn Error + Send + Sync>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { inner, scratch } = self.get_mut();
        loop {
            let event = match Pin::new(&mut *inner).poll_next(cx) {
                Poll::Ready(Some(event)) => event?,
                _ if !scratch.is_empty() => return Poll::Ready(Some(Ok(scratch.split().freeze()))),
                other => return Poll::Ready(ready!(other).map(|_| Ok(Bytes::new()))),
            };
            let Some(data) = event.data else { continue };
            scratch.put_slice(b"data: ");
            if data == "[DONE]" {
                scratch.put_slice(b"[DONE]");
            } else {
                let chunk: Completion = serde_json::from_str(&data)?;
                serde_json::to_writer((&mut *scratch).writer(), &chunk)?;
            }
            scratch.put_slice(b"\n\n");
        }
    }
}
