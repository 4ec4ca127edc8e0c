//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{self, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use donjon_core::BoxError;
use futures_core::Stream;
use http_body::Body;
use pin_project_lite::pin_project;
use sse_stream::SseByteStream;

pin_project! {
    /// The data of the events in a body, one text an event. Blocks without data are skipped.
    ///
    /// A last event that the end of the body leaves without its blank line counts: half an event is
    /// never valid JSON, so nothing cut is taken for whole.
    pub struct EventData<B>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        #[pin]
        events: SseByteStream<Frames<B>>,
        // Bytes read since the last event.
        unfinished: Arc<AtomicUsize>,
    }
}

/// Why a stream of events ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventError {
    /// The body broke off.
    Body(BoxError),
    /// One event is larger than the bound, in bytes.
    TooLarge(usize),
    /// What came is no stream of events: it is not UTF-8.
    Invalid(BoxError),
}

impl<B> EventData<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads events of at most about `max_event` bytes from `body`.
    pub fn new(body: B, max_event: usize) -> Self {
        let unfinished = Arc::new(AtomicUsize::new(0));
        Self {
            events: SseByteStream::new(Frames {
                body,
                ended: false,
                max_event,
                unfinished: unfinished.clone(),
            }),
            unfinished,
        }
    }
}

impl<B> Stream for EventData<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Item = Result<String, EventError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            let event = match ready!(this.events.as_mut().poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(event)) => event,
                Some(Err(sse_stream::Error::Body(cause))) => {
                    let error = match cause.downcast::<EventError>() {
                        Ok(own) => *own,
                        Err(other) => EventError::Body(other),
                    };
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Err(other)) => {
                    return Poll::Ready(Some(Err(EventError::Invalid(other.into()))));
                }
            };
            this.unfinished.store(0, Relaxed);
            if let Some(data) = event.data {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}

impl<B> fmt::Debug for EventData<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventData")
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(_) => f.write_str("the stream broke off"),
            Self::TooLarge(bound) => write!(f, "an event is larger than {bound} bytes"),
            Self::Invalid(_) => f.write_str("the stream is not one of events"),
        }
    }
}

impl Error for EventError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Body(cause) | Self::Invalid(cause) => Some(&**cause),
            Self::TooLarge(_) => None,
        }
    }
}

pin_project! {
    /// The data frames of a body, and a blank line at its end.
    struct Frames<B> {
        #[pin]
        body: B,
        ended: bool,
        max_event: usize,
        unfinished: Arc<AtomicUsize>,
    }
}

impl<B> Stream for Frames<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Item = Result<Piece<B::Data>, EventError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        // What one frame holds is there already; the bound is on what is gathered from several.
        if this.unfinished.load(Relaxed) > *this.max_event {
            *this.ended = true;
            return Poll::Ready(Some(Err(EventError::TooLarge(*this.max_event))));
        }
        loop {
            match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.unfinished.fetch_add(data.remaining(), Relaxed);
                        return Poll::Ready(Some(Ok(Piece::Data(data))));
                    }
                }
                Some(Err(error)) => {
                    *this.ended = true;
                    return Poll::Ready(Some(Err(EventError::Body(error.into()))));
                }
                None => {
                    *this.ended = true;
                    return Poll::Ready(Some(Ok(Piece::End(b"\n\n"))));
                }
            }
        }
    }
}

enum Piece<D> {
    Data(D),
    End(&'static [u8]),
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Data(data) => data.remaining(),
            Self::End(end) => end.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Data(data) => data.chunk(),
            Self::End(end) => end,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Data(data) => data.advance(count),
            Self::End(end) => end.advance(count),
        }
    }
}

/// Appends an event named `name` with `json` as its data.
pub(crate) fn write_event(out: &mut BytesMut, name: &str, json: &[u8]) {
    out.reserve(name.len() + json.len() + 16);
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    if json.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        // A line end in JSON is white space between tokens; each line is a data line of its own.
        let mut lines = json
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .filter(|line| !line.is_empty());
        out.put_slice(lines.next().unwrap_or_default());
        for line in lines {
            out.put_slice(b"\ndata: ");
            out.put_slice(line);
        }
    } else {
        out.put_slice(json);
    }
    out.put_slice(b"\n\n");
}
