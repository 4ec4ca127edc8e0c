//! Owning what a layer holds for a call, from admission to the end.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;

use crate::{
    error::LlmError,
    observe::{Context, End, Observer, Outcome},
    vocab::{Call, LlmResponse},
};

/// Owns `observer` for a call whose `future` is about to be polled: it hears the future's error, or
/// its being dropped, or moves onto the response and hears every chunk and the end there.
///
/// Nothing is allocated for a call that is answered whole.
pub fn watch<F, O: Observer>(call: &Call, future: F, observer: O) -> Watch<F, O> {
    Watch::in_context(Context::of(call), future, observer)
}

impl<F, O: Observer> Watch<F, O> {
    #[inline]
    pub(crate) fn in_context(context: Context, future: F, observer: O) -> Self {
        Self {
            future: Some(future),
            observer: Some(observer),
            told: false,
            context,
        }
    }
}

pin_project! {
    /// The future of [`watch`].
    pub struct Watch<F, O>
    where
        O: Observer,
    {
        // Gone as soon as it is over, so that whoever watches further in has heard the end, and
        // whatever it holds is free, before this observer hears it.
        #[pin]
        future: Option<F>,
        observer: Option<O>,
        // The observer hears its end, or has heard it.
        told: bool,
        context: Context,
    }

    impl<F, O> PinnedDrop for Watch<F, O>
    where
        O: Observer,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let (Some(mut observer), false) = (this.observer.take(), *this.told) {
                this.future.set(None);
                this.context
                    .tell_drop(|outcome| observer.end(&End::without_answer(outcome)));
            }
        }
    }
}

impl<F, O, E> Future for Watch<F, O>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
    O: Observer,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let future = this.future.as_mut().as_pin_mut();
        let result = match future.expect("polled after completion").poll(cx) {
            Poll::Pending => {
                this.context.waits();
                return Poll::Pending;
            }
            Poll::Ready(result) => result.map_err(Into::into),
        };
        this.future.set(None);
        *this.told = true;
        Poll::Ready(match result {
            Ok(response) if response.is_stream() => Ok(match this.observer.take() {
                Some(observer) => response.observe_in(observer, std::mem::take(this.context)),
                None => response,
            }),
            whole => {
                // Where it lies: it may be large.
                if let Some(observer) = this.observer {
                    match &whole {
                        Ok(response) => response.tell_whole(observer),
                        Err(error) => observer.end(&End::without_answer(Outcome::Failure(error))),
                    }
                }
                *this.observer = None;
                whole
            }
        })
    }
}

impl<F: fmt::Debug, O: Observer> fmt::Debug for Watch<F, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("future", &self.future)
            .field("ended", &self.told)
            .finish_non_exhaustive()
    }
}
