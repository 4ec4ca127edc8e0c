//! Reading a body whole, up to a bound.

use std::{
    pin::Pin,
    task::{self, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use donjon_core::BoxError;
use http_body::Body;
use pin_project_lite::pin_project;

pin_project! {
    /// Reads a body of at most `limit` bytes.
    pub(super) struct Collect<B> {
        #[pin]
        body: B,
        read: Read,
        limit: usize,
    }
}

/// What was read so far. A body of one frame, as most are, is not copied.
enum Read {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

/// Why a body was not read whole.
pub(super) enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off.
    Broken(BoxError),
}

impl<B> Collect<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self {
            body,
            read: Read::Nothing,
            limit,
        }
    }
}

impl<B> Future for Collect<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Bytes, Unread>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            // What is announced to be too large is not begun, nor is its memory reserved.
            let ahead = usize::try_from(this.body.size_hint().lower()).unwrap_or(usize::MAX);
            if ahead > this.limit.saturating_sub(this.read.len()) {
                return Poll::Ready(Err(Unread::TooLarge));
            }
            match ready!(this.body.as_mut().poll_frame(cx)) {
                None => {
                    let read = std::mem::replace(this.read, Read::Nothing);
                    return Poll::Ready(Ok(read.into_bytes()));
                }
                Some(Err(error)) => return Poll::Ready(Err(Unread::Broken(error.into()))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if data.remaining() > this.limit.saturating_sub(this.read.len()) {
                        return Poll::Ready(Err(Unread::TooLarge));
                    }
                    let ahead = usize::try_from(this.body.size_hint().lower()).unwrap_or(0);
                    this.read.push(data, ahead.min(*this.limit));
                }
            }
        }
    }
}

impl Read {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    /// Adds `data`, after which at least `ahead` more bytes come.
    fn push(&mut self, mut data: impl Buf, ahead: usize) {
        match self {
            _ if !data.has_remaining() => {}
            Self::Nothing => *self = Self::One(data.copy_to_bytes(data.remaining())),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(first.len() + data.remaining() + ahead);
                all.put_slice(first);
                all.put(data);
                *self = Self::Many(all);
            }
            Self::Many(all) => all.put(data),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}
