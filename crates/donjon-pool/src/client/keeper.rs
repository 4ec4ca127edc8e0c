//! The task that keeps clients warm and drops those that are idle for too long.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tower_service::Service;

use super::{checkout::Checkout, state::Shared};

/// After so long another client is made where one could not be.
const AGAIN: Duration = Duration::from_secs(5);

/// Ends the task, and closes the pool, when it is dropped.
#[derive(Debug)]
pub(super) struct Keeper<S> {
    shared: Arc<Shared<S>>,
    task: Option<AbortHandle>,
}

impl<S> Keeper<S> {
    /// Starts the task, where there is a runtime and something to do for it.
    pub(super) fn start<M, T>(shared: Arc<Shared<S>>, maker: M, target: T) -> Self
    where
        M: Service<T, Response = S> + Clone + Send + 'static,
        M::Future: Send,
        T: Clone + Send + 'static,
        S: Send + 'static,
    {
        let config = &shared.config;
        let has_work =
            config.min_warm > 0 || config.idle_timeout.is_some() || config.max_age.is_some();
        let runtime = Handle::try_current().ok().filter(|_| has_work);
        let task = runtime.map(|runtime| {
            let keeps = keep(Arc::downgrade(&shared), maker, target);
            runtime.spawn(keeps).abort_handle()
        });
        Self { shared, task }
    }
}

impl<S> Drop for Keeper<S> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.shared.close();
    }
}

/// Runs until it is aborted, or the pool is gone.
async fn keep<M, T, S>(pool: Weak<Shared<S>>, maker: M, target: T)
where
    M: Service<T, Response = S> + Clone,
    T: Clone,
{
    while let Some(shared) = pool.upgrade() {
        let next = shared.reap();
        let mut again = None;
        while let Some(slot) = shared.too_few() {
            let made = Checkout::for_slot(slot, maker.clone(), target.clone()).await;
            if made.is_err() {
                again = Some(AGAIN);
                break;
            }
        }
        let wait = next.into_iter().chain(again).min();
        if again.is_some() {
            sleep(wait.unwrap_or(AGAIN)).await;
        } else {
            let too_few = shared.too_few.notified();
            match wait {
                Some(wait) => drop(timeout(wait, too_few).await),
                None => too_few.await,
            }
        }
    }
}
