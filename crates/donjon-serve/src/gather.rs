//! Reading the body of a request, up to a limit.

use std::{
    pin::Pin,
    task::{self, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

pin_project! {
    /// Reads a body whole.
    pub(crate) struct Gather<B> {
        #[pin]
        body: B,
        read: Read,
        limit: usize,
        // Runs while the next frame is waited for; a body that is there never starts it.
        patience: Option<Duration>,
        #[pin]
        idle: Option<Sleep>,
    }
}

/// What was read so far. A body of one frame, which most are, is not copied.
enum Read {
    Nothing,
    One(Bytes),
    More(BytesMut),
}

/// Why a body was not read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    TooLarge,
    TooSlow,
    Broken,
}

impl<B: Body> Gather<B> {
    pub(crate) fn new(body: B, limit: usize, patience: Option<Duration>) -> Self {
        Self {
            body,
            read: Read::Nothing,
            limit,
            patience,
            idle: None,
        }
    }
}

impl<B: Body> Future for Gather<B> {
    type Output = Result<Bytes, Unread>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if matches!(this.read, Read::Nothing) && this.body.size_hint().lower() > *this.limit as u64
        {
            return Poll::Ready(Err(Unread::TooLarge));
        }
        loop {
            let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) else {
                let Some(patience) = *this.patience else {
                    return Poll::Pending;
                };
                if this.idle.is_none() {
                    this.idle.set(Some(tokio::time::sleep(patience)));
                }
                if let Some(idle) = this.idle.as_mut().as_pin_mut() {
                    ready!(idle.poll(cx));
                }
                return Poll::Ready(Err(Unread::TooSlow));
            };
            this.idle.set(None);
            match frame {
                None => {
                    let read = std::mem::replace(this.read, Read::Nothing);
                    return Poll::Ready(Ok(read.into_bytes()));
                }
                Some(Err(_)) => return Poll::Ready(Err(Unread::Broken)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        if data.remaining() > this.limit.saturating_sub(this.read.len()) {
                            return Poll::Ready(Err(Unread::TooLarge));
                        }
                        let rest = this.body.size_hint().lower();
                        let rest = usize::try_from(rest).unwrap_or(0).min(*this.limit);
                        this.read.push(data, rest);
                    }
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
            Self::More(bytes) => bytes.len(),
        }
    }

    /// Adds `data`, of which at least `rest` more bytes are announced.
    fn push(&mut self, mut data: impl Buf, rest: usize) {
        match self {
            _ if !data.has_remaining() => {}
            Self::Nothing => *self = Self::One(data.copy_to_bytes(data.remaining())),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(first.len() + data.remaining() + rest);
                all.put_slice(first);
                all.put(data);
                *self = Self::More(all);
            }
            Self::More(all) => all.put(data),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::More(bytes) => bytes.freeze(),
        }
    }
}
