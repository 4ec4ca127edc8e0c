//! The service.

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{Call, ErrorKind, LlmError, LlmRequest, LlmResponse};
use tokio::runtime;
use tower_service::Service;

use crate::{
    entry::Moment,
    future::CacheFuture,
    handle::{CacheEvent, Count},
    key::CacheKey,
    record::Asked,
    state::{Found, Renewal, State},
    upstream::Upstream,
};

/// A service that answers what it has answered before; see the [crate](crate).
///
/// It is always ready: only a call that it cannot answer needs the service below, a clone of which is
/// readied then.
#[derive(Clone)]
pub struct CacheService<S> {
    inner: S,
    state: Arc<State>,
}

impl<S> CacheService<S> {
    pub(crate) const fn new(inner: S, state: Arc<State>) -> Self {
        Self { inner, state }
    }
}

impl<S> Service<LlmRequest> for CacheService<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = CacheFuture<S>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> CacheFuture<S> {
        let state = &self.state;
        match state.find(&request) {
            Found::Answer(given) => CacheFuture::answered(given),
            Found::Renew(given, renewal) => {
                renew(state, spawn::<S>, self.inner.clone(), request, renewal);
                CacheFuture::answered(given)
            }
            Found::Nothing(asked, instead) => {
                if state.config.store.is_some() && !request.cache().no_cache {
                    let inner = self.inner.clone();
                    return CacheFuture::fetching(state, inner, spawn, request, asked, instead);
                }
                state.count(Count::Misses);
                let inner = || self.inner.clone();
                CacheFuture::calling(state, inner, request, asked, instead)
            }
            Found::Alone(instead) => {
                CacheFuture::passing(state, self.inner.clone(), request, instead)
            }
            Found::Bypass => CacheFuture::passing(state, self.inner.clone(), request, None),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for CacheService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheService")
            .field("inner", &self.inner)
            .field("state", &self.state)
            .finish()
    }
}

/// Runs a call in the background. A function, so that a future need not know that it can.
pub(crate) type Renew<S> = fn(Arc<State>, S, LlmRequest, Asked, Pending);

/// Asks for `renewal` anew, in the background, whatever becomes of `request`.
pub(crate) fn renew<S>(
    state: &Arc<State>,
    spawn: Renew<S>,
    inner: S,
    mut request: LlmRequest,
    renewal: Renewal,
) {
    let priority = request.call.priority;
    // Its own call: the caller's has its answer.
    request.call = Call::default();
    request.call.priority = priority;
    request.call.set_timeout(state.config.refresh_timeout);
    request.call.begin();
    let Renewal { asked, entry } = renewal;
    let pending = Pending {
        state: state.clone(),
        key: asked.key,
        entry,
        renewed: false,
        error: None,
    };
    spawn(state.clone(), inner, request, asked, pending);
}

fn spawn<S>(state: Arc<State>, inner: S, request: LlmRequest, asked: Asked, mut pending: Pending)
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    let Ok(handle) = runtime::Handle::try_current() else {
        return;
    };
    handle.spawn(async move {
        let within = state.config.refresh_timeout;
        let mut call = Upstream::alone(&state, inner, request, asked);
        let whole = async { poll_fn(|cx| call.poll(cx)).await?.collect().await };
        let ended = tokio::time::timeout(within, whole).await;
        pending.ended(ended.ok().map(|answer| answer.map(drop)));
    });
}

/// An entry that is being renewed; whatever happens, it can be again.
pub(crate) struct Pending {
    state: Arc<State>,
    key: CacheKey,
    entry: Arc<crate::entry::Entry>,
    renewed: bool,
    error: Option<ErrorKind>,
}

impl Pending {
    /// The call has ended, or was given up.
    fn ended(&mut self, how: Option<Result<(), LlmError>>) {
        match how {
            Some(Ok(())) => self.renewed = true,
            Some(Err(error)) => self.error = Some(error.kind()),
            None => {}
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (key, error) = (self.key, self.error);
        if self.renewed {
            self.state.count(Count::Refreshes);
            self.state.events.tell(|| CacheEvent::Refreshed { key });
        } else {
            self.state.count(Count::RefreshFailures);
            self.state
                .events
                .tell(|| CacheEvent::RefreshFailed { key, error });
        }
        // Where it was renewed another entry stands in its place, unless that was not kept.
        let at: Moment = self.state.next_refresh(&self.entry);
        self.entry.release_refresh(at);
    }
}
