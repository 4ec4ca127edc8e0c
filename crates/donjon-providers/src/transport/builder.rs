//! The options of a client, and what is wrong with them.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::connector::{Connector, Custom, Dial};
use super::dial::{Network, Sockets};
use super::error::BoxError;
use super::proxy::Proxy;
use super::slots::Slots;
use super::stats::Counters;
use super::{HttpClient, Inner};

/// Options for an [`HttpClient`]; made by [`HttpClient::builder`].
#[derive(Clone, Debug)]
pub struct HttpClientBuilder {
    connect_timeout: Duration,
    keep_alive: bool,
    pool_idle_timeout: Option<Duration>,
    max_idle_per_host: usize,
    max_connections_per_host: Option<usize>,
    http_version: HttpVersion,
    http2_keep_alive: Option<(Duration, Duration)>,
    tcp_keepalive: Option<Duration>,
    proxy: Option<Proxy>,
    root_certificates: Vec<Vec<u8>>,
    user_agent: String,
}

/// The HTTP versions a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpVersion {
    /// What TLS negotiates (ALPN), HTTP/2 preferred; HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 from the first byte, with TLS or without.
    Http2PriorKnowledge,
}

/// An option that makes no sense: which one, and why.
#[derive(Debug)]
pub struct ConfigError {
    field: &'static str,
    reason: Cow<'static, str>,
    source: Option<BoxError>,
}

