//! The future of a call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{LlmError, LlmRequest, LlmResponse, Watch, shape::ReadyCall};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Timeout, timeout};
use tower_service::Service;

use super::{
    embed::Embedding,
    shared::{Open, Placed, Placer, Shared},
};
use crate::{record::Recorder, state::Given, upstream::heard};

/// What keeps an answer, and puts its question where it can be found.
type Keeps = Option<(Recorder, Placer)>;

pin_project! {
    /// The future of a [`SemanticService`](super::SemanticService).
    pub struct SemanticFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse>,
        S::Error: Into<LlmError>,
    {
        #[pin]
        step: Step<S>,
    }
}

pin_project! {
    #[project = StepProj]
    #[project_replace = StepOwned]
    enum Step<S>
    where
        S: Service<LlmRequest, Response = LlmResponse>,
        S::Error: Into<LlmError>,
    {
        Answered { given: Option<Given> },
        Begins { next: Next<S> },
        Embedding { embedding: Pin<Box<Timeout<Embedding>>>, within: Duration, next: Next<S> },
        Calling {
            #[pin]
            call: Watch<ReadyCall<S>, Keeps>,
        },
        Over,
    }
}

/// What is done once the vector is known.
struct Next<S> {
    shared: Arc<Shared>,
    inner: S,
    request: LlmRequest,
    open: Open,
}

impl<S> SemanticFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    pub(super) const fn answered(given: Given) -> Self {
        let given = Some(given);
        Self {
            step: Step::Answered { given },
        }
    }

    pub(super) fn calling(inner: S, request: LlmRequest, keeps: Keeps) -> Self {
        Self {
            step: Step::calling(inner, request, keeps),
        }
    }

    pub(super) fn comparing(
        shared: &Arc<Shared>,
        inner: S,
        request: LlmRequest,
        open: Open,
    ) -> Self {
        let next = Next {
            shared: shared.clone(),
            inner,
            request,
            open,
        };
        Self {
            step: Step::Begins { next },
        }
    }
}

impl<S> Step<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    fn calling(inner: S, request: LlmRequest, keeps: Keeps) -> Self {
        let call = heard(inner, request, keeps);
        Self::Calling { call }
    }
}

impl<S> Next<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    /// Asks for the vector, for as long as that may take.
    fn embed(self) -> Step<S> {
        let deadline = self.request.call.deadline();
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let most = self.shared.rules.embed_timeout;
        let within = left.map_or(most, |left| left.min(most));
        let vector = (self.shared.embedder)(self.open.question.text.clone());
        Step::Embedding {
            embedding: Box::pin(timeout(within, vector)),
            within,
            next: self,
        }
    }

    /// Answers with what is near, or calls.
    fn compare(self, vector: Option<Vec<f32>>) -> Step<S> {
        let Self {
            shared,
            inner,
            request,
            open,
        } = self;
        let Some(vector) = vector else {
            return Step::calling(inner, request, None);
        };
        let partition = open.question.rest;
        let placed = Placed { partition, vector };
        let given = shared.nearest(&request, &placed);
        if given.is_some() {
            return Step::Answered { given };
        }
        let keeps = open.asked.map(|asked| {
            let key = asked.key;
            let recorder = Recorder::new(shared.answers.clone(), asked, &request);
            let placer = Placer {
                shared,
                placed,
                key,
            };
            (recorder, placer)
        });
        Step::calling(inner, request, keeps)
    }
}

impl<S> Future for SemanticFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProj::Answered { given } => return Poll::Ready(Given::take(given)),
                StepProj::Calling { call } => return call.poll(cx),
                StepProj::Begins { .. } => {
                    if let StepOwned::Begins { next } =
                        this.step.as_mut().project_replace(Step::Over)
                    {
                        this.step.set(next.embed());
                    }
                }
                StepProj::Embedding {
                    embedding,
                    within,
                    next,
                } => {
                    let vector = match ready!(embedding.as_mut().poll(cx)) {
                        Ok(result) => next.shared.embedded(result),
                        Err(_) => {
                            next.shared.embedding_timed_out(*within);
                            None
                        }
                    };
                    // What it held is free before anything is called.
                    if let StepOwned::Embedding { next, .. } =
                        this.step.as_mut().project_replace(Step::Over)
                    {
                        this.step.set(next.compare(vector));
                    }
                }
                StepProj::Over => panic!("polled after completion"),
            }
        }
    }
}

impl<S> fmt::Debug for SemanticFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.step {
            Step::Answered { .. } => "SemanticFuture::Answered",
            Step::Begins { .. } => "SemanticFuture::Begins",
            Step::Embedding { .. } => "SemanticFuture::Embedding",
            Step::Calling { .. } => "SemanticFuture::Calling",
            Step::Over => "SemanticFuture::Over",
        })
    }
}
