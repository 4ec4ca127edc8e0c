//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use donjon_core::BoxError;
use futures_core::Stream;
use http_body::Body;
use pin_project_lite::pin_project;
use sse_stream::SseByteStream;

pin_project! {
    /// The data of the events in a body, one text an event. Blocks without data are skipped.
    ///
    /// A last event that the end of the body leaves without its blank line counts: half an event is
    /// never valid JSON, so nothing cut is taken for whole. What is not UTF-8 is replaced (U+FFFD), as
    /// the standard has it, so that it spoils no more than its own event.
    pub struct EventData<B>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        #[pin]
        events: SseByteStream<Frames<B>>,
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
    /// What came is no stream of events.
    Invalid(BoxError),
}

impl<B> EventData<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads events of at most about `max_event` bytes from `body`.
    pub fn new(body: B, max_event: usize) -> Self {
        Self {
            events: SseByteStream::new(Frames {
                body,
                ended: false,
                max_event,
                unfinished: Unfinished::default(),
                held: Vec::new(),
            }),
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
    /// The data frames of a body as UTF-8, and a blank line at its end.
    struct Frames<B> {
        #[pin]
        body: B,
        ended: bool,
        max_event: usize,
        unfinished: Unfinished,
        // The beginning of a character that the last frame cut.
        held: Vec<u8>,
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
        if this.unfinished.bytes > *this.max_event {
            *this.ended = true;
            return Poll::Ready(Some(Err(EventError::TooLarge(*this.max_event))));
        }
        loop {
            match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    let piece = utf8(data, this.held);
                    if piece.has_remaining() {
                        // A piece is in one part: `utf8` sees to it.
                        this.unfinished.read(piece.chunk());
                        return Poll::Ready(Some(Ok(piece)));
                    }
                }
                Some(Err(error)) => {
                    *this.ended = true;
                    return Poll::Ready(Some(Err(EventError::Body(error.into()))));
                }
                None => {
                    *this.ended = true;
                    let end = if this.held.is_empty() {
                        "\n\n"
                    } else {
                        "\u{fffd}\n\n"
                    };
                    return Poll::Ready(Some(Ok(Piece::End(end.as_bytes()))));
                }
            }
        }
    }
}

/// What was read of an event that has not ended. Comments are not kept, and do not count.
struct Unfinished {
    bytes: usize,
    comment: bool,
    last: u8,
}

impl Default for Unfinished {
    fn default() -> Self {
        Self {
            bytes: 0,
            comment: false,
            last: b'\n',
        }
    }
}

impl Unfinished {
    fn read(&mut self, text: &[u8]) {
        // A frame mostly ends where an event does.
        if text.ends_with(b"\n\n") {
            *self = Self::default();
            return;
        }
        for &byte in text {
            let line_end = matches!(byte, b'\n' | b'\r');
            let second_half = self.last == b'\r' && byte == b'\n';
            if matches!(self.last, b'\n' | b'\r') && !second_half {
                self.comment = byte == b':';
                if line_end {
                    self.bytes = 0;
                }
            }
            if !self.comment {
                self.bytes += 1;
            }
            self.last = byte;
        }
    }
}

/// What `held` and `data` say, in one part and as UTF-8; a character that is cut at the end is held
/// for the next time.
fn utf8<D: Buf>(mut data: D, held: &mut Vec<u8>) -> Piece<D> {
    let in_one_part = data.chunk().len() == data.remaining();
    if held.is_empty() && in_one_part && std::str::from_utf8(data.chunk()).is_ok() {
        return Piece::Data(data);
    }
    let mut bytes = std::mem::take(held);
    bytes.reserve(data.remaining());
    while data.has_remaining() {
        let part = data.chunk();
        bytes.extend_from_slice(part);
        let read = part.len();
        data.advance(read);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut parts = bytes.utf8_chunks().peekable();
    while let Some(part) = parts.next() {
        text.push_str(part.valid());
        let is_cut = |invalid| match std::str::from_utf8(invalid) {
            Ok(_) => false,
            Err(error) => error.error_len().is_none(),
        };
        if part.invalid().is_empty() {
            continue;
        }
        if parts.peek().is_none() && is_cut(part.invalid()) {
            held.extend_from_slice(part.invalid());
        } else {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Piece::Text(text.into())
}

enum Piece<D> {
    Data(D),
    Text(Bytes),
    End(&'static [u8]),
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Data(data) => data.remaining(),
            Self::Text(text) => text.remaining(),
            Self::End(end) => end.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Data(data) => data.chunk(),
            Self::Text(text) => text.chunk(),
            Self::End(end) => end,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Data(data) => data.advance(count),
            Self::Text(text) => text.advance(count),
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
