//! The layer for use alone.

use std::{
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower_layer::Layer;
use tower_service::Service;

use super::{FlightFuture, Flights};
use crate::key::{CacheKey, Scope};

/// Makes one call of any number of identical concurrent ones; see the [module](super).
///
/// All services that one layer and its clones make share its [`Flights`].
#[derive(Clone, Default)]
pub struct SingleFlightLayer {
    flights: Flights,
    scope: Scope,
    only_if: Option<OnlyIf>,
}

type OnlyIf = Arc<dyn Fn(&LlmRequest) -> bool + Send + Sync>;

impl SingleFlightLayer {
    /// Shares the calls of one tenant.
    pub fn new(flights: Flights) -> Self {
        Self {
            flights,
            ..Self::default()
        }
    }

    /// Sets among whom calls are shared; default the users of one tenant.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Shares only calls of which `share` says so; default all but those that ask for no cache. Whoever
    /// asks the same several times to have several samples does not want them to be one.
    #[must_use]
    pub fn only_if(mut self, share: impl Fn(&LlmRequest) -> bool + Send + Sync + 'static) -> Self {
        self.only_if = Some(Arc::new(share));
        self
    }

    /// The figures and events of this layer and its services.
    pub fn handle(&self) -> Flights {
        self.flights.clone()
    }
}

impl<S> Layer<S> for SingleFlightLayer {
    type Service = SingleFlight<S>;

    fn layer(&self, inner: S) -> SingleFlight<S> {
        SingleFlight {
            inner,
            layer: self.clone(),
        }
    }
}

impl fmt::Debug for SingleFlightLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlightLayer")
            .field("flights", &self.flights)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A service that makes one call of any number of identical concurrent ones; see the
/// [module](super).
///
/// It is always ready, and readies a clone of the service below for each call that it makes.
#[derive(Clone, Debug)]
pub struct SingleFlight<S> {
    inner: S,
    layer: SingleFlightLayer,
}

impl<S> Service<LlmRequest> for SingleFlight<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = FlightFuture<S>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> FlightFuture<S> {
        let layer = &self.layer;
        let shares = match &layer.only_if {
            Some(share) => share(&request),
            None => !request.cache().no_cache,
        };
        if shares {
            let key = CacheKey::of(&request, layer.scope);
            let inner = || self.inner.clone();
            layer.flights.call_with(key, request, inner)
        } else {
            layer.flights.call_alone(request, self.inner.clone())
        }
    }
}