impl HttpClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keep_alive: true,
            pool_idle_timeout: Some(Duration::from_secs(90)),
            max_idle_per_host: usize::MAX,
            max_connections_per_host: None,
            http_version: HttpVersion::Auto,
            http2_keep_alive: None,
            tcp_keepalive: Some(Duration::from_secs(60)),
            proxy: None,
            root_certificates: Vec::new(),
            user_agent: concat!("donjon/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// How long opening a connection may take: DNS, TCP, proxy and TLS together. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether a connection is kept for the next request. Default yes.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// How long an idle connection is kept; `None` keeps it until the host closes it. Default 90 s.
    ///
    /// The pool is swept once in this time, so that a connection may stand idle for twice as long; it is never used for a request after
    /// it.
    #[must_use]
    pub fn pool_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.pool_idle_timeout = timeout.into();
        self
    }

    /// How many idle connections are kept for each host. Default: no limit.
    #[must_use]
    pub fn max_idle_per_host(mut self, max: usize) -> Self {
        self.max_idle_per_host = max;
        self
    }

    /// How many exchanges may be under way with each host; further requests wait their turn, first come, first served. Default: no
    /// limit.
    ///
    /// An exchange holds its place until its response body has ended or is dropped. Over HTTP/1 this is the number of connections in
    /// use; over HTTP/2, where exchanges share a connection, of streams. A host is a scheme, a name and a port.
    ///
    /// Idle connections are beside this limit. One that goes idle just too late for the next request may make one more than the limit:
    /// see [`max_idle_per_host`](Self::max_idle_per_host).
    #[must_use]
    pub fn max_connections_per_host(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections_per_host = max.into();
        self
    }

    /// The HTTP versions spoken. Default [`HttpVersion::Auto`].
    #[must_use]
    pub fn http_version(mut self, version: HttpVersion) -> Self {
        self.http_version = version;
        self
    }

    /// Pings HTTP/2 hosts every `interval`, idle connections included, and closes a connection whose answer takes longer than `timeout`.
    /// Default: off, since some hosts take frequent pings for abuse.
    #[must_use]
    pub fn http2_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.http2_keep_alive = Some((interval, timeout));
        self
    }

    /// After how long a silence TCP probes the other side; `None` for never. Default 60 s.
    #[must_use]
    pub fn tcp_keepalive(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.tcp_keepalive = time.into();
        self
    }

    /// The proxies. Default [`Proxy::from_env`], read when the client is built.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// A further certificate (DER) to trust as a root, beside Mozilla's: of a private deployment, or a test.
    #[must_use]
    pub fn add_root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(der.into());
        self
    }

    /// The `User-Agent` of requests that have none; an empty one is not sent. Default `donjon/` and the version of this crate.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// A client over TCP and TLS.
    ///
    /// # Errors
    ///
    /// Names the option that makes no sense: a duration or a limit of zero, a proxy that is no HTTP proxy, a root that is no certificate,
    /// a user agent that is no header value.
    pub fn build(self) -> Result<HttpClient, ConfigError> {
        let proxy = self
            .proxy
            .clone()
            .unwrap_or_default()
            .parse()?
            .map(Arc::new);
        let sockets = Sockets {
            connect_timeout: self.connect_timeout,
            keepalive: self.tcp_keepalive,
        };
        let network = Network::new(
            &sockets,
            self.http_version,
            &self.root_certificates,
            proxy.clone(),
        )?;
        self.finish(Arc::new(network), proxy)
    }

    /// A client over connections of your own making, for instance in memory. It is handed `scheme://host:port/` and answers with
    /// anything hyper can read and write, TLS included if wanted.
    ///
    /// The connect timeout, the pool and the limits hold as ever; proxies, roots and TCP options are the connector's own affair. HTTP/2
    /// needs [`HttpVersion::Http2PriorKnowledge`].
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_connector<C>(self, connector: C) -> Result<HttpClient, ConfigError>
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Read + Write + Unpin + Send + 'static,
        C::Error: Into<Box<dyn StdError + Send + Sync>>,
        C::Future: Send,
    {
        self.finish(Arc::new(Custom(connector)), None)
    }

    fn finish(
        self,
        dial: Arc<dyn Dial>,
        proxy: Option<Arc<Matcher>>,
    ) -> Result<HttpClient, ConfigError> {
        not_zero("connect_timeout", Some(self.connect_timeout))?;
        not_zero("pool_idle_timeout", self.pool_idle_timeout)?;
        not_zero("tcp_keepalive", self.tcp_keepalive)?;
        let (interval, timeout) = self.http2_keep_alive.unzip();
        not_zero("http2_keep_alive.interval", interval)?;
        not_zero("http2_keep_alive.timeout", timeout)?;
        let max = match self.max_connections_per_host {
            None => None,
            Some(max) => Some(NonZeroUsize::new(max).ok_or_else(|| {
                ConfigError::new("max_connections_per_host", "is zero: nothing could be sent")
            })?),
        };
        let user_agent = HeaderValue::try_from(self.user_agent)
            .map_err(|error| ConfigError::because("user_agent", "is not a header value", error))?;

        let counters = Arc::new(Counters::default());
        let connector = Connector::new(dial, self.connect_timeout, Arc::clone(&counters));
        let mut hyper = legacy::Client::builder(TokioExecutor::new());
        hyper
            .timer(TokioTimer::new())
            // Without a timer of its own the pool never reaps.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.pool_idle_timeout)
            .pool_max_idle_per_host(if self.keep_alive {
                self.max_idle_per_host
            } else {
                0
            })
            .http2_only(self.http_version == HttpVersion::Http2PriorKnowledge)
            .http2_keep_alive_interval(interval)
            .http2_keep_alive_while_idle(true);
        if let Some(timeout) = timeout {
            hyper.http2_keep_alive_timeout(timeout);
        }
        Ok(HttpClient {
            inner: Arc::new(Inner {
                hyper: hyper.build(connector),
                slots: Slots::new(max),
                counters,
                user_agent: Some(user_agent).filter(|user_agent| !user_agent.is_empty()),
                proxy,
            }),
        })
    }
}

impl ConfigError {
    pub(super) fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field,
            reason: reason.into(),
            source: None,
        }
    }

    pub(super) fn because(
        field: &'static str,
        reason: &'static str,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(field, reason)
        }
    }

    /// The option: a method of the builder, or the environment variable it was read from.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with it, to be read after its name.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.reason)
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

fn not_zero(field: &'static str, value: Option<Duration>) -> Result<(), ConfigError> {
    if value.is_some_and(|value| value.is_zero()) {
        return Err(ConfigError::new(field, "is zero"));
    }
    Ok(())
}
