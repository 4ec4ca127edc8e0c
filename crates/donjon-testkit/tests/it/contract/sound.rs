//! Sound layers pass.

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use donjon_core::{
    BoxLlmService, CommitLayer, End, LlmError, LlmRequest, LlmResponse, LlmService, Observer,
    shape::{
        Admission, Admit, Check, CheckService, Gate, Lookup, ReadyCall, Shortcut, ShortcutService,
        Spare,
    },
};
use donjon_testkit::contract;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service, ServiceBuilder};

use super::Answer;

#[tokio::test(start_paused = true)]
async fn no_layer_at_all() {
    contract::check(|leaf| leaf).await;
    contract::check(|leaf| leaf.at_head()).await;
}

#[tokio::test(start_paused = true)]
async fn commit() {
    contract::check(|leaf| CommitLayer::new().layer(leaf.at_head())).await;
    contract::check(|leaf| CommitLayer::new().reasoning_commits(false).layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn an_erased_service() {
    contract::check(BoxLlmService::new).await;
}

#[derive(Clone)]
struct Always;

impl Check for Always {
    type Permit = ();
    fn check(&self, _: &mut LlmRequest) -> Result<Option<()>, LlmError> {
        Ok(Some(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_check() {
    contract::check(|leaf| CheckService::new(leaf, Always)).await;
}

/// At most so many calls at once; the others wait for their turn, in their order.
#[derive(Clone)]
struct Limit(Arc<Semaphore>);

impl Limit {
    fn of(permits: usize) -> Self {
        Self(Arc::new(Semaphore::new(permits)))
    }
}

struct Permit(Option<OwnedSemaphorePermit>);

impl Observer for Permit {
    fn end(&mut self, _: &End<'_>) {
        self.0 = None;
    }
}

impl Admit for Limit {
    type Permit = Permit;
    type Wait = Pin<Box<dyn Future<Output = Result<Permit, LlmError>> + Send>>;

    fn admit(&self, _: &mut LlmRequest) -> Admission<Permit, Self::Wait> {
        let permits = self.0.clone();
        match permits.clone().try_acquire_owned() {
            Ok(permit) => Admission::Yes(Permit(Some(permit))),
            Err(_) => Admission::Wait(Box::pin(async move {
                Ok(Permit(permits.acquire_owned().await.ok()))
            })),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate() {
    for permits in [1, 2, 100] {
        contract::check(|leaf| Gate::new(leaf, Limit::of(permits))).await;
    }
}

#[derive(Clone)]
struct Unknown;

impl Shortcut for Unknown {
    type Learn = ();
    type Find = Ready<Result<Lookup<()>, LlmError>>;
    fn find(&self, _: &mut LlmRequest) -> Self::Find {
        ready(Ok(Lookup::Miss(())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_shortcut() {
    contract::check(|leaf| ShortcutService::new(leaf, Unknown)).await;
}

/// Asks up to three times.
#[derive(Clone)]
struct Driver<S>(Spare<S>);

impl<S> Service<LlmRequest> for Driver<S>
where
    S: LlmService + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.0.get_mut().poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: LlmRequest) -> Answer {
        let first = ReadyCall::resting(self.0.take());
        Box::pin(async move {
            let mut call = Box::pin(first);
            call.as_mut().call_readied(request.clone());
            for _ in 0..2 {
                match call.as_mut().await {
                    Err(error) if error.disposition().retry => {}
                    done => return done,
                }
                call.as_mut().rest();
                tokio::time::sleep(Duration::from_millis(50)).await;
                call.as_mut().call_again(request.clone());
            }
            call.await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver() {
    contract::check(|leaf| Driver(Spare::new(leaf))).await;
}

#[tokio::test(start_paused = true)]
async fn all_of_them_stacked() {
    contract::check(|leaf| {
        let gate = Gate::new(CommitLayer::new().layer(leaf.at_head()), Limit::of(2));
        let driver = Driver(Spare::new(CheckService::new(gate, Always)));
        ShortcutService::new(BoxLlmService::new(driver), Unknown)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn layers_of_tower() {
    contract::check(|leaf| {
        ServiceBuilder::new()
            .concurrency_limit(2)
            .timeout(Duration::from_secs(30))
            .service(leaf)
    })
    .await;
}
