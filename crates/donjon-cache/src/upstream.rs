//! The call that is made where nothing was found.

use std::{
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{
    BoxLlmFuture, LlmError, LlmRequest, LlmResponse, Observer, Watch, shape::ReadyCall, watch,
};
use tower_service::Service;

use crate::{
    flight::{Calls, Flying},
    record::{Asked, Recorder},
    state::{Given, State},
};

/// One call upstream, recorded on its way: its own, or that of all who ask the same. It lies in a box,
/// so that whoever is answered at once does not carry the room for it about.
pub(crate) enum Upstream<S> {
    Alone(BoxLlmFuture),
    Shared(Flying<Recorded<S>>),
}

/// A service whose answer is kept.
pub(crate) struct Recorded<S> {
    inner: S,
    state: Arc<State>,
    asked: Asked,
}

impl<S> Calls for Recorded<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    fn call(self, request: LlmRequest) -> BoxLlmFuture {
        // Made where it is to lie.
        let place = Box::new_uninit();
        let recorder = Recorder::new(self.state, self.asked, &request);
        let call = Box::write(place, heard(self.inner, request, recorder));
        Box::into_pin(call)
    }
}

/// A call of `inner` that `observer` hears.
pub(crate) fn heard<S, O>(inner: S, request: LlmRequest, observer: O) -> Watch<ReadyCall<S>, O>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    O: Observer,
{
    let call = request.call.clone();
    watch(&call, ReadyCall::new(inner, request), observer)
}

impl<S> Upstream<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    /// Asks `inner`, and keeps its answer as `asked` says.
    pub(crate) fn alone(state: &Arc<State>, inner: S, request: LlmRequest, asked: Asked) -> Self {
        let state = state.clone();
        let recorded = Recorded {
            inner,
            state,
            asked,
        };
        Self::Alone(recorded.call(request))
    }

    /// The same, or joins the call of somebody who asks the same at this moment. The answer is kept
    /// whoever of them leaves. An error is the answer of somebody else's call that has ended between.
    #[inline]
    pub(crate) fn shared(
        state: &Arc<State>,
        inner: impl FnOnce() -> S,
        request: LlmRequest,
        asked: Asked,
    ) -> Result<Self, Given> {
        match &state.config.flights {
            // Whoever does not want what is kept does not want what was asked before either.
            Some(flights) if !request.cache().no_cache => {
                let recorded = || Recorded {
                    inner: inner(),
                    state: state.clone(),
                    asked,
                };
                let late = |request: &LlmRequest| state.kept_since(request, &asked);
                let flying = flights.enter(asked.key, request, recorded, late);
                flying.map(Self::Shared)
            }
            _ => Ok(Self::alone(state, inner(), request, asked)),
        }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<LlmResponse, LlmError>> {
        match self {
            Self::Alone(call) => call.as_mut().poll(cx),
            Self::Shared(call) => call.poll(cx),
        }
    }
}
