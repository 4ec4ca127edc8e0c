//! The body of an answer.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use donjon_core::{Body as LlmBody, BoxLlmFuture, Head, LlmError, ResponseStream};
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::{
    dialect::{self, Context, Events},
    future::Exchange,
    sse, streamed,
};

/// The most bytes of events that share a frame, and so a write.
const MAX_FRAME: usize = 16 * 1024;
/// The most chunks that are pulled in one poll, so that a stream which is always ready does not
/// keep its thread.
const MAX_CHUNKS: usize = 128;

/// The body of an answer: JSON, or server-sent events that are pulled from the model's stream as
/// the connection takes them. Dropping it ends the stream, and with it the exchange upstream.
#[derive(Debug)]
pub struct ServeBody {
    state: State,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "boxing would allocate for every stream"
)]
enum State {
    Whole(Bytes),
    Events(EventBody),
}

impl ServeBody {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            state: State::Whole(bytes.into()),
        }
    }

    /// The events of an answer that has committed.
    pub(crate) fn stream(head: Head, stream: ResponseStream, exchange: &Exchange) -> Self {
        let mut body = EventBody::new(exchange);
        body.begin(head, stream);
        Self {
            state: State::Events(body),
        }
    }

    /// The events of an answer that has not come yet, opened early.
    pub(crate) fn early(call: BoxLlmFuture, exchange: &Exchange) -> Self {
        let mut body = EventBody::new(exchange);
        body.source = Source::Call(call);
        // What stands between often sends the head on only once there is a body.
        body.out.extend_from_slice(sse::KEEP_ALIVE);
        Self {
            state: State::Events(body),
        }
    }
}

impl Body for ServeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut self.state {
            State::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            State::Whole(bytes) => Poll::Ready(Some(std::mem::take(bytes))),
            State::Events(events) => events.poll(cx),
        };
        frame.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Whole(bytes) => bytes.is_empty(),
            State::Events(events) => events.out.is_empty() && events.source.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            State::Events(_) => SizeHint::default(),
        }
    }
}

struct EventBody {
    source: Source,
    exchange: Exchange,
    out: BytesMut,
    keep_alive: Option<KeepAlive>,
}

/// Where the events come from.
enum Source {
    /// A call that has not committed.
    Call(BoxLlmFuture),
    Stream(ResponseStream, Events),
    Ended,
}

impl Source {
    fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

impl EventBody {
    fn new(exchange: &Exchange) -> Self {
        Self {
            source: Source::Ended,
            exchange: exchange.clone(),
            out: BytesMut::new(),
            keep_alive: exchange.keep_alive().map(KeepAlive::new),
        }
    }

    fn begin(&mut self, head: Head, stream: ResponseStream) {
        let context = Context {
            head,
            clock: self.exchange.clock().clone(),
        };
        let events = Events::new(self.exchange.api, context, self.exchange.usage);
        self.source = Source::Stream(stream, events);
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Bytes>> {
        for _ in 0..MAX_CHUNKS {
            if self.out.len() >= MAX_FRAME || self.step(cx).is_pending() {
                return self.flush(cx);
            }
        }
        // It goes on being ready; if nothing came of that, others get their turn first.
        cx.waker().wake_by_ref();
        self.flush(cx)
    }

    /// Takes one step; pending when there is nothing to do now.
    fn step(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match &mut self.source {
            Source::Ended => return Poll::Pending,
            Source::Call(call) => match task::ready!(call.as_mut().poll(cx)) {
                Ok(response) => match response.body {
                    LlmBody::Stream(stream) => self.begin(response.head, stream),
                    LlmBody::Complete(completion) => {
                        let stream = streamed::chunks_of(&completion);
                        self.begin(response.head, stream);
                    }
                },
                Err(error) => self.fail(&error),
            },
            Source::Stream(stream, events) => match task::ready!(Pin::new(stream).poll_next(cx)) {
                Some(Ok(chunk)) => events.chunk(chunk, &mut self.out),
                Some(Err(error)) => self.fail(&error),
                None => {
                    events.done(&mut self.out);
                    self.source = Source::Ended;
                }
            },
        }
        Poll::Ready(())
    }

    fn fail(&mut self, error: &LlmError) {
        self.source = Source::Ended;
        dialect::error_event(self.exchange.api, error, &mut self.out);
    }

    fn flush(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Bytes>> {
        if !self.out.is_empty() {
            if let Some(keep_alive) = &mut self.keep_alive {
                keep_alive.heard();
            }
            return Poll::Ready(Some(self.out.split().freeze()));
        }
        if self.source.has_ended() {
            return Poll::Ready(None);
        }
        match &mut self.keep_alive {
            Some(keep_alive) => keep_alive
                .poll(cx)
                .map(|()| Some(Bytes::from_static(sse::KEEP_ALIVE))),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for EventBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            Source::Call(_) => "call",
            Source::Stream(..) => "stream",
            Source::Ended => "ended",
        };
        f.debug_struct("EventBody")
            .field("source", &source)
            .field("buffered", &self.out.len())
            .finish_non_exhaustive()
    }
}

/// Says when nothing was sent for too long. Its timer exists only once the stream kept somebody
/// waiting.
struct KeepAlive {
    every: Duration,
    /// Whether the timer runs since the last thing that was sent.
    runs: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl KeepAlive {
    fn new(every: Duration) -> Self {
        Self {
            every,
            runs: false,
            timer: None,
        }
    }

    fn heard(&mut self) {
        self.runs = false;
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let every = self.every;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        if !self.runs {
            timer.as_mut().reset(Instant::now() + every);
            self.runs = true;
        }
        task::ready!(timer.as_mut().poll(cx));
        self.runs = false;
        Poll::Ready(())
    }
}
