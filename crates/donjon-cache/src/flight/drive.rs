//! Driving the call, without the lock.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{ErrorKind, LlmError};
use futures_core::Stream;

use super::slot::{Step, Upstream};

/// Drives the call one step, without the lock; also says whether it panicked.
pub(super) fn drive(upstream: Upstream, cx: &mut task::Context<'_>) -> (Upstream, Step, bool) {
    match catch_unwind(AssertUnwindSafe(|| step(upstream, cx))) {
        Ok((upstream, step)) => (upstream, step, false),
        Err(panic) => {
            let error = panicked(&*panic);
            (Upstream::Over, Step::End(Err(error)), true)
        }
    }
}

/// What is dropped here has told its end before anybody is told of the step.
fn step(upstream: Upstream, cx: &mut task::Context<'_>) -> (Upstream, Step) {
    match upstream {
        Upstream::Call(mut call) => {
            let Poll::Ready(result) = call.as_mut().poll(cx) else {
                return (Upstream::Call(call), Step::Pending);
            };
            drop(call);
            (Upstream::Over, Step::Answer(result))
        }
        Upstream::Stream(mut stream) => match Pin::new(&mut stream).poll_next(cx) {
            Poll::Pending => (Upstream::Stream(stream), Step::Pending),
            Poll::Ready(Some(Ok(chunk))) => {
                (Upstream::Stream(stream), Step::Chunk(Arc::new(chunk)))
            }
            Poll::Ready(Some(Err(error))) => (Upstream::Over, Step::End(Err(error))),
            Poll::Ready(None) => (Upstream::Over, Step::End(Ok(()))),
        },
        Upstream::Away | Upstream::Over => (upstream, Step::Pending),
    }
}

/// The error that a panic is.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> LlmError {
    let said = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(said), _) => said,
        (_, Some(said)) => said.as_str(),
        _ => "it did not say why",
    };
    LlmError::new(ErrorKind::Internal, format!("the call panicked: {said}"))
}
