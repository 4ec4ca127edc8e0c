//! How a connection is opened: any way of dialling, within a time limit, counted from open to close.

use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

use super::error::{BoxError, ConnectTimedOut};
use super::stats::Counters;

/// A way to reach a host.
pub(super) trait Dial: Send + Sync {
    fn dial(&self, host: Uri) -> Dialling;
}

pub(super) type Dialling = Pin<Box<dyn Future<Output = Result<Dialled, BoxError>> + Send>>;

/// An open connection, and what hyper must know of it.
pub(super) struct Dialled {
    pub(super) io: Box<dyn Io>,
    /// To a proxy that forwards requests, which therefore go out in absolute form.
    pub(super) forwarded: bool,
    /// TLS settled on HTTP/2.
    pub(super) negotiated_http2: bool,
}

/// Anything that hyper can read and write.
pub(super) trait Io: Read + Write + Unpin + Send {}

impl<T: Read + Write + Unpin + Send> Io for T {}

/// The connector that hyper's client is built on. Costs a few allocations a connection, none a request.
#[derive(Clone)]
pub(super) struct Connector {
    dial: Arc<dyn Dial>,
    timeout: Duration,
    counters: Arc<Counters>,
}

/// A connection that tells the counters when it closes.
pub(super) struct Counted {
    dialled: Dialled,
    counters: Arc<Counters>,
}

/// A connector that a user brought.
pub(super) struct Custom<C>(pub(super) C);

impl Connector {
    pub(super) fn new(dial: Arc<dyn Dial>, timeout: Duration, counters: Arc<Counters>) -> Self {
        Self {
            dial,
            timeout,
            counters,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Counted;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, host: Uri) -> Self::Future {
        let dialling = self.dial.dial(host);
        let timeout = self.timeout;
        let counters = Arc::clone(&self.counters);
        Box::pin(async move {
            let dialled = tokio::time::timeout(timeout, dialling)
                .await
                .map_err(|_| ConnectTimedOut(timeout))??;
            counters.connections_opened.up();
            Ok(Counted { dialled, counters })
        })
    }
}

impl<C> Dial for Custom<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Read + Write + Unpin + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    fn dial(&self, host: Uri) -> Dialling {
        let connector = self.0.clone();
        Box::pin(async move {
            Ok(Dialled {
                io: Box::new(oneshot(connector, host).await?),
                forwarded: false,
                negotiated_http2: false,
            })
        })
    }
}

/// Readies the service, then calls it.
pub(super) async fn oneshot<S>(mut service: S, host: Uri) -> Result<S::Response, BoxError>
where
    S: Service<Uri>,
    S::Error: Into<BoxError>,
{
    poll_fn(|cx| service.poll_ready(cx))
        .await
        .map_err(Into::into)?;
    service.call(host).await.map_err(Into::into)
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.connections_closed.up();
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        // Without the addresses that hyper's own TCP connector attaches: they would cost every response a few allocations.
        let connected = Connected::new().proxy(self.dialled.forwarded);
        if self.dialled.negotiated_http2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.dialled.io).poll_read(cx, buf)
    }
}

impl Write for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.dialled.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.dialled.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.dialled.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.dialled.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.dialled.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
