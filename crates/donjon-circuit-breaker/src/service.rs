//! The services: checks around the one inside.

use std::sync::Arc;

use donjon_core::{
    LlmError, LlmRequest,
    shape::{Check, CheckService},
};

use crate::{breaker::Breakers, circuit::Admitted, permit::Permit};

/// A service behind a circuit breaker that rejects and judges: see the [crate](crate).
pub type Breaker<S> = CheckService<S, Admit>;

/// A service behind a circuit breaker that only rejects: see [`BreakerLayer::peek`].
///
/// [`BreakerLayer::peek`]: crate::BreakerLayer::peek
pub type Peeked<S> = CheckService<S, Peek>;

/// Rejects a call whose circuit lets none pass, and holds the place of a probe and the generation of
/// the state for one that passes.
#[derive(Clone, Debug)]
pub struct Admit {
    breakers: Arc<Breakers>,
}

impl Admit {
    pub(crate) const fn new(breakers: Arc<Breakers>) -> Self {
        Self { breakers }
    }
}

impl Check for Admit {
    type Permit = Permit;

    fn check(&self, request: &mut LlmRequest) -> Result<Option<Permit>, LlmError> {
        let Some(breaker) = self.breakers.of(request) else {
            return Ok(None);
        };
        match breaker.admit(request)? {
            Admitted::Unjudged => Ok(None),
            admitted => Ok(Some(Permit::new(breaker, admitted, request))),
        }
    }
}

/// Rejects a call whose circuit lets none pass, and takes nothing.
#[derive(Clone, Debug)]
pub struct Peek {
    breakers: Arc<Breakers>,
}

impl Peek {
    pub(crate) const fn new(breakers: Arc<Breakers>) -> Self {
        Self { breakers }
    }
}

impl Check for Peek {
    type Permit = ();

    fn check(&self, request: &mut LlmRequest) -> Result<Option<()>, LlmError> {
        self.breakers.peek(request).map(|()| None)
    }
}
