//! A model that answers at once and allocates nothing, to measure what the layers before it cost.

use std::{
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{ChatCompletion, Completion, Head, LlmError, LlmRequest, LlmResponse, Usage};
use tower_service::Service;

/// Answers every call at once, with what was made before: to call it allocates nothing.
///
/// With a counting allocator of your choice:
///
/// ```
/// # fn count(calls: impl FnOnce()) -> u64 { calls(); 0 }
/// use donjon_core::{CommitLayer, LlmRequest};
/// use donjon_testkit::AtOnce;
/// use tower::Layer;
///
/// let mut service = CommitLayer::new().layer(AtOnce::default());
/// let mut request = LlmRequest::chat("m", []);
/// // The ledger is the call's and is opened once, by whoever is outermost.
/// request.call.begin();
/// assert_eq!(count(|| AtOnce::through(&mut service, request.clone())), 0);
/// ```
#[derive(Clone, Debug)]
pub struct AtOnce {
    head: Head,
    answer: Completion,
}

impl AtOnce {
    /// Answers with this.
    pub fn new(answer: impl Into<Completion>) -> Self {
        Self {
            head: Head::new("m"),
            answer: answer.into(),
        }
    }

    /// Sends `request` through layers around it, to the end of the answer.
    ///
    /// # Panics
    ///
    /// When they fail, or keep it waiting.
    pub fn through<S>(service: &mut S, request: LlmRequest)
    where
        S: Service<LlmRequest, Response = LlmResponse>,
    {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = service.poll_ready(&mut cx);
        assert!(matches!(ready, Poll::Ready(Ok(()))), "it is not ready");
        let answer = pin!(service.call(request)).poll(&mut cx);
        assert!(matches!(answer, Poll::Ready(Ok(_))), "no answer at once");
    }
}

/// `hi`, for ten tokens and ten.
impl Default for AtOnce {
    fn default() -> Self {
        let mut answer = ChatCompletion::text("m", "hi");
        answer.usage = Some(Usage::new(10, 10));
        Self::new(answer)
    }
}

impl Service<LlmRequest> for AtOnce {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        ready(Ok(LlmResponse::complete(
            self.head.clone(),
            self.answer.clone(),
        )))
    }
}
