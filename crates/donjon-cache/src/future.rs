//! The future of a call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    Delivery, ErrorKind, LlmError, LlmRequest, LlmResponse, Scope, shape::ReadyCall,
};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    entry::Entry,
    handle::{CacheEvent, Count},
    record::Asked,
    service::{Renew, renew},
    state::{Found, Given, State},
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
        Answered { given: Option<Given> },
        Fetching { fetch: Fetch, next: Box<Next<S>> },
        Calling { call: Upstream<S>, instead: Option<Box<Instead>> },
        // What comes is nobody's but the asker's, and is not heard.
        Passing {
            #[pin]
            call: ReadyCall<S>,
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
    pub(crate) const fn answered(given: Given) -> Self {
        let given = Some(given);
        Self {
            step: Step::Answered { given },
        }
    }

    pub(crate) fn fetching(
        state: &Arc<State>,
        inner: S,
        renew: Renew<S>,
        mut request: LlmRequest,
        asked: Asked,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        request.call.start_clock();
        let fetch = Box::pin(state.clone().fetch(asked.key));
        let next = Box::new(Next {
            state: state.clone(),
            inner,
            renew,
            request,
            asked,
            instead,
        });
        Self {
            step: Step::Fetching { fetch, next },
        }
    }

    pub(crate) fn calling(
        state: &Arc<State>,
        inner: impl FnOnce() -> S,
        request: LlmRequest,
        asked: Asked,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        Self {
            step: Step::calling(state, inner, request, asked, instead),
        }
    }

    /// Asks, and keeps nothing.
    pub(crate) fn passing(
        state: &Arc<State>,
        inner: S,
        mut request: LlmRequest,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        request.call.start_clock();
        let instead = Instead::new(state, instead, &request);
        let call = ReadyCall::new(inner, request);
        Self {
            step: Step::Passing { call, instead },
        }
    }
}

impl<S> Step<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    #[inline]
    fn calling(
        state: &Arc<State>,
        inner: impl FnOnce() -> S,
        mut request: LlmRequest,
        asked: Asked,
        instead: Option<Arc<Entry>>,
    ) -> Self {
        request.call.start_clock();
        let instead = Instead::new(state, instead, &request);
        match Upstream::shared(state, inner, request, asked) {
            Ok(call) => Self::Calling { call, instead },
            Err(late) => Self::Answered { given: Some(late) },
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
            mut instead,
        } = self;
        if let Some(entry) = fetched
            && state.remember(asked.key, &entry, asked.since)
        {
            match state.judge(&request, || asked, Some(entry), || state.now()) {
                Found::Answer(given) => return Step::Answered { given: Some(given) },
                Found::Renew(given, renewal) => {
                    renew(&state, renewing, inner, request, renewal);
                    return Step::Answered { given: Some(given) };
                }
                Found::Nothing(_, better) => instead = better.or(instead),
                Found::Bypass | Found::Alone(_) => {}
            }
        }
        state.count(Count::Misses);
        Step::calling(&state, || inner, request, asked, instead)
    }
}

impl Instead {
    fn new(
        state: &Arc<State>,
        entry: Option<Arc<Entry>>,
        request: &LlmRequest,
    ) -> Option<Box<Self>> {
        let instead = |entry| Self {
            state: state.clone(),
            entry,
            delivery: request.delivery,
        };
        entry.map(instead).map(Box::new)
    }

    fn answer(&self, error: &LlmError) -> Option<LlmResponse> {
        if !is_upstreams(error) {
            return None;
        }
        let now = self.state.now();
        let given = self.state.give(&self.entry, self.delivery, now)?;
        let answer = given.make().ok()?;
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
            let (answer, instead) = match this.step.as_mut().project() {
                StepProj::Answered { given } => return Poll::Ready(Given::take(given)),
                StepProj::Calling { call, instead } => (ready!(call.poll(cx)), instead),
                StepProj::Passing { call, instead } => (ready!(call.poll(cx)), instead),
                StepProj::Fetching { fetch, .. } => {
                    let fetched = ready!(fetch.as_mut().poll(cx));
                    if let StepOwned::Fetching { next, .. } =
                        this.step.as_mut().project_replace(Step::Over)
                    {
                        this.step.set(next.step(fetched));
                    }
                    continue;
                }
                StepProj::Over => panic!("polled after completion"),
            };
            let Err(error) = answer else {
                return Poll::Ready(answer);
            };
            let kept = instead.take().and_then(|instead| instead.answer(&error));
            return Poll::Ready(kept.ok_or(error));
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
            Step::Passing { .. } => "CacheFuture::Passing",
            Step::Over => "CacheFuture::Over",
        })
    }
}
