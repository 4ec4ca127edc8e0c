//! The layers.

use std::{fmt, sync::Arc};

use donjon_core::shape::CheckService;
use tower_layer::Layer;

use crate::{
    breaker::Breakers,
    builder::BreakerBuilder,
    handle::BreakerHandle,
    service::{Admit, Breaker, Peek, Peeked},
};

/// A circuit breaker; see the [crate](crate).
///
/// All services that one layer, its clones and its two halves make share its circuits.
#[derive(Clone)]
pub struct BreakerLayer {
    breakers: Arc<Breakers>,
}

impl BreakerLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> BreakerBuilder {
        BreakerBuilder::new()
    }

    pub(crate) const fn new(breakers: Arc<Breakers>) -> Self {
        Self { breakers }
    }

    /// The half that stands outside: it rejects a call at once while the circuit lets none pass, so
    /// that the call does not wait in a queue for nothing. It takes no place of a probe and judges
    /// nothing.
    pub fn peek(&self) -> PeekLayer {
        PeekLayer {
            breakers: self.breakers.clone(),
        }
    }

    /// The half that stands innermost: it decides when a call is about to be sent, and judges what
    /// comes of it. It is what the layer itself does; the name says that there is a
    /// [`peek`](Self::peek) further out.
    pub fn admit(&self) -> AdmitLayer {
        AdmitLayer {
            breakers: self.breakers.clone(),
        }
    }

    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> BreakerHandle {
        BreakerHandle::new(self.breakers.clone())
    }
}

/// One circuit; opens when half of the latest 100 calls failed, 10 at least, for 5 s at first and up
/// to a minute; one probe.
impl Default for BreakerLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        self.admit().layer(inner)
    }
}

impl fmt::Debug for BreakerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BreakerLayer").field(&self.breakers).finish()
    }
}

/// See [`BreakerLayer::peek`].
#[derive(Clone, Debug)]
pub struct PeekLayer {
    breakers: Arc<Breakers>,
}

impl PeekLayer {
    /// What its services ask, to be put before a service by hand
    /// ([`CheckService`](donjon_core::shape::CheckService)).
    pub fn check(&self) -> Peek {
        Peek::new(self.breakers.clone())
    }
}

impl<S> Layer<S> for PeekLayer {
    type Service = Peeked<S>;

    fn layer(&self, inner: S) -> Peeked<S> {
        CheckService::new(inner, self.check())
    }
}

/// See [`BreakerLayer::admit`].
#[derive(Clone, Debug)]
pub struct AdmitLayer {
    breakers: Arc<Breakers>,
}

impl AdmitLayer {
    /// What its services ask, to be put before a service by hand
    /// ([`CheckService`](donjon_core::shape::CheckService)).
    pub fn check(&self) -> Admit {
        Admit::new(self.breakers.clone())
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        CheckService::new(inner, self.check())
    }
}
