//! tower-resilience's cache and coalescing, which have no key of their own and are given ours; liter-llm's cache with its own
//! types and its own key.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use donjon_cache::{CacheKey, Scope};
use donjon_core::{ChatCompletion, Completion, Head, LlmError, LlmRequest};
use liter_llm::error::LiterLlmError;
use liter_llm::tower::{CacheConfig, CacheLayer};
use liter_llm::types::ChatCompletionResponse;
use serde_json::{from_value, json};
use tower::{Layer, Service, service_fn};
use tower_resilience::coalesce::CoalesceLayer;

use crate::row::{Row, known, new, number, text};

/// About as many as fit into the bytes of the others.
const ENTRIES: usize = 4_096;

/// A whole answer that can be cloned, as a stream cannot.
type Whole = (Head, Completion);

type TheirRequest = liter_llm::tower::types::LlmRequest;
type TheirAnswer = liter_llm::tower::types::LlmResponse;

pub(crate) fn rows(size: (&str, usize)) -> Vec<Row> {
    let bytes = size.1;
    let coalesce = CoalesceLayer::new(key);
    vec![
        Row::service(
            "tower-resilience hit",
            size,
            resilient(),
            known(bytes),
            ready,
        ),
        Row::service(
            "tower-resilience miss",
            size,
            resilient(),
            new(bytes),
            ready,
        ),
        Row::service(
            "tower-resilience coalesce, alone in it",
            size,
            coalesce.layer(model()),
            new(bytes),
            ready,
        ),
        Row::service("liter-llm hit", size, liter(), theirs(bytes, || 0), ready),
        Row::service(
            "liter-llm miss",
            size,
            liter(),
            theirs(bytes, number),
            ready,
        ),
    ]
}

fn key(request: &LlmRequest) -> CacheKey {
    CacheKey::of(request, Scope::Tenant)
}

fn resilient() -> impl Service<LlmRequest, Response = Whole, Error: std::fmt::Debug> + Clone {
    let layer = tower_resilience::cache::CacheLayer::builder()
        .max_size(ENTRIES)
        .ttl(Duration::from_secs(3_600))
        .key_extractor(key)
        .build()
        .expect("a good configuration");
    layer.layer(model())
}

fn model()
-> impl Service<LlmRequest, Response = Whole, Error = LlmError, Future = Ready<Result<Whole, LlmError>>>
+ Clone
+ Send {
    let completion: Completion = ChatCompletion::text("gpt-4o-mini", "The keep.").into();
    let head = Head::new("gpt-4o-mini");
    service_fn(move |mut request: LlmRequest| {
        // As the leaf of ours does: its ledger is the leaf's.
        request.call.dispatch();
        ready(Ok((head.clone(), completion.clone())))
    })
}

fn liter() -> impl Service<TheirRequest, Response = TheirAnswer, Error = LiterLlmError> + Clone {
    let answer: ChatCompletionResponse = from_value(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "The keep." } }],
    }))
    .expect("a valid response");
    let answer = Arc::new(answer);
    let model = service_fn(move |_: TheirRequest| {
        ready(Ok(TheirAnswer::Chat(ChatCompletionResponse::clone(
            &answer,
        ))))
    });
    let config = CacheConfig {
        max_entries: ENTRIES,
        ttl: Duration::from_secs(3_600),
        ..CacheConfig::default()
    };
    CacheLayer::new(config).layer(model)
}

fn theirs(bytes: usize, number: fn() -> u64) -> impl Fn() -> TheirRequest {
    move || {
        let content = text(bytes) + &number().to_string();
        let request = json!({
            "model": "gpt-4o-mini",
            "messages": [{ "role": "user", "content": content }],
        });
        TheirRequest::Chat(from_value(request).expect("a valid request"))
    }
}
