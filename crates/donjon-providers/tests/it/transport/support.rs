//! Servers, on loopback and in memory, and short ways to talk to them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use donjon_providers::transport::{HttpClient, HttpClientBuilder, Proxy, TransportBody};
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::Service;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A builder that the environment of the test run does not reach.
pub(super) fn builder() -> HttpClientBuilder {
    HttpClient::builder().proxy(Proxy::none())
}

pub(super) fn get(uri: impl AsRef<str>) -> Request<Full<Bytes>> {
    Request::get(uri.as_ref()).body(Full::default()).unwrap()
}

pub(super) async fn text<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Lets every task that can run do so, a few times over.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// The next chunk of a body.
pub(super) async fn chunk(body: &mut TransportBody) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

/// Connects in memory: every connection's far end goes to the test.
pub(super) fn in_memory() -> (
    impl Service<Uri, Response = TokioIo<DuplexStream>, Error = io::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    mpsc::UnboundedReceiver<DuplexStream>,
) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let connector = tower::service_fn(move |_: Uri| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let sent = sender.send(far);
        async move {
            sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok(TokioIo::new(near))
        }
    });
    (connector, receiver)
}

/// A gauge of what is open, with its peak.
#[derive(Clone, Default)]
pub(super) struct Gauge {
    now: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

pub(super) struct Open(Gauge);

impl Gauge {
    pub(super) fn open(&self) -> Open {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        Open(self.clone())
    }

    pub(super) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves HTTP/1 on every connection that comes, until the client is gone.
pub(super) fn serve_http1<H, F, B>(
    mut connections: mpsc::UnboundedReceiver<DuplexStream>,
    handler: H,
) -> Gauge
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let gauge = Gauge::default();
    let counted = gauge.clone();
    tokio::spawn(async move {
        while let Some(stream) = connections.recv().await {
            let open = counted.open();
            let handler = handler.clone();
            tokio::spawn(async move {
                let _open = open;
                http1_connection(stream, handler).await;
            });
        }
    });
    gauge
}

pub(super) async fn http1_connection<T, H, F, B>(stream: T, handler: H)
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
{
    let service = service_fn(|request| {
        let response = handler(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    // Clients that leave in the middle are what is tested.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub(super) async fn http2_connection<T, H, F, B>(stream: T, handler: H)
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let service = service_fn(|request| {
        let response = handler(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Listens on loopback and hands each connection to `connection`; answers with `127.0.0.1:port`.
pub(super) async fn listen<H, F>(connection: H) -> String
where
    H: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(connection(stream));
        }
    });
    address
}

/// An address that nobody listens on.
pub(super) async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Reads the head of a message, byte by byte, so that nothing behind it is lost.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Every error in the chain, outermost first.
pub(super) fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source())
        .map(|error| error.to_string())
        .collect()
}
