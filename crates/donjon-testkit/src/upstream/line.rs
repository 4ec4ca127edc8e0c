//! The connection under the HTTP server: where faults below HTTP are made.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Either kind of connection the upstream serves.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(TcpStream),
    Memory(DuplexStream),
}

/// A connection that obeys the orders of the script being played on it.
#[derive(Debug)]
pub(super) struct Line {
    io: Io,
    control: Arc<Control>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Line {
    pub(super) fn new(io: Io) -> Self {
        Self {
            io,
            control: Arc::default(),
            pause: None,
        }
    }

    pub(super) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }
}

/// How a script gives orders to the connection it is played on.
#[derive(Debug, Default)]
pub(super) struct Control(Mutex<Orders>);

#[derive(Debug, Default)]
struct Orders {
    /// Written instead of what HTTP would write; then the connection closes.
    instead: Option<Bytes>,
    /// How many more bytes may pass before the connection breaks.
    allowance: Option<usize>,
    /// The head of the response passes in pieces of this size, this far apart.
    trickle: Option<(usize, Duration)>,
    /// How much of the blank line that ends the head has passed.
    blank: usize,
    /// Close with a TCP reset rather than in order.
    reset: bool,
}

impl Control {
    pub(super) fn write_instead(&self, bytes: Bytes) {
        self.orders().instead = Some(bytes);
    }

    pub(super) fn break_after(&self, bytes: usize) {
        self.orders().allowance = Some(bytes);
    }

    pub(super) fn trickle_head(&self, bytes: usize, every: Duration) {
        let mut orders = self.orders();
        orders.trickle = Some((bytes, every));
        orders.blank = 0;
    }

    pub(super) fn close_by_reset(&self) {
        self.orders().reset = true;
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    /// Notes bytes that passed while the head trickles, and stops trickling once the head is over.
    fn head_passed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.blank = match (byte, self.blank) {
                (b'\r', 0 | 2) | (b'\n', 1 | 3) => self.blank + 1,
                (b'\r', _) => 1,
                _ => 0,
            };
            if self.blank == 4 {
                self.trickle = None;
                return;
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut orders = this.control.orders();
        if let Some(garbage) = &mut orders.instead {
            while garbage.has_remaining() {
                let written = ready!(Pin::new(&mut this.io).poll_write(cx, garbage))?;
                garbage.advance(written);
            }
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut buf = match orders.allowance {
            Some(0) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(allowance) => &buf[..allowance.min(buf.len())],
            None => buf,
        };
        if let Some((piece, _)) = orders.trickle {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            buf = &buf[..piece.max(1).min(buf.len())];
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        if let Some(allowance) = &mut orders.allowance {
            *allowance -= written;
        }
        if let Some((_, every)) = orders.trickle {
            orders.head_passed(&buf[..written]);
            this.pause = orders.trickle.is_some().then(|| Box::pin(sleep(every)));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Io::Tcp(stream) = &self.io
            && self.control.orders().reset
        {
            // Best effort: a socket that refuses the option is closed in order.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Memory(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Memory(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Memory(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Memory(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}
