//! The service.

use donjon_core::shape::Gate;

use crate::{admit::Limiter, local::InMemory};

/// A service that lets calls pass as the limits allow; see the [crate](crate).
///
/// It passes the readiness of the service below through. A call that fits is made there and then; one
/// that waits for its turn holds nothing of the service below meanwhile.
pub type RateLimit<S, St = InMemory> = Gate<S, Limiter<St>>;
