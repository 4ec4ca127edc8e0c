//! The call that is made where nothing was found.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse, shape::ReadyCall};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    flight::FlightFuture,
    record::{Asked, Recorded},
    state::State,
};

pin_project! {
    /// One call upstream, recorded on its way: its own, or that of all who ask the same.
    pub(crate) struct Upstream<S>
    where
        S: Service<LlmRequest, Response = LlmResponse>,
        S::Error: Into<LlmError>,
    {
        #[pin]
        call: Calls<S>,
    }
}

pin_project! {
    #[project = CallsProj]
    enum Calls<S>
    where
        S: Service<LlmRequest, Response = LlmResponse>,
        S::Error: Into<LlmError>,
    {
        Alone {
            #[pin]
            call: ReadyCall<Recorded<S>>,
        },
        Shared {
            #[pin]
            call: FlightFuture<Recorded<S>>,
        },
    }
}

impl<S> Upstream<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    /// Asks `inner`, and keeps its answer as `asked` says.
    pub(crate) fn alone(
        state: &Arc<State>,
        inner: S,
        request: LlmRequest,
        asked: Option<Asked>,
    ) -> Self {
        let recorded = Recorded {
            inner,
            state: state.clone(),
            asked,
            again: false,
        };
        let call = ReadyCall::new(recorded, request);
        Self {
            call: Calls::Alone { call },
        }
    }
}

impl<S> Upstream<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    /// The same, or joins the call of somebody who asks the same at this moment. The answer is kept
    /// whoever of them leaves.
    pub(crate) fn shared(
        state: &Arc<State>,
        inner: S,
        request: LlmRequest,
        asked: Option<Asked>,
    ) -> Self {
        // Whoever does not want what is kept does not want what was asked before either.
        let flights = state.config.flights.as_ref();
        match (flights.filter(|_| !request.cache().no_cache), asked) {
            (Some(flights), Some(asked)) => {
                let key = asked.key;
                let recorded = Recorded {
                    inner,
                    state: state.clone(),
                    asked: Some(asked),
                    again: true,
                };
                let call = flights.call(key, request, recorded);
                Self {
                    call: Calls::Shared { call },
                }
            }
            (_, asked) => Self::alone(state, inner, request, asked),
        }
    }
}

impl<S> Future for Upstream<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project().call.project() {
            CallsProj::Alone { call } => call.poll(cx),
            CallsProj::Shared { call } => call.poll(cx),
        }
    }
}
