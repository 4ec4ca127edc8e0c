//! The future of a call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{Delivery, ErrorKind, LlmError, LlmRequest, LlmResponse, Scope};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    entry::Entry,
    handle::{CacheEvent, Count},
    record::Asked,
    service::{Renew, renew},
    state::{Found, State},
    upstream::Upstream,
};

/// What a store says of a question.
type Fetch = Pin<Box<dyn Future<Output = Option<Arc<Entry>>> + Send>>;

pin_project! {
    /// The future of a [`CacheService`](crate::CacheService).
    pub struct CacheFuture<S>
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
        Answered { answer: Option<Result<LlmResponse, LlmError>> },
        Fetching { fetch: Fetch, next: Next<S> },
        Calling {
            #[pin]
            call: Upstream<S>,
            instead: Option<Box<Instead>>,
        },
        Over,
    }
}

/// What is done where the store has nothing.
struct Next<S> {
    state: Arc<State>,
    inner: S,
    renew: Renew<S>,
    request: LlmRequest,
    asked: Asked,
    instead: Option<Arc<Entry>>,
}

/// What may be given where the call fails.
struct Instead {
    state: Arc<State>,
    entry: Arc<Entry>,
    delivery: Delivery,
}

impl<S> CacheFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    #[inline]
    pub(crate) fn answered(answer: Result<LlmResponse, LlmError>) -> Self {
        Self {
            step: Step::Answered {
                answer: Some(answer),
            },
        }
    }

    pub(crate) fn fetching(
        state: &Arc<State>,
        inner: S,
        renew: Renew<S>,
        request: LlmRequest,
        asked: Asked,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        let fetch = Box::pin(state.clone().fetch(asked.key));
        let next = Next {
            state: state.clone(),
            inner,
            renew,
            request,
            asked,
            instead,
        };
        Self {
            step: Step::Fetching { fetch, next },
        }
    }

    pub(crate) fn calling(
        state: &Arc<State>,
        inner: S,
        request: LlmRequest,
        asked: Option<Asked>,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        Self {
            step: Step::calling(state, inner, request, asked, instead),
        }
    }
}

impl<S> Step<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    fn calling(
        state: &Arc<State>,
        inner: S,
        mut request: LlmRequest,
        asked: Option<Asked>,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        request.call.begin();
        let instead = instead.map(|entry| {
            Box::new(Instead {
                state: state.clone(),
                entry,
                delivery: request.delivery,
            })
        });
        Self::Calling {
            call: Upstream::shared(state, inner, request, asked),
            instead,
        }
    }
}

impl<S> Next<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    /// What comes of what the store said.
    fn step(self, fetched: Option<Arc<Entry>>) -> Step<S> {
        let Self {
            state,
            inner,
            renew: renewing,
            request,
            asked,
            instead,
        } = self;
        if let Some(entry) = fetched
            && state.remember(asked.key, &entry, asked.since)
        {
            let (key, since, policy) = (asked.key, asked.since, asked.policy);
            let again = Asked { key, policy, since };
            match state.judge(&request, again, Some(entry), state.now()) {
                Found::Answer(answer) => {
                    return Step::Answered {
                        answer: Some(answer),
                    };
                }
                Found::Renew(answer, renewal) => {
                    renew(&state, renewing, inner, request, renewal);
                    return Step::Answered {
                        answer: Some(answer),
                    };
                }
                Found::Nothing(_, better) => {
                    state.count(Count::Misses);
                    let instead = better.or(instead);
                    return Step::calling(&state, inner, request, Some(asked), instead);
                }
                Found::Bypass | Found::Alone(_) => {}
            }
        }
        state.count(Count::Misses);
        Step::calling(&state, inner, request, Some(asked), instead)
    }
}

impl Instead {
    fn answer(&self, error: &LlmError) -> Option<LlmResponse> {
        if !is_upstreams(error) {
            return None;
        }
        let answer = self
            .state
            .give(&self.entry, self.delivery, self.state.now())?;
        let answer = answer.ok()?;
        self.state.count(Count::OnError);
        let error = error.kind();
        self.state
            .events
            .tell(|| CacheEvent::AnsweredInstead { error });
        Some(answer)
    }
}

/// Whether it is not the caller who did something wrong, or may not ask.
fn is_upstreams(error: &LlmError) -> bool {
    match error.kind() {
        ErrorKind::AllTargetsFailed | ErrorKind::Timeout(_) => true,
        kind => error.scope() != Scope::Caller && !crate::record::is_the_callers(kind),
    }
}

impl<S> Future for CacheFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProj::Answered { answer } => {
                    return Poll::Ready(answer.take().expect("polled after completion"));
                }
                StepProj::Calling { call, instead } => {
                    let answer = ready!(call.poll(cx));
                    let Err(error) = answer else {
                        return Poll::Ready(answer);
                    };
                    let kept = instead.take().and_then(|instead| instead.answer(&error));
                    return Poll::Ready(kept.ok_or(error));
                }
                StepProj::Fetching { fetch, .. } => {
                    let fetched = ready!(fetch.as_mut().poll(cx));
                    if let StepOwned::Fetching { next, .. } =
                        this.step.as_mut().project_replace(Step::Over)
                    {
                        this.step.set(next.step(fetched));
                    }
                }
                StepProj::Over => panic!("polled after completion"),
            }
        }
    }
}

impl<S> fmt::Debug for CacheFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.step {
            Step::Answered { .. } => "CacheFuture::Answered",
            Step::Fetching { .. } => "CacheFuture::Fetching",
            Step::Calling { .. } => "CacheFuture::Calling",
            Step::Over => "CacheFuture::Over",
        })
    }
}
