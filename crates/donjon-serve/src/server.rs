//! A plain TCP server for an http service: HTTP/1 and HTTP/2, `TCP_NODELAY`, a limit on how long a
//! request's head may take, and an end that waits for the answers that are under way.
//!
//! It has no TLS: put a proxy or your own accept loop before it where you need that.

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

/// How long accepting is left alone after it failed, as it does while the process has no file
/// descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often the caller at the other end of an HTTP/2 connection is asked whether it is still there,
/// and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Listens at `addr`; port 0 picks one, which [`TcpListener::local_addr`] tells.
///
/// # Errors
///
/// When the address cannot be listened at.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves `service` to whoever connects to `listener`, with the defaults of [`Server`], until
/// `shutdown` resolves and the answers under way have ended.
pub async fn serve<S, B>(listener: TcpListener, service: S, shutdown: impl Future)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    Server::default().serve(listener, service, shutdown).await;
}

/// How connections are served.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    header_timeout: Duration,
    drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Server {
    /// Serves connections with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the head of a request may take, a connection may be open before its first request,
    /// and (HTTP/1) it may idle between two. Default 60 s.
    #[must_use]
    pub const fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// How long the answers under way may take once the server shuts down. Default 30 s.
    #[must_use]
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Serves `service` to whoever connects to `listener`, until `shutdown` resolves and the
    /// answers under way have ended or had their time.
    pub async fn serve<S, B>(self, listener: TcpListener, service: S, shutdown: impl Future)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let stream = tokio::select! {
                accepted = accept(&listener) => accepted,
                _ = shutdown.as_mut() => break,
            };
            let asked = Arc::new(AtomicBool::new(false));
            let service = TowerToHyperService::new(service.clone());
            let service = service_fn({
                let asked = asked.clone();
                move |request| {
                    asked.store(true, Relaxed);
                    service.call(request)
                }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection.into_owned());
            tokio::spawn(async move {
                tokio::select! {
                    // A connection that breaks is its caller's business.
                    _ = connection => {}
                    () = nothing_asked(&asked, self.header_timeout) => {}
                }
            });
        }
        drop(listener);
        tokio::time::timeout(self.drain_timeout, graceful.shutdown())
            .await
            .ok();
    }
}

/// Resolves if nothing was asked within `timeout`. The HTTP versions have timers of their own, but
/// none runs until the first bytes have told which version it is.
async fn nothing_asked(asked: &AtomicBool, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    if asked.load(Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// The next connection. Without `TCP_NODELAY` the kernel would hold a small chunk back until the
/// caller has acknowledged the one before it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true).ok();
                return stream;
            }
            // Somebody left before being let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
