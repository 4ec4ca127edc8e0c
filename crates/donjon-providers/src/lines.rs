//! JSON texts, one a line (<https://github.com/ndjson/ndjson-spec>).

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use donjon_core::BoxError;
use futures_core::Stream;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::sse::EventError;

pin_project! {
    /// The lines of a body, without their ends. Lines of white space alone are skipped.
    ///
    /// A last line that the end of the body leaves without its line end counts: half a JSON object is
    /// none, so nothing cut is taken for whole. What is not UTF-8 is replaced (U+FFFD).
    pub struct LineData<B> {
        #[pin]
        body: B,
        read: BytesMut,
        // How much of `read` holds no line end.
        searched: usize,
        ended: bool,
        max_line: usize,
    }
}

impl<B> LineData<B> {
    /// Reads lines of at most about `max_line` bytes from `body`.
    pub fn new(body: B, max_line: usize) -> Self {
        Self {
            body,
            read: BytesMut::new(),
            searched: 0,
            ended: false,
            max_line,
        }
    }
}

impl<B> Stream for LineData<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Item = Result<String, EventError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            let end = this.read[*this.searched..].iter().position(|b| *b == b'\n');
            let line = match end {
                Some(at) => {
                    let line = this.read.split_to(*this.searched + at + 1);
                    *this.searched = 0;
                    line
                }
                None if *this.ended => {
                    *this.searched = 0;
                    this.read.split()
                }
                None => {
                    *this.searched = this.read.len();
                    // The bound is on what is gathered from several frames.
                    if this.read.len() > *this.max_line {
                        *this.ended = true;
                        (*this.searched, *this.read) = (0, BytesMut::new());
                        return Poll::Ready(Some(Err(EventError::TooLarge(*this.max_line))));
                    }
                    match ready!(this.body.as_mut().poll_frame(cx)) {
                        Some(Ok(frame)) => {
                            if let Ok(data) = frame.into_data() {
                                this.read.reserve(data.remaining());
                                this.read.put(data);
                            }
                        }
                        Some(Err(error)) => {
                            *this.ended = true;
                            // Half a line says nothing.
                            (*this.searched, *this.read) = (0, BytesMut::new());
                            return Poll::Ready(Some(Err(EventError::Body(error.into()))));
                        }
                        None => *this.ended = true,
                    }
                    continue;
                }
            };
            let text = line.trim_ascii();
            if !text.is_empty() {
                let text = String::from_utf8_lossy(text).into_owned();
                return Poll::Ready(Some(Ok(text)));
            }
            if *this.ended && this.read.is_empty() {
                return Poll::Ready(None);
            }
        }
    }
}

impl<B> fmt::Debug for LineData<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineData")
    }
}
