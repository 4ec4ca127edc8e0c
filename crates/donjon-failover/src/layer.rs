//! The layer.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use crate::{
    error::ConfigError, handle::FailoverHandle, probe::Probing, resume::Hook, service::Failover,
    state::Shared, target::Target,
};

/// Gives a service fallbacks: the service that it is put around is the first target.
///
/// Whatever it is put around shares its figures and switches.
#[derive(Clone)]
pub struct FailoverLayer<S> {
    shared: Arc<Shared>,
    fallbacks: Arc<[S]>,
    probing: Arc<Probing>,
    resume: Option<Hook<S>>,
}

impl<S> FailoverLayer<S> {
    /// Asks `fallbacks`, in this order, when the service below fails, which is named `primary`.
    /// [`FailoverBuilder::build_layer`](crate::FailoverBuilder::build_layer) sets more.
    ///
    /// # Errors
    ///
    /// There is no fallback, two have one name, or a name is empty or `primary`.
    pub fn new(fallbacks: impl IntoIterator<Item = Target<S>>) -> Result<Self, ConfigError> {
        Failover::builder()
            .targets(fallbacks)
            .build_layer("primary")
    }

    pub(crate) const fn from_parts(
        shared: Arc<Shared>,
        fallbacks: Arc<[S]>,
        probing: Arc<Probing>,
        resume: Option<Hook<S>>,
    ) -> Self {
        Self {
            shared,
            fallbacks,
            probing,
            resume,
        }
    }

    /// Reads and controls it.
    pub fn handle(&self) -> FailoverHandle {
        FailoverHandle::new(self.shared.clone())
    }
}

impl<S: Clone> Layer<S> for FailoverLayer<S> {
    type Service = Failover<S>;

    fn layer(&self, inner: S) -> Failover<S> {
        let services = std::iter::once(inner).chain(self.fallbacks.iter().cloned());
        let (shared, probing) = (self.shared.clone(), self.probing.clone());
        Failover::new(shared, services.collect(), probing, true, self.resume)
    }
}

impl<S> fmt::Debug for FailoverLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverLayer")
            .field("targets", &self.shared.roster.load().targets)
            .finish_non_exhaustive()
    }
}
