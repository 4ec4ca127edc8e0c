//! The scripted model as a tower service.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use donjon_core::{
    Commit, CommitLayer, End, LlmError, LlmRequest, LlmResponse, Name, Observer, Watch, watch,
};
use tokio::sync::OwnedSemaphorePermit;
use tower_layer::Layer;
use tower_service::Service;

use super::{ScriptedLlm, Shared, play::Play};
use crate::probe::{EndLog, EndObserver};

/// What an instance got from its `poll_ready`.
pub(super) enum Readiness {
    No,
    Acquiring(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send + Sync>>),
    Yes(Option<OwnedSemaphorePermit>),
}

impl Service<LlmRequest> for ScriptedLlm {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = ScriptedFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.shared.record().ready_polls += 1;
        loop {
            match (&mut self.readiness, &self.permits) {
                (Readiness::Yes(_), _) => return Poll::Ready(Ok(())),
                (Readiness::No, None) => self.readiness = Readiness::Yes(None),
                (Readiness::No, Some(permits)) => {
                    let semaphore = permits.semaphore.clone();
                    let acquire = Box::pin(async move { semaphore.acquire_owned().await.ok() });
                    self.readiness = Readiness::Acquiring(acquire);
                }
                (Readiness::Acquiring(acquire), _) => {
                    let permit = ready!(acquire.as_mut().poll(cx));
                    self.readiness = Readiness::Yes(permit);
                }
            }
        }
    }

    fn call(&mut self, request: LlmRequest) -> ScriptedFuture {
        let permit = match std::mem::replace(&mut self.readiness, Readiness::No) {
            Readiness::Yes(permit) => permit,
            Readiness::No | Readiness::Acquiring(_) => {
                self.shared.record().violations += 1;
                assert!(
                    self.lenient,
                    "a scripted model was called without being readied: each call needs its own \
                     poll_ready on the instance that is called, and a clone is not readied"
                );
                None
            }
        };
        let mut once = Once(Some(Below {
            shared: self.shared.clone(),
            permit,
            provider: self.provider,
            ends: MaybeEnds(self.ends.as_ref().map(EndLog::observer)),
        }));
        ScriptedFuture(if self.commits {
            Kind::Committing(CommitLayer::new().layer(once).call(request))
        } else {
            Kind::AtHead(once.call(request))
        })
    }
}

/// What is called below the commit: one call, already admitted.
struct Once(Option<Below>);

struct Below {
    shared: Arc<Shared>,
    permit: Option<OwnedSemaphorePermit>,
    provider: Name,
    ends: MaybeEnds,
}

impl Service<LlmRequest> for Once {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Watch<Play, MaybeEnds>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        let below = self.0.take().expect("it is called once");
        // Opened before it is watched, so that the observer hears why the attempt is dropped.
        request.call.dispatch();
        let call = request.call.clone();
        let play = Play::new(below.shared, below.permit, below.provider, request);
        watch(&call, play, below.ends)
    }
}

struct MaybeEnds(Option<EndObserver>);

impl Observer for MaybeEnds {
    fn end(&mut self, end: &End<'_>) {
        if let Some(ends) = &mut self.0 {
            ends.end(end);
        }
    }
}

/// The future of a [`ScriptedLlm`].
#[derive(Debug)]
pub struct ScriptedFuture(Kind);

#[derive(Debug)]
enum Kind {
    AtHead(Watch<Play, MaybeEnds>),
    Committing(<Commit<Once> as Service<LlmRequest>>::Future),
}

impl Future for ScriptedFuture {
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::AtHead(play) => Pin::new(play).poll(cx),
            Kind::Committing(commit) => Pin::new(commit).poll(cx),
        }
    }
}
