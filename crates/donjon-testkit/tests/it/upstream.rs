//! The upstream as a client sees it: through raw hyper or raw bytes, never through this workspace's own codecs.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod dialects;
mod errors;
mod every_dialect;
mod faults;
mod framing;
mod recording;

use std::time::Duration;

use bytes::Bytes;
use donjon_testkit::upstream::{Dialect, Seen, Upstream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

type Client = SendRequest<Full<Bytes>>;

/// A hyper client over any connection.
async fn client(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
    let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

fn path(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Anthropic {
        "/v1/messages"
    } else {
        "/v1/chat/completions"
    }
}

fn ask(stream: bool) -> Value {
    json!({"model": "m-1", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": stream})
}

fn request(path: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "upstream")
        .header("content-type", "application/json")
        .header("anthropic-version", "2023-06-01")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Asks over a connection in memory.
async fn call(upstream: &Upstream, path: &str, body: &Value) -> Response<Incoming> {
    client(upstream.connect())
        .await
        .send_request(request(path, body))
        .await
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}

/// Everything of a body up to its end or its failure.
async fn whatever_came(response: Response<Incoming>) -> (String, Option<hyper::Error>) {
    let mut body = response.into_body();
    let mut all = Vec::new();
    let error = loop {
        match body.frame().await {
            Some(Ok(frame)) => all.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    (String::from_utf8(all).unwrap(), error)
}

/// The streamed answer to a script, as text.
async fn streamed(dialect: Dialect, script: donjon_testkit::upstream::Script) -> String {
    let upstream = Upstream::builder().script(script).in_memory();
    text(call(&upstream, path(dialect), &ask(true)).await).await
}

/// The payloads of a stream in plain framing.
fn payloads(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// A request as bytes.
fn raw_request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: upstream\r\nanthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A raw connection on which a request was sent.
async fn raw_call(upstream: &Upstream, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(upstream.addr()).await.unwrap();
    stream
        .write_all(raw_request("/v1/chat/completions", body).as_bytes())
        .await
        .unwrap();
    stream
}

/// Reads to the end: what came, and whether the end was in order.
async fn read_out(mut io: impl AsyncRead + Unpin) -> (String, std::io::Result<()>) {
    let mut all = Vec::new();
    let end = io.read_to_end(&mut all).await.map(drop);
    (String::from_utf8_lossy(&all).into_owned(), end)
}

/// Waits for a condition, but not for ever.
async fn until(upstream: &Upstream, condition: impl FnMut(&Seen) -> bool) -> Seen {
    let wait = upstream.wait_for(condition);
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the upstream saw it in time")
}
