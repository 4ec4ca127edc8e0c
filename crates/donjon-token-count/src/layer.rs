//! The layer.

use std::sync::Arc;

use donjon_core::shape::CheckService;
use tower_layer::Layer;

use crate::{
    builder::TokenCountBuilder,
    counter::{TokenCount, TokenCounter},
    figure::TokenFigure,
    handle::TokenHandle,
    shared::Shared,
};

/// Counts the tokens of requests; see the [crate](crate).
///
/// All services that one layer and its clones make share what is remembered and learned.
#[derive(Clone, Debug)]
pub struct TokenCountLayer {
    shared: Arc<Shared>,
}

impl TokenCountLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> TokenCountBuilder {
        TokenCountBuilder::new()
    }

    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// What its services ask, to be put before a service by hand ([`CheckService`]).
    pub fn check(&self) -> TokenCounter {
        TokenCounter::new(self.shared.clone())
    }

    /// What puts the tokens on requests and does nothing else, for limits outside of failover.
    pub fn figure(&self) -> TokenFigure {
        TokenFigure::new(self.shared.clone())
    }

    /// Counts by hand, and reads what this layer and its services share.
    pub fn handle(&self) -> TokenHandle {
        TokenHandle::new(self.shared.clone())
    }
}

/// The models that are known to this crate; what cannot fit is refused, nothing is left out.
impl Default for TokenCountLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<S> Layer<S> for TokenCountLayer {
    type Service = TokenCount<S>;

    fn layer(&self, inner: S) -> TokenCount<S> {
        CheckService::new(inner, self.check())
    }
}
