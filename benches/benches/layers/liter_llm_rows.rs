//! liter-llm's layers around a leaf of its own types. Its requests own their text, so a clone allocates; that is the leaf's.

use std::sync::Arc;
use std::time::Duration;

use donjon_benches::meter::{CHUNKS, Row};
use futures_util::{StreamExt as _, stream};
use liter_llm::client::BoxStream;
use liter_llm::error::{LiterLlmError, Result};
use liter_llm::tower::types::{LlmRequest, LlmResponse};
use liter_llm::tower::{
    BudgetConfig, BudgetLayer, BudgetState, CircuitLayer, CooldownLayer, CostTrackingLayer,
    ExponentialBackoffCircuit, HooksLayer, InFlightLimitConfig, InFlightLimitLayer, LlmHook,
    ModelRateLimitLayer, RateLimitConfig, TracingLayer,
};
use liter_llm::types::{ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse};
use serde_json::{from_value, json};
use tower::{Layer, Service};

use crate::leaf::{Answer, Leaf};

const LEAF: &str = "leaf, liter-llm's types";

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(Row::leaf(LEAF), leaf),
        row(Row::above(LEAF, "liter-llm in-flight limit"), |pending| {
            in_flight().layer(leaf(pending))
        }),
        row(Row::above(LEAF, "liter-llm rate limit"), |pending| {
            rate_limit().layer(leaf(pending))
        }),
        row(Row::above(LEAF, "liter-llm circuit breaker"), |pending| {
            circuit().layer(leaf(pending))
        }),
        row(Row::above(LEAF, "liter-llm budget"), |pending| {
            budget().layer(leaf(pending))
        }),
        row(Row::above(LEAF, "liter-llm, seven stacked"), seven),
    ]
}

/// What its managed client stacks when all is switched on but the cache and the prober, in its order.
fn seven(
    pending: bool,
) -> impl Service<LlmRequest, Response = LlmResponse, Error = LiterLlmError, Future: Send> + Clone {
    let limited =
        CooldownLayer::new(Duration::from_secs(1)).layer(in_flight().layer(leaf(pending)));
    let costed = CostTrackingLayer.layer(rate_limit().layer(limited));
    let budgeted = budget().layer(costed);
    TracingLayer.layer(HooksLayer::single(Arc::new(Idle)).layer(budgeted))
}

fn budget() -> BudgetLayer {
    let budget = BudgetConfig {
        global_limit: Some(1e12),
        ..BudgetConfig::default()
    };
    BudgetLayer::new(budget, Arc::new(BudgetState::new()))
}

struct Idle;

impl LlmHook for Idle {}

fn in_flight() -> InFlightLimitLayer {
    InFlightLimitLayer::new(InFlightLimitConfig {
        max_in_flight: Some(1_024),
    })
    .expect("the limit is above zero")
}

fn rate_limit() -> ModelRateLimitLayer {
    ModelRateLimitLayer::new(RateLimitConfig {
        rpm: Some(u32::MAX),
        tpm: Some(u64::MAX),
        window: Duration::from_secs(60),
    })
}

fn circuit() -> CircuitLayer<ExponentialBackoffCircuit> {
    CircuitLayer::new(
        Arc::new(ExponentialBackoffCircuit::new(5, Duration::from_secs(10))),
        "openai",
    )
}

fn row<S>(row: Row, make: impl Fn(bool) -> S + Clone + 'static) -> Row
where
    S: Service<LlmRequest, Response = LlmResponse, Future: Send> + Clone + Send + 'static,
{
    let streamed = make.clone();
    row.unary(make, || LlmRequest::Chat(request())).streamed(
        move || streamed(false),
        || LlmRequest::ChatStream(request()),
        open,
    )
}

fn open(response: LlmResponse) -> BoxStream<'static, Result<ChatCompletionChunk>> {
    match response {
        LlmResponse::ChatStream(stream) => stream,
        other => panic!("not a stream: {other:?}"),
    }
}

fn request() -> ChatCompletionRequest {
    from_value(json!({
        "model": "gpt-4o-mini",
        "messages": [
            { "role": "system", "content": "Answer briefly." },
            { "role": "user", "content": "Which tower of a castle is the donjon?" },
        ],
    }))
    .expect("a valid request")
}

fn leaf(
    pending: bool,
) -> impl Service<
    LlmRequest,
    Response = LlmResponse,
    Error = LiterLlmError,
    Future = Answer<Result<LlmResponse>>,
> + Clone {
    let usage = json!({ "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30 });
    let answer: ChatCompletionResponse = from_value(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "usage": usage,
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "The keep." } }],
    }))
    .expect("a valid response");
    let chunk: ChatCompletionChunk = from_value(json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
        "choices": [{ "index": 0, "delta": { "content": " keep" }, "finish_reason": null }],
    }))
    .expect("a valid chunk");
    // Shared, because some layers clone the service below them for each call.
    let (answer, chunk) = (Arc::new(answer), Arc::new(chunk));
    let chunks = usize::try_from(CHUNKS).expect("a small number") + 1;
    Leaf::new(
        move |request: LlmRequest| {
            Ok(match request.request_type() {
                "chat_stream" => {
                    let chunk = Arc::clone(&chunk);
                    LlmResponse::ChatStream(
                        stream::repeat_with(move || Ok(ChatCompletionChunk::clone(&chunk)))
                            .take(chunks)
                            .boxed(),
                    )
                }
                _ => LlmResponse::Chat(ChatCompletionResponse::clone(&answer)),
            })
        },
        pending,
    )
}
