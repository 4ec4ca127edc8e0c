//! A way into the upstream without sockets, for clients that take a connector.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tower_service::Service;

use super::Running;

/// Connects to an upstream in memory, whatever the URI says; for the legacy client of hyper-util. It does not keep the
/// upstream running: after the last handle is gone it answers `ConnectionRefused`.
#[derive(Debug, Clone)]
pub struct Connector {
    pub(super) running: Weak<Running>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<MemoryStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(match self.running.upgrade() {
            Some(running) => Ok(TokioIo::new(MemoryStream(running.connect()))),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

/// The client's end of a connection in memory.
#[derive(Debug)]
pub struct MemoryStream(DuplexStream);

impl Connection for MemoryStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
