//! Dialling over TCP and TLS, directly or through a proxy.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::builder::{ConfigError, HttpVersion};
use super::connector::{Dial, Dialled, Dialling, oneshot};

/// TCP and TLS to a host or to the proxy in front of it.
pub(super) struct Network {
    direct: HttpsConnector<HttpConnector>,
    /// Offers no HTTP/2: a tunnel is asked for, and a forwarded request sent, in HTTP/1.1.
    to_proxy: HttpsConnector<HttpConnector>,
    tls: Arc<ClientConfig>,
    proxy: Option<Arc<Matcher>>,
}

/// What the sockets are set to.
pub(super) struct Sockets {
    pub(super) connect_timeout: Duration,
    pub(super) keepalive: Option<Duration>,
}

impl Network {
    pub(super) fn new(
        sockets: &Sockets,
        version: HttpVersion,
        roots: &[Vec<u8>],
        proxy: Option<Arc<Matcher>>,
    ) -> Result<Self, ConfigError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Without it every small write may wait 40 ms for a delayed acknowledgement.
        tcp.set_nodelay(true);
        tcp.set_keepalive(sockets.keepalive);
        // Shared out over the addresses of a host, so that a dead first one leaves time for the second.
        tcp.set_connect_timeout(Some(sockets.connect_timeout));
        let to_proxy = tls(roots)?;
        let mut tls = to_proxy.clone();
        tls.alpn_protocols = match version {
            HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
            HttpVersion::Http2PriorKnowledge => vec![b"h2".to_vec()],
        };
        let tls = Arc::new(tls);
        Ok(Self {
            direct: HttpsConnector::from((tcp.clone(), Arc::clone(&tls))),
            to_proxy: HttpsConnector::from((tcp, to_proxy)),
            tls,
            proxy,
        })
    }
}

impl Dial for Network {
    fn dial(&self, host: Uri) -> Dialling {
        let hop = self.proxy.as_ref().and_then(|proxy| proxy.intercept(&host));
        let Some(hop) = hop else {
            let direct = self.direct.clone();
            return Box::pin(async move { Ok(dialled(oneshot(direct, host).await?, false)) });
        };
        if host.scheme() == Some(&Scheme::HTTPS) {
            let mut tunnel = Tunnel::new(hop.uri().clone(), self.to_proxy.clone());
            if let Some(credentials) = hop.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            let through = HttpsConnector::from((tunnel, Arc::clone(&self.tls)));
            Box::pin(async move { Ok(dialled(oneshot(through, host).await?, false)) })
        } else {
            let to_proxy = self.to_proxy.clone();
            Box::pin(async move { Ok(dialled(oneshot(to_proxy, hop.uri().clone()).await?, true)) })
        }
    }
}

fn dialled<T>(io: T, forwarded: bool) -> Dialled
where
    T: Read + Write + Connection + Unpin + Send + 'static,
{
    let negotiated_http2 = io.connected().is_negotiated_h2();
    Dialled {
        io: Box::new(io),
        forwarded,
        negotiated_http2,
    }
}

/// TLS 1.2 and 1.3 by ring, whatever provider the process has installed, trusting Mozilla's roots and the given ones.
fn tls(roots: &[Vec<u8>]) -> Result<ClientConfig, ConfigError> {
    let mut store = RootCertStore::empty();
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for root in roots {
        store
            .add(CertificateDer::from_slice(root))
            .map_err(|error| {
                ConfigError::because("root_certificate", "is not a certificate", error)
            })?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::because("tls", "has no protocol version", error))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}
