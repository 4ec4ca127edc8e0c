//! HTTP to the provider: [`HttpClient`], a `Service<http::Request<_>>` over hyper and rustls.
//!
//! It keeps connections alive and reaps idle ones, limits exchanges per host, speaks HTTP/1.1 and HTTP/2, and goes through a proxy where
//! the environment names one. It says what failed and whether anything was sent ([`TransportError`]), and counts what it does
//! ([`HttpClient::stats`]). Dropping a response future or a body ends the exchange at once: an HTTP/1 connection is closed, an HTTP/2 stream
//! reset while its neighbours live on.
//!
//! It does not retry (but for a request that a stale connection never took), follow redirects, decompress, keep cookies or limit how long an
//! answer may take: those are other layers' concerns, or nobody's. A codec can stand on any other http service just as well.
//!
//! ```
//! use bytes::Bytes;
//! use donjon_providers::transport::{HttpClient, Proxy, TransportErrorKind};
//! use http_body_util::Full;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = HttpClient::builder()
//!     .proxy(Proxy::none())
//!     .max_connections_per_host(64)
//!     .build()?;
//! // Nobody listens here.
//! let request = http::Request::get("http://127.0.0.1:1/v1/models").body(Full::<Bytes>::default())?;
//! let error = client.request(request).await.expect_err("refused");
//! assert_eq!(error.kind(), TransportErrorKind::Connect);
//! assert!(!error.may_have_been_sent());
//! assert_eq!(client.stats().in_flight, 0);
//! # Ok(())
//! # }
//! ```

mod body;
mod builder;
mod connector;
mod dial;
mod error;
mod future;
mod proxy;
mod slots;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{PROXY_AUTHORIZATION, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use tower_service::Service;

pub use self::body::TransportBody;
pub use self::builder::{ConfigError, HttpClientBuilder, HttpVersion};
use self::connector::Connector;
pub use self::error::{TransportError, TransportErrorKind};
pub use self::future::TransportFuture;
pub use self::proxy::Proxy;
use self::slots::{Admission, Slots};
use self::stats::Counters;
pub use self::stats::TransportStats;

/// An HTTP client. Clones are cheap and share connections, limits and counters.
///
/// Needs a tokio runtime with time enabled when a request is polled. Connections close when the last clone and the last exchange are
/// gone.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    hyper: legacy::Client<Connector, Full<Bytes>>,
    slots: Arc<Slots>,
    counters: Arc<Counters>,
    user_agent: Option<HeaderValue>,
    proxy: Option<Arc<Matcher>>,
}

impl HttpClient {
    /// The options, at their defaults.
    #[must_use]
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder::new()
    }

    /// Sends a request, whose URI is absolute. It takes its slot, or its place in the queue for one, now; the rest happens as the future is
    /// polled.
    pub fn request(&self, mut request: Request<Full<Bytes>>) -> TransportFuture {
        let inner = &self.inner;
        if let Some(user_agent) = &inner.user_agent {
            request
                .headers_mut()
                .entry(USER_AGENT)
                .or_insert_with(|| user_agent.clone());
        }
        inner.authenticate_to_proxy(&mut request);
        match inner.slots.admit(request.uri()) {
            Admission::Admitted(permit) => TransportFuture::sent(self, permit, request),
            Admission::Queued(wait) => TransportFuture::queued(self.clone(), wait, request),
        }
    }

    /// What this client and its clones have done since it was built.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        self.inner.counters.snapshot()
    }
}

impl Inner {
    /// A forwarded request carries the proxy's credentials itself; a tunnelled one must not, since the host would see them.
    fn authenticate_to_proxy(&self, request: &mut Request<Full<Bytes>>) {
        let Some(proxy) = &self.proxy else { return };
        if request.uri().scheme() != Some(&Scheme::HTTP) {
            return;
        }
        if let Some(hop) = proxy.intercept(request.uri())
            && let Some(credentials) = hop.basic_auth()
        {
            request
                .headers_mut()
                .entry(PROXY_AUTHORIZATION)
                .or_insert_with(|| credentials.clone());
        }
    }
}

impl Service<Request<Full<Bytes>>> for HttpClient {
    type Response = Response<TransportBody>;
    type Error = TransportError;
    type Future = TransportFuture;

    /// Always ready: which host a request is for is not known yet.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> TransportFuture {
        self.request(request)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
