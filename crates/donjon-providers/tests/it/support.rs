//! An http service that answers by itself, and what there is to answer with.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use donjon_core::{Chunk, LlmError, LlmRequest, LlmResponse, Message};
use donjon_providers::{Anthropic, Codec, OpenAi, Provider};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use proptest::prelude::*;
use serde_json::Value;
use tower::{ServiceExt, util::BoxCloneService};

pub(crate) type TestBody = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Http = BoxCloneService<Request<Full<Bytes>>, Response<TestBody>, Infallible>;
pub(crate) type Seen = Arc<Mutex<Vec<Request<Bytes>>>>;

/// Answers every request with what `answer` makes.
pub(crate) fn http(answer: impl Fn() -> Response<TestBody> + Clone + Send + 'static) -> Http {
    watched(answer).0
}

/// The same, and the requests that it saw.
pub(crate) fn watched(
    answer: impl Fn() -> Response<TestBody> + Clone + Send + 'static,
) -> (Http, Seen) {
    let seen = Seen::default();
    let log = seen.clone();
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (log, answer) = (log.clone(), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("in memory").to_bytes();
            log.lock()
                .expect("no panic")
                .push(Request::from_parts(parts, body));
            Ok(answer())
        }
    });
    (BoxCloneService::new(service), seen)
}

pub(crate) fn whole(status: u16, body: impl Into<Bytes>) -> Response<TestBody> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .expect("a response")
}

/// A body of these packets, that breaks off after them where `broken`, and does not end where
/// `open`.
pub(crate) fn packets(packets: Vec<Bytes>, end: End) -> TestBody {
    let packets = packets.into_iter().map(|packet| Ok(Frame::data(packet)));
    let frames = futures_util::stream::iter(packets);
    match end {
        End::Whole => BodyExt::boxed_unsync(StreamBody::new(frames)),
        End::Broken => {
            let reset = io::Error::from(io::ErrorKind::ConnectionReset);
            let cut = futures_util::stream::iter([Err(reset)]);
            BodyExt::boxed_unsync(StreamBody::new(frames.chain(cut)))
        }
        End::Open => {
            let open = futures_util::stream::pending();
            BodyExt::boxed_unsync(StreamBody::new(frames.chain(open)))
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Whole,
    Broken,
    Open,
}

pub(crate) fn events(text: impl Into<Bytes>, end: End) -> Response<TestBody> {
    Response::builder()
        .header("content-type", "text/event-stream; charset=utf-8")
        .body(packets(vec![text.into()], end))
        .expect("a response")
}

pub(crate) fn openai() -> OpenAi {
    OpenAi::builder().api_key("sk-1").build().expect("valid")
}

pub(crate) fn anthropic() -> Anthropic {
    Anthropic::builder().api_key("sk-1").build().expect("valid")
}

pub(crate) fn ask() -> LlmRequest {
    LlmRequest::chat("asked", [Message::user("hi")])
}

pub(crate) async fn call<C>(
    codec: C,
    http: Http,
    request: LlmRequest,
) -> Result<LlmResponse, LlmError>
where
    C: Codec,
    C::Decoder: Send + 'static,
{
    Provider::new(codec, http)
        .with_target("t")
        .oneshot(request)
        .await
}

/// Every item of a streamed answer.
pub(crate) async fn items(response: LlmResponse) -> Vec<Result<Chunk, LlmError>> {
    match response.body {
        donjon_core::Body::Stream(stream) => stream.collect().await,
        donjon_core::Body::Complete(_) => panic!("a stream was asked for"),
    }
}

pub(crate) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// What `codec` sends for `request`.
pub(crate) async fn sent(codec: &impl Codec, request: &LlmRequest) -> Bytes {
    let request = codec.encode(request).expect("encoded");
    request
        .into_body()
        .collect()
        .await
        .expect("in memory")
        .to_bytes()
}

/// JSON of any shape, with the names that requests have.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z{}\"]{0,6}|user|assistant|system|tool|text|image|tool_use|tool_result|thinking|document|base64|url|data:a;base64,x".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = "model|messages|role|content|type|text|source|data|media_type|url|id|name|input|tool_use_id|tools|tool_choice|\
            system|stream|max_tokens|function|arguments|tool_calls|image_url|stop_sequences|metadata|thinking|signature|[a-z]{1,3}";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..8).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A streamed answer of type `content_type`, in packets that end at `cuts`.
pub(crate) fn packeted(
    text: &str,
    content_type: &str,
    mut cuts: Vec<usize>,
    end: End,
) -> Response<TestBody> {
    cuts.sort_unstable();
    let mut sent = Vec::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([text.len()]) {
        let cut = cut.clamp(from, text.len());
        sent.push(Bytes::copy_from_slice(&text.as_bytes()[from..cut]));
        from = cut;
    }
    Response::builder()
        .header("content-type", content_type)
        .body(packets(sent, end))
        .expect("a response")
}

/// What comes of a streamed answer: each chunk without what is made up, and the error at its end.
pub(crate) fn read_stream<C>(
    codec: C,
    answer: impl Fn() -> Response<TestBody> + Clone + Send + 'static,
) -> (Vec<String>, Result<donjon_core::ChatCompletion, LlmError>)
where
    C: Codec + Send + Sync + 'static,
    C::Decoder: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let response = match call(codec, http(answer), ask().streamed()).await {
            Ok(response) => response,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let mut fold = donjon_core::Fold::new();
        let mut said = Vec::new();
        for item in items(response).await {
            match item {
                Ok(mut chunk) => {
                    fold.push(&chunk);
                    for choice in &mut chunk.edit().choices {
                        choice.tool_calls.iter_mut().for_each(|call| call.id = None);
                    }
                    said.push(format!("{:?}", *chunk));
                }
                Err(error) => return (said, Err(error)),
            }
        }
        (said, Ok(fold.finish()))
    })
}
