//! The leaf all rows stand on, and what is asked of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use donjon_benches::meter::CHUNKS;
use donjon_core::{
    Body, ChatCompletion, Chunk, Completion, FinishReason, Head, Identity, LlmError, LlmRequest,
    LlmResponse, Message, ResponseStream,
};
use futures_util::{StreamExt as _, stream};
use tower_service::Service;

/// A service that answers at once, or wakes itself and is pending once. Its future is no box and holds no timer.
#[derive(Clone)]
pub(crate) struct Leaf<F> {
    answer: F,
    pending: bool,
}

impl<F> Leaf<F> {
    pub(crate) fn new(answer: F, pending: bool) -> Self {
        Self { answer, pending }
    }
}

impl<R, T, E, F> Service<R> for Leaf<F>
where
    F: Fn(R) -> Result<T, E>,
{
    type Response = T;
    type Error = E;
    type Future = Answer<Result<T, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        Answer {
            answer: Some((self.answer)(request)),
            pending: self.pending,
        }
    }
}

/// The leaf's future.
pub(crate) struct Answer<T> {
    answer: Option<T>,
    pending: bool,
}

// Nothing in it is ever pinned.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(
            self.answer
                .take()
                .expect("a future is not polled after it was ready"),
        )
    }
}

/// A chat, whole or streamed.
pub(crate) fn request() -> LlmRequest {
    let messages = [
        Message::system("Answer briefly."),
        Message::user("Which tower of a castle is the donjon?"),
    ];
    // An identity of its own: the one that says nothing is shared by the whole process.
    LlmRequest::chat("gpt-4o-mini", messages)
        .on_behalf_of(Identity::builder().tenant("acme").build())
}

pub(crate) fn streamed_request() -> LlmRequest {
    request().streamed()
}

/// The name of the row of [`model`].
pub(crate) const LEAF: &str = "leaf";

/// The leaf of all layers that are generic or ours. It opens the call's ledger, as a provider does, unless a layer above has.
pub(crate) fn model(pending: bool) -> Model {
    Leaf::new(
        |mut request| {
            request.call.dispatch();
            Ok(answer(request))
        },
        pending,
    )
}

/// The same, opening no ledger.
pub(crate) fn model_without_ledger(pending: bool) -> Model {
    Leaf::new(|request| Ok(answer(request)), pending)
}

/// The type of [`model`].
pub(crate) type Model = Leaf<fn(LlmRequest) -> Result<LlmResponse, LlmError>>;

/// The stream of a streamed answer.
pub(crate) fn open(response: LlmResponse) -> ResponseStream {
    match response.body {
        Body::Stream(stream) => stream,
        Body::Complete(_) => panic!("not a stream"),
    }
}

fn answer(request: LlmRequest) -> LlmResponse {
    thread_local! {
        // One for each thread: an answer is a call's own, and no two threads would count its references.
        static COMPLETION: Completion = ChatCompletion::text("gpt-4o-mini", "The keep.").into();
    }
    if request.is_stream() {
        let chunks = usize::try_from(CHUNKS).expect("a small number");
        let text = Chunk::text(" keep");
        let texts = stream::repeat_with(move || Ok(text.clone())).take(chunks);
        let end = stream::iter([Ok(Chunk::finish(FinishReason::Stop))]);
        LlmResponse::stream(
            Head::new(request.model().clone()),
            ResponseStream::new(1, texts.chain(end)),
        )
    } else {
        LlmResponse::complete(
            Head::new(request.model().clone()),
            COMPLETION.with(Completion::clone),
        )
    }
}
