//! From a text to its vector.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{BoxError, Completion, ErrorKind, LlmError, LlmRequest, LlmResponse};
use tower_service::Service;

/// A vector on its way.
pub(super) type Embedding = Pin<Box<dyn Future<Output = Result<Vec<f32>, BoxError>> + Send>>;

/// A service from texts to vectors, whatever its type.
pub(super) type Embedder = Arc<dyn Fn(Arc<str>) -> Embedding + Send + Sync>;

pub(super) fn embedder<E>(service: E) -> Embedder
where
    E: Service<Arc<str>, Response = Vec<f32>> + Clone + Send + Sync + 'static,
    E::Error: Into<BoxError>,
    E::Future: Send,
{
    Arc::new(move |text| {
        let mut service = service.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            service.call(text).await.map_err(Into::into)
        })
    })
}

/// Has texts embedded by a model behind a service that takes [`LlmRequest`]s, as a provider is.
#[derive(Clone, Debug)]
pub struct EmbedBy<S> {
    inner: S,
    model: Arc<str>,
}

impl<S> EmbedBy<S> {
    /// Asks `model` of `inner`.
    pub fn new(inner: S, model: impl Into<Arc<str>>) -> Self {
        let model = model.into();
        Self { inner, model }
    }
}

impl<S> Service<Arc<str>> for EmbedBy<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
    S::Future: Send + 'static,
{
    type Response = Vec<f32>;
    type Error = LlmError;
    type Future = EmbedByFuture;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, text: Arc<str>) -> EmbedByFuture {
        let mut request = LlmRequest::embed(self.model.clone(), [&*text]);
        request.call.begin();
        let answer = self.inner.call(request);
        let vector = async move {
            let (_, completion) = answer.await.map_err(Into::into)?.collect().await?;
            match completion {
                Completion::Embed(embeddings) => embeddings.data.first().cloned(),
                _ => None,
            }
            .map(|first| first.vector.to_vec())
            .ok_or_else(|| LlmError::new(ErrorKind::InvalidResponse, "there is no vector in it"))
        };
        EmbedByFuture(Box::pin(vector))
    }
}

/// The future of [`EmbedBy`].
pub struct EmbedByFuture(Pin<Box<dyn Future<Output = Result<Vec<f32>, LlmError>> + Send>>);

impl Future for EmbedByFuture {
    type Output = Result<Vec<f32>, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for EmbedByFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbedByFuture")
    }
}
