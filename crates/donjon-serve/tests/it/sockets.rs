//! Callers over TCP who leave, and callers who do not read.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use donjon_core::{Chunk, LlmError, LlmRequest, LlmResponse, ResponseStream};
use donjon_serve::Serve;
use futures_util::{StreamExt, stream};
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tower::Service;

use crate::support::{CHAT, Guard, HELLO, HELLO_STREAM, head, llm, post};

const SOON: Duration = Duration::from_secs(5);

/// Serves `service` until the runtime ends.
async fn listen<S>(service: S) -> SocketAddr
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let service = TowerToHyperService::new(Serve::new(service));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                http.serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    addr
}

/// A caller's connection; aborting the task closes it.
struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Caller {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async move {
            connection.await.ok();
        });
        Self { sender, connection }
    }

    async fn send(&mut self, body: &'static str) -> hyper::Result<Response<Incoming>> {
        let mut request = post(CHAT, body);
        request.headers_mut().insert("host", "x".parse().unwrap());
        self.sender.send_request(request).await
    }

    async fn leave(self) {
        self.connection.abort();
        self.connection.await.ok();
    }
}

#[tokio::test]
async fn leaving_in_the_middle_of_a_stream_drops_it() {
    let (guard, gone) = Guard::new();
    let guard = std::sync::Mutex::new(Some(guard));
    let guard = Arc::new(guard);
    let addr = listen(llm(move |_| {
        let guard = guard.lock().unwrap().take().unwrap();
        let silence = stream::pending().map(move |chunk| {
            let _held = &guard;
            chunk
        });
        let chunks = stream::iter([Ok(Chunk::text("one"))]).chain(silence);
        Ok(LlmResponse::stream(head(), ResponseStream::new(1, chunks)))
    }))
    .await;
    let mut caller = Caller::connect(addr).await;
    let mut body = caller.send(HELLO_STREAM).await.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(frame.starts_with(b"data: {"));
    drop(body);
    caller.leave().await;
    timeout(SOON, gone).await.expect("dropped soon").unwrap();
}

#[tokio::test]
async fn leaving_before_the_commit_point_drops_the_call() {
    for body in [HELLO, HELLO_STREAM] {
        let (guard, gone) = Guard::new();
        let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let guard = Arc::new(std::sync::Mutex::new(Some(guard)));
        let addr = listen(tower::service_fn(move |_| {
            let guard = guard.lock().unwrap().take();
            called.send(()).unwrap();
            async move {
                let _held = guard;
                std::future::pending::<Result<LlmResponse, LlmError>>().await
            }
        }))
        .await;
        let mut caller = Caller::connect(addr).await;
        tokio::select! {
            answer = caller.send(body) => panic!("no answer was given: {answer:?}"),
            _ = calls.recv() => {}
        }
        caller.leave().await;
        timeout(SOON, gone).await.expect("dropped soon").unwrap();
    }
}

#[tokio::test]
async fn who_does_not_read_stops_the_pulls() {
    let pulls = Arc::new(AtomicUsize::new(0));
    let counted = pulls.clone();
    let (guard, gone) = Guard::new();
    let guard = Arc::new(std::sync::Mutex::new(Some(guard)));
    let addr = listen(llm(move |_| {
        let (pulls, guard) = (counted.clone(), guard.lock().unwrap().take());
        let text: Box<str> = "x".repeat(16 * 1024).into();
        let endless = stream::repeat_with(move || {
            let _held = &guard;
            pulls.fetch_add(1, Relaxed);
            Ok(Chunk::text(text.clone()))
        });
        let stream = ResponseStream::new(1, endless);
        Ok(LlmResponse::stream(head(), stream))
    }))
    .await;
    let mut caller = Caller::connect(addr).await;
    let mut body = caller.send(HELLO_STREAM).await.unwrap().into_body();

    // What the sockets' buffers hold is pulled, and then nothing more.
    let stands_still = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = pulls.load(Relaxed);
            if now > 0 && now == before {
                break now;
            }
            before = now;
        }
    };
    let stood = timeout(SOON, stands_still).await.expect("it goes on");
    assert!(stood < 4096, "{stood} chunks of 16 KiB");

    // Reading starts them again.
    let read_on = async {
        while pulls.load(Relaxed) == stood {
            body.frame().await.unwrap().unwrap();
        }
    };
    timeout(SOON, read_on).await.expect("it goes on");
    drop(body);
    caller.leave().await;
    timeout(SOON, gone).await.expect("dropped soon").unwrap();
}
