//! An answer that comes chunk by chunk.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::{
    error::{ErrorKind, LlmError},
    observe::{Context, End, Observer, Outcome},
    vocab::{Chunk, Usage},
};

/// A stream of [`Chunk`]s that knows when it is complete and tells its observers how it ended.
///
/// * It is complete when every choice that was asked for had its finish reason. Without one, its
///   end is an error ([`ErrorKind::Incomplete`]), never a short success; once it is complete, an
///   error that comes afterwards only ends it.
/// * An `Err` item ends the call at once: observers hear it, and the stream yields nothing more.
/// * Dropped before it is complete it was cancelled; afterwards it has succeeded.
pub struct ResponseStream {
    state: Pin<Box<State<dyn Source + Send>>>,
}

/// A stream that can be let go of before its owner.
trait Source {
    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Chunk, LlmError>>>;

    fn close(self: Pin<&mut Self>);
}

pin_project! {
    struct Open<S> {
        #[pin]
        stream: Option<S>,
    }
}

impl<S: Stream<Item = Result<Chunk, LlmError>>> Source for Open<S> {
    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Chunk, LlmError>>> {
        match self.project().stream.as_pin_mut() {
            Some(stream) => stream.poll_next(cx),
            None => Poll::Ready(None),
        }
    }

    fn close(self: Pin<&mut Self>) {
        self.project().stream.set(None);
    }
}

pin_project! {
    struct State<S: ?Sized> {
        watchers: Watchers,
        progress: Progress,
        #[pin]
        stream: S,
    }
}

impl ResponseStream {
    /// Reads an answer of `choices` choices from `stream`.
    pub fn new<S>(choices: u32, stream: S) -> Self
    where
        S: Stream<Item = Result<Chunk, LlmError>> + Send + 'static,
    {
        Self {
            state: Box::pin(State {
                watchers: Watchers::default(),
                progress: Progress::new(choices),
                stream: Open {
                    stream: Some(stream),
                },
            }),
        }
    }

    /// How many choices were asked for.
    pub fn choices(&self) -> u32 {
        self.state.progress.choices
    }

    /// Whether every choice that was asked for has had its finish reason.
    pub fn is_complete(&self) -> bool {
        self.state.progress.is_complete()
    }

    /// Waits for the next chunk; `None` after the last.
    pub async fn next_chunk(&mut self) -> Option<Result<Chunk, LlmError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Puts `wrap` of this stream in its place. The observers attached so far go on hearing the
    /// stream as it stood before; those attached from now on hear the new one.
    #[must_use]
    pub fn wrap<S>(self, wrap: impl FnOnce(Self) -> S) -> Self
    where
        S: Stream<Item = Result<Chunk, LlmError>> + Send + 'static,
    {
        let choices = self.choices();
        Self::new(choices, wrap(self))
    }

    pub(crate) fn attach(&mut self, mut observer: Box<dyn Observer>, mut context: Context) {
        let this = self.state.as_mut().project();
        if let Some(ended) = &this.progress.ended {
            // Nothing more will be heard; whoever asks now hears how it ended.
            let outcome = match ended {
                Some(error) => Outcome::Failure(error),
                None => Outcome::Success,
            };
            observer.end(&this.progress.end(outcome));
            return;
        }
        context.waits();
        this.watchers.list.push(Watcher { observer, context });
    }
}

impl Stream for ResponseStream {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.state.as_mut().project();
        let progress = this.progress;
        if progress.ended.is_some() {
            return Poll::Ready(None);
        }
        let item = ready!(this.stream.as_mut().poll_next(cx));
        let error = match item {
            Some(Ok(chunk)) => {
                progress.see(&chunk);
                for watcher in &mut this.watchers.list {
                    watcher.observer.chunk(&chunk);
                }
                return Poll::Ready(Some(Ok(chunk)));
            }
            _ if progress.is_complete() => None,
            Some(Err(error)) => Some(error),
            None => Some(LlmError::new(
                ErrorKind::Incomplete,
                "the stream ended without a finish reason",
            )),
        };
        // What stands further in is let go of, and hears the end, first.
        this.stream.close();
        this.watchers.end(progress, error.clone());
        Poll::Ready(error.map(Err))
    }
}

impl FusedStream for ResponseStream {
    fn is_terminated(&self) -> bool {
        self.state.progress.ended.is_some()
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        let this = self.state.as_mut().project();
        if this.progress.ended.is_some() {
            return;
        }
        this.stream.close();
        if this.progress.is_complete() {
            this.watchers.end(this.progress, None);
        } else {
            this.watchers.end_dropped(this.progress);
        }
    }
}

impl fmt::Debug for ResponseStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseStream")
            .field("choices", &self.choices())
            .field("complete", &self.state.progress.is_complete())
            .field("ended", &self.state.progress.ended.is_some())
            .finish_non_exhaustive()
    }
}

struct Watcher {
    observer: Box<dyn Observer>,
    context: Context,
}

/// The observers, those further in first.
#[derive(Default)]
struct Watchers {
    list: Vec<Watcher>,
}

impl Watchers {
    fn end(&mut self, progress: &mut Progress, error: Option<LlmError>) {
        progress.ended = Some(error.clone());
        let outcome = match &error {
            Some(error) => Outcome::Failure(error),
            None => Outcome::Success,
        };
        for mut watcher in self.list.drain(..) {
            watcher.observer.end(&progress.end(outcome));
        }
    }

    fn end_dropped(&mut self, progress: &Progress) {
        for mut watcher in self.list.drain(..) {
            let observer = &mut watcher.observer;
            watcher
                .context
                .tell_drop(|outcome| observer.end(&progress.end(outcome)));
        }
    }
}

/// How far an answer has come.
struct Progress {
    choices: u32,
    /// Which of the first 128 choices have finished; providers allow no more.
    finished: u128,
    usage: Option<Usage>,
    bytes: u64,
    /// Whether it ended, and with which error.
    ended: Option<Option<LlmError>>,
}

impl Progress {
    fn new(choices: u32) -> Self {
        Self {
            choices: choices.clamp(1, 128),
            finished: 0,
            usage: None,
            bytes: 0,
            ended: None,
        }
    }

    fn see(&mut self, chunk: &Chunk) {
        for choice in &chunk.choices {
            if choice.finish_reason.is_some() {
                self.finished |= 1_u128.checked_shl(choice.index).unwrap_or(0);
            }
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        self.bytes += chunk.bytes() as u64;
    }

    fn is_complete(&self) -> bool {
        self.finished.count_ones() >= self.choices
    }

    fn end<'a>(&'a self, outcome: Outcome<'a>) -> End<'a> {
        End {
            outcome,
            usage: self.usage.as_ref(),
            completion: None,
            streamed_bytes: self.bytes,
        }
    }
}
