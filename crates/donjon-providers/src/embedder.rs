//! Embeddings as a service from texts to vectors.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{Embed, ErrorKind, LlmError, LlmRequest, LlmResponse, Prompt};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::openai::check_count;

/// Turns texts into vectors by asking a model of any `Service<LlmRequest>`, a provider or a stack around
/// several: a `Service<Vec<String>>` to a vector for each text, in their order, and a `Service<String>` to
/// one.
///
/// ```
/// use donjon_core::{Embedding, Embeddings, Head, LlmError, LlmRequest, LlmResponse};
/// use donjon_providers::Embedder;
/// use tower::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LlmError> {
/// let llm = service_fn(|request: LlmRequest| async move {
///     let mut answer = Embeddings::default();
///     answer.data = vec![Embedding::new(0, vec![0.6, 0.8])];
///     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
/// });
/// let vector = Embedder::new("embed-1", llm).oneshot("a keep".to_owned()).await?;
/// assert_eq!(&vector[..], &[0.6, 0.8]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Embedder<S> {
    service: S,
    model: Arc<str>,
    dimensions: Option<u32>,
}

impl<S> Embedder<S> {
    /// Asks `model` of `service`.
    pub fn new(model: impl Into<Arc<str>>, service: S) -> Self {
        Self {
            service,
            model: model.into(),
            dimensions: None,
        }
    }

    /// How long each vector is to be. Default: as long as the model makes them.
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    fn request(&self, texts: Vec<String>) -> LlmRequest {
        let mut embed = Embed::new(texts);
        embed.dimensions = self.dimensions;
        LlmRequest::new(self.model.clone(), Prompt::Embed(embed))
    }
}

impl<S> Service<Vec<String>> for Embedder<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Response = Vec<Arc<[f32]>>;
    type Error = LlmError;
    type Future = EmbedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, texts: Vec<String>) -> Self::Future {
        EmbedFuture {
            texts: texts.len(),
            future: self.service.call(self.request(texts)),
        }
    }
}

impl<S> Service<String> for Embedder<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Response = Arc<[f32]>;
    type Error = LlmError;
    type Future = EmbedOneFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, text: String) -> Self::Future {
        EmbedOneFuture {
            many: Service::<Vec<String>>::call(self, vec![text]),
        }
    }
}

pin_project! {
    /// The future of an [`Embedder`] that was given several texts.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct EmbedFuture<F> {
        #[pin]
        future: F,
        texts: usize,
    }
}

pin_project! {
    /// The future of an [`Embedder`] that was given one text.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct EmbedOneFuture<F> {
        #[pin]
        many: EmbedFuture<F>,
    }
}

impl<F, E> Future for EmbedFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<Vec<Arc<[f32]>>, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx)).map_err(Into::into)?;
        Poll::Ready(vectors(&response, *this.texts))
    }
}

impl<F, E> Future for EmbedOneFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<Arc<[f32]>, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let vectors = ready!(self.project().many.poll(cx))?;
        Poll::Ready(vectors.into_iter().next().ok_or_else(none))
    }
}

fn vectors(response: &LlmResponse, texts: usize) -> Result<Vec<Arc<[f32]>>, LlmError> {
    let embeddings = response.completion().and_then(|whole| whole.as_embed());
    let embeddings = embeddings.ok_or_else(none)?;
    check_count(embeddings.data.len(), texts)?;
    Ok(embeddings
        .data
        .iter()
        .map(|one| one.vector.clone())
        .collect())
}

fn none() -> LlmError {
    LlmError::new(
        ErrorKind::InvalidResponse,
        "the service did not answer with embeddings",
    )
}
