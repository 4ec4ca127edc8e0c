//! Embeddings that fail, hang, or say odd things.

use std::{
    future::pending,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use donjon_cache::semantic::{EmbedBy, SemanticEvent, SemanticLayer};
use donjon_core::{
    BoxError, Completion, Embedding, Embeddings, Head, Heard, LlmError, LlmRequest, LlmResponse,
};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};

use super::{is_near, plain, vector};
use crate::{SECOND, ask, hear};

const BOUND: Duration = Duration::from_millis(250);

/// Is never ready.
#[derive(Clone)]
struct Busy;

impl Service<Arc<str>> for Busy {
    type Response = Vec<f32>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Vec<f32>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, _: Arc<str>) -> Self::Future {
        unreachable!("it is not ready")
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_costs_its_bound_and_no_more() {
    let hangs = service_fn(|_: Arc<str>| pending::<Result<Vec<f32>, BoxError>>());
    for builder in [SemanticLayer::builder(hangs), SemanticLayer::builder(Busy)] {
        let model = ScriptedLlm::new(Script::words(3));
        let layer = builder.build().expect("sensible");
        let (service, handle) = (layer.layer(model.clone()), layer.handle());
        let mut events = handle.events().listen();
        let began = Instant::now();
        assert!(!is_near(&service, ask("40")).await);
        let took = began.elapsed();
        assert!(took >= BOUND && took < BOUND + Duration::from_millis(5));
        assert_eq!((handle.embedding_timeouts(), handle.entries()), (1, 0));
        let within = BOUND;
        let told = Heard::Event(SemanticEvent::EmbeddingTimedOut { within });
        assert_eq!(events.try_next(), Some(told));
        // Nor more than the call itself has.
        let began = Instant::now();
        let soon = ask("41").with_timeout(Duration::from_millis(100));
        let _ = crate::send(&service, soon).await;
        assert!(began.elapsed() < Duration::from_millis(105));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_or_says_nothing_is_a_miss() {
    let odd = service_fn(|text: Arc<str>| async move {
        match &*text {
            "fail" => Err(BoxError::from("no")),
            "zero" => Ok(vec![0.0; 3]),
            "empty" => Ok(vec![]),
            "nan" => Ok(vec![1.0, f32::NAN]),
            "long" => Ok(vec![1.0; 9]),
            text => Ok(vector(text)),
        }
    });
    let model = ScriptedLlm::new(Script::words(3));
    let builder = SemanticLayer::builder(odd).max_dimensions(8);
    let layer = builder.build().expect("sensible");
    let (service, handle) = (layer.layer(model.clone()), layer.handle());
    let mut events = handle.events().listen();
    let texts = ["fail", "zero", "empty", "nan", "long"];
    for text in texts.into_iter().chain(texts) {
        assert!(!is_near(&service, ask(text)).await, "{text}");
        let event = events.try_next();
        let failed = matches!(
            event,
            Some(Heard::Event(SemanticEvent::EmbeddingFailed { .. }))
        );
        assert!(failed, "{text}: {event:?}");
    }
    assert_eq!((handle.embedding_failures(), handle.entries()), (10, 0));
    assert!(!is_near(&service, ask("40")).await);
    assert!(is_near(&service, ask("41")).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_not_embedded() {
    let model = ScriptedLlm::new(Script::words(3));
    let layer = plain().max_text_bytes(5).build().expect("sensible");
    let service = layer.layer(model.clone());
    for text in ["40 and more", "", "  "] {
        assert!(!is_near(&service, ask(text)).await);
        assert!(!is_near(&service, ask(text)).await);
    }
    assert_eq!((layer.handle().bypassed(), layer.handle().misses()), (6, 0));
}

/// A provider's own operation does, once for each question that is new.
#[tokio::test(start_paused = true)]
async fn a_model_of_a_provider_embeds() {
    let provider = service_fn(|request: LlmRequest| async move {
        assert_eq!(&**request.model(), "small");
        let text = format!("{:?}", request.prompt());
        let mut embeddings = Embeddings::default();
        if !text.contains("none") {
            embeddings.data.push(Embedding::new(0, vec![3.0, 4.0]));
        }
        let answer = Completion::Embed(Arc::new(embeddings));
        Ok::<_, LlmError>(LlmResponse::complete(Head::new("small"), answer))
    });
    let model = ScriptedLlm::new(Script::words(3).first_token_after(SECOND));
    let builder = SemanticLayer::builder(EmbedBy::new(provider, "small"));
    let layer = builder.build().expect("sensible");
    let service = layer.layer(model.clone());
    let first = hear(&service, ask("one")).await;
    assert_eq!(hear(&service, ask("two")).await.0, first.0);
    assert_eq!((layer.handle().hits(), model.count()), (1, 1));
    hear(&service, ask("none")).await;
    assert_eq!(layer.handle().embedding_failures(), 1);
}
