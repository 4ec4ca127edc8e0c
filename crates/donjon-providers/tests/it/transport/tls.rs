//! TLS: which hosts are trusted, and what is spoken inside.

use std::sync::Arc;

use bytes::Bytes;
use donjon_providers::transport::{HttpVersion, TransportErrorKind};
use http::Response;
use http_body_util::Full;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use super::support::{builder, chain, get, http1_connection, http2_connection, listen, text};

/// A host with a certificate of its own.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: Vec<u8>,
    acceptor: TlsAcceptor,
}

impl Identity {
    pub(super) fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            certificate: certificate.to_vec(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    /// `None` if the client breaks the handshake off.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await.ok()
    }

    /// Serves what was negotiated; answers with the version, as the host saw it.
    pub(super) async fn serve(self, stream: TcpStream) {
        let Some(stream) = self.accept(stream).await else {
            return;
        };
        let answer = |request: http::Request<_>| {
            let told = format!(
                "{:?} {:?}",
                request.version(),
                request.headers().get("proxy-authorization")
            );
            async move { Response::new(Full::new(Bytes::from(told))) }
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2_connection(stream, answer).await;
        } else {
            http1_connection(stream, answer).await;
        }
    }
}

#[tokio::test]
async fn the_version_is_negotiated_with_a_host_whose_root_was_added() {
    let identity = Identity::new("127.0.0.1");
    let host = identity.clone();
    let address = listen(move |stream| host.clone().serve(stream)).await;
    for (version, told) in [
        (HttpVersion::Auto, "HTTP/2.0 None"),
        (HttpVersion::Http1, "HTTP/1.1 None"),
        (HttpVersion::Http2PriorKnowledge, "HTTP/2.0 None"),
    ] {
        let client = builder()
            .add_root_certificate(identity.certificate.clone())
            .http_version(version)
            .build()
            .unwrap();
        let response = client
            .request(get(format!("https://{address}/")))
            .await
            .unwrap();
        assert_eq!(text(response).await, told);
    }
}

#[tokio::test]
async fn a_host_that_is_not_trusted_is_connect_and_is_sent_nothing() {
    let identity = Identity::new("127.0.0.1");
    let address = listen(move |stream| identity.clone().serve(stream)).await;
    let client = builder().build().unwrap();
    let error = client
        .request(get(format!("https://{address}/")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Connect);
    assert!(!error.may_have_been_sent());
    let cause = chain(&error).join(": ");
    assert!(cause.contains("certificate"), "{cause}");
}
