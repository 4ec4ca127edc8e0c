//! Readies the service of one target, no longer than its call allows, and calls it.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use donjon_core::{Call, ErrorKind, LlmError, LlmRequest, LlmResponse};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

pin_project! {
    /// Readies a service, no longer than the call's deadline and patience allow, and calls it.
    ///
    /// What [`ReadyCall`](donjon_core::shape::ReadyCall) does, but that knows the deadline alone: to a
    /// call with another target left, one that is not ready is a queue like any other.
    #[project = PatientProj]
    pub(crate) enum PatientCall<S>
    where
        S: Service<LlmRequest>,
    {
        Readying {
            next: Option<(S, LlmRequest)>,
            // Armed when it is first kept waiting.
            #[pin]
            limit: Option<Sleep>,
        },
        Called {
            #[pin]
            future: S::Future,
        },
    }
}

impl<S: Service<LlmRequest>> PatientCall<S> {
    pub(crate) const fn new(service: S, request: LlmRequest) -> Self {
        Self::Readying {
            next: Some((service, request)),
            limit: None,
        }
    }
}

impl<S> Future for PatientCall<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                PatientProj::Called { future } => return future.poll(cx).map_err(Into::into),
                PatientProj::Readying { next, mut limit } => {
                    let Some((service, request)) = next else {
                        return Poll::Pending;
                    };
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => {
                            *next = None;
                            return Poll::Ready(Err(error.into()));
                        }
                        Poll::Pending => {
                            let call = &request.call;
                            if limit.is_none() {
                                let longest = call.longest_wait();
                                // Without a limit it waits as long as it takes.
                                if longest != std::time::Duration::MAX {
                                    limit.set(Some(sleep(longest)));
                                }
                            }
                            let Some(over) = limit.as_mut().as_pin_mut() else {
                                return Poll::Pending;
                            };
                            ready!(over.poll(cx));
                            let error = not_ready(call);
                            // Its place in the target's queue goes with it.
                            *next = None;
                            return Poll::Ready(Err(error));
                        }
                    }
                    let Some((mut service, request)) = next.take() else {
                        return Poll::Pending;
                    };
                    service.call(request)
                }
            };
            self.set(Self::Called { future });
        }
    }
}

fn not_ready(call: &Call) -> LlmError {
    if call.time_left().is_zero() {
        return Call::deadline_error();
    }
    LlmError::new(
        ErrorKind::Unsent,
        "the target was not ready within the call's patience",
    )
}

impl<S: Service<LlmRequest>> fmt::Debug for PatientCall<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Readying { .. } => "PatientCall::Readying",
            Self::Called { .. } => "PatientCall::Called",
        })
    }
}
