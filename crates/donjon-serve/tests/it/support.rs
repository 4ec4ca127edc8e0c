//! Services to be served, and callers to ask them.

use std::{convert::Infallible, future::Ready, sync::Arc};

use bytes::Bytes;
use donjon_core::{Chunk, FinishReason, Head, LlmError, LlmRequest, LlmResponse, ResponseStream};
use donjon_serve::{Serve, ServeBody};
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tower::{Service, ServiceExt};

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const MESSAGES: &str = "/v1/messages";
pub(crate) const HELLO: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
pub(crate) const HELLO_STREAM: &str =
    r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;

type Answer = Result<LlmResponse, LlmError>;

/// A service that makes its answer of the request at once.
pub(crate) fn llm<F>(
    answer: F,
) -> impl Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future = Ready<Answer>>
+ Clone
+ Send
+ Sync
+ 'static
where
    F: Fn(LlmRequest) -> Answer + Clone + Send + Sync + 'static,
{
    tower::service_fn(move |request| std::future::ready(answer(request)))
}

/// A service that must not be asked.
pub(crate) fn nobody()
-> impl Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future = Ready<Answer>>
+ Clone
+ Send
+ Sync
+ 'static {
    llm(|_| panic!("the service is not to be asked"))
}

pub(crate) fn head() -> Head {
    Head::new("m-2024")
}

/// A stream of these chunks.
pub(crate) fn stream_of(chunks: impl IntoIterator<Item = Result<Chunk, LlmError>>) -> LlmResponse {
    let chunks: Vec<_> = chunks.into_iter().collect();
    LlmResponse::stream(head(), ResponseStream::new(1, stream::iter(chunks)))
}

/// A stream of what is sent into the channel.
pub(crate) fn stream_from(mut chunks: mpsc::UnboundedReceiver<Chunk>) -> LlmResponse {
    let chunks = stream::poll_fn(move |cx| chunks.poll_recv(cx).map(|chunk| chunk.map(Ok)));
    LlmResponse::stream(head(), ResponseStream::new(1, chunks))
}

/// An event as OpenAI sends it.
pub(crate) fn wire(json: &'static str) -> Chunk {
    Chunk::from_openai(Bytes::from_static(json.as_bytes())).expect("an OpenAI chunk")
}

pub(crate) fn hello_chunks() -> Vec<Result<Chunk, LlmError>> {
    vec![
        Ok(Chunk::role()),
        Ok(Chunk::text("hel")),
        Ok(Chunk::text("lo")),
        Ok(Chunk::finish(FinishReason::Stop)),
    ]
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Full::new(body.into())).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Read {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The data of its events, in their order.
    pub(crate) fn events(&self) -> Vec<String> {
        events(&self.body)
    }
}

/// The data of the events in `text`, names of events in front where there are any.
pub(crate) fn events(text: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with("\n\n"), "cut: {text:?}");
    let events = text.split_terminator("\n\n").map(|event| {
        let lines = event.lines().map(|line| {
            let line = line.strip_prefix("event: ").unwrap_or(line);
            line.strip_prefix("data: ").unwrap_or(line)
        });
        lines.collect::<Vec<_>>().join(" ")
    });
    events.collect()
}

pub(crate) async fn ask<S>(serve: &S, request: Request<Full<Bytes>>) -> Response<ServeBody>
where
    S: Service<Request<Full<Bytes>>, Response = Response<ServeBody>, Error = Infallible> + Clone,
{
    serve.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn read<S>(serve: &S, request: Request<Full<Bytes>>) -> Read
where
    S: Service<Request<Full<Bytes>>, Response = Response<ServeBody>, Error = Infallible> + Clone,
{
    read_out(ask(serve, request).await).await
}

pub(crate) async fn read_out(response: Response<ServeBody>) -> Read {
    let (head, body) = response.into_parts();
    Read {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Asks a service of these chunks for a stream, with `body`.
pub(crate) async fn read_stream(
    body: &'static str,
    chunks: impl Fn() -> Vec<Result<Chunk, LlmError>> + Clone + Send + Sync + 'static,
) -> Read {
    let serve = Serve::new(llm(move |_| Ok(stream_of(chunks()))));
    read(&serve, post(CHAT, body)).await
}

/// Tells when it is dropped.
#[derive(Clone)]
pub(crate) struct Guard {
    _gone: Arc<Gone>,
}

struct Gone(Option<oneshot::Sender<()>>);

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell.send(()).ok();
        }
    }
}

impl Guard {
    pub(crate) fn new() -> (Self, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let guard = Self {
            _gone: Arc::new(Gone(Some(tell))),
        };
        (guard, told)
    }
}
