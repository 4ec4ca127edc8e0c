//! A closed-loop load generator: each connection sends its next call when it has read the answer to the last.
//!
//! Raw hyper connections with `TCP_NODELAY` on one thread, opened before the first call and kept; the answer's text is looked
//! into only so far as to see that it is whole.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::{answers, clock};

/// Where calls go, and of what kind they are.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The path, such as `/v1/chat/completions`.
    pub path: String,
    /// Whether answers are streamed.
    pub stream: bool,
}

impl Target {
    /// From `http://IP:PORT/PATH`.
    ///
    /// # Errors
    /// When `url` is none, or names its host by anything but an address.
    pub fn parse(url: &str, stream: bool) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url}: no host"))?;
        let address = authority
            .as_str()
            .parse()
            .map_err(|error| format!("{url}: {error}"))?;
        Ok(Self {
            address,
            path: uri.path().to_owned(),
            stream,
        })
    }
}

/// What a run showed. Latencies are in nanoseconds from the sending of the request.
#[derive(Debug)]
pub struct Report {
    /// Calls that were answered in full.
    pub calls: u64,
    /// Calls that were not: another status than 200, a broken connection, an answer cut short.
    pub errors: u64,
    /// What was wrong with the first of them.
    pub first_error: Option<String>,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// From the first request sent to the last answer read.
    pub elapsed: Duration,
    /// To the first bytes of the body.
    pub first: Histogram<u64>,
    /// To the end of the body.
    pub last: Histogram<u64>,
}

impl Report {
    fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("the bounds are in order");
        Self {
            calls: 0,
            errors: 0,
            first_error: None,
            bytes: 0,
            elapsed: Duration::ZERO,
            first: histogram(),
            last: histogram(),
        }
    }

    /// Answered calls for each second.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run has far fewer than 2^52 calls"
    )]
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.bytes += other.bytes;
        self.first += other.first;
        self.last += other.last;
    }
}

/// Connections that are open and warm.
#[derive(Debug)]
pub struct Load {
    target: Target,
    connections: Vec<Connection>,
}

impl Load {
    /// Opens `connections` connections. Must run within a [`LocalSet`], as [`local`] provides.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn open(target: Target, connections: usize) -> io::Result<Self> {
        let mut opened = Vec::with_capacity(connections);
        for _ in 0..connections {
            opened.push(Connection::open(target.clone()).await?);
        }
        Ok(Self {
            target,
            connections: opened,
        })
    }

    /// Makes one call and says of which text its answer was.
    ///
    /// # Errors
    /// When it is not answered in full.
    pub async fn probe(&mut self) -> Result<Bytes, String> {
        let mut connection = Connection::open(self.target.clone())
            .await
            .map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        connection.call(&mut Report::new(), Some(&mut text)).await?;
        Ok(text.into())
    }

    /// Makes `calls` calls, shared among the connections as they become free.
    pub async fn run(&mut self, calls: u64) -> Report {
        let left = Rc::new(Cell::new(calls));
        let start = clock::now();
        let workers: Vec<_> = self
            .connections
            .drain(..)
            .map(|mut connection| {
                let left = Rc::clone(&left);
                tokio::task::spawn_local(async move {
                    let mut report = Report::new();
                    while let Some(rest) = left.get().checked_sub(1) {
                        left.set(rest);
                        if let Err(error) = connection.call(&mut report, None).await {
                            report.errors += 1;
                            report.first_error.get_or_insert(error);
                            // What is left on a connection after an error is unknown: take a new one.
                            if connection.reopen().await.is_err() {
                                break;
                            }
                        }
                    }
                    (connection, report)
                })
            })
            .collect();
        let mut total = Report::new();
        for worker in workers {
            let (connection, report) = worker.await.expect("a worker does not panic");
            self.connections.push(connection);
            total.merge(report);
        }
        total.elapsed = start.elapsed();
        total
    }
}

/// Runs `future` where the load generator's connections can live: on this thread, with IO and timers.
///
/// # Errors
/// When the system gives no reactor.
pub fn local<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(LocalSet::new().run_until(future)))
}

#[derive(Debug)]
struct Connection {
    target: Target,
    body: Bytes,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(target: Target) -> io::Result<Self> {
        let body = answers::request(target.stream);
        Ok(Self {
            sender: connect(target.address).await?,
            target,
            body,
        })
    }

    async fn reopen(&mut self) -> io::Result<()> {
        self.sender = connect(self.target.address).await?;
        Ok(())
    }

    /// One call, recorded in `report` if it is answered in full; its text goes to `keep`.
    async fn call(
        &mut self,
        report: &mut Report,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<(), String> {
        let told = |error: hyper::Error| error.to_string();
        let request = Request::post(&self.target.path)
            .header(header::HOST, self.target.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, "Bearer bench")
            .body(Full::new(self.body.clone()))
            .map_err(|error| error.to_string())?;
        let start = clock::now();
        self.sender.ready().await.map_err(told)?;
        let response = self.sender.send_request(request).await.map_err(told)?;
        let status = response.status();
        let mut body = response.into_body();
        let (mut first, mut bytes, mut tail) = (None, 0, Tail::default());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(told)?.into_data() else {
                continue;
            };
            first.get_or_insert_with(|| start.elapsed());
            bytes += data.len() as u64;
            tail.see(&data);
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(&data);
            }
        }
        let last = start.elapsed();
        if status != http::StatusCode::OK {
            return Err(format!("status {status}"));
        }
        if !tail.is_end(self.target.stream) {
            return Err("the answer was cut short".to_owned());
        }
        report.calls += 1;
        report.bytes += bytes;
        report
            .first
            .saturating_record(nanoseconds(first.unwrap_or(last)));
        report.last.saturating_record(nanoseconds(last));
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // What goes wrong on it is told to the call that is under way.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The last bytes of a body, by which a whole one is known.
#[derive(Debug, Default)]
struct Tail {
    last: Vec<u8>,
}

impl Tail {
    fn see(&mut self, data: &[u8]) {
        const ENOUGH: usize = 32;
        self.last
            .extend_from_slice(&data[data.len().saturating_sub(ENOUGH)..]);
        let surplus = self.last.len().saturating_sub(ENOUGH);
        self.last.drain(..surplus);
    }

    fn is_end(&self, stream: bool) -> bool {
        let last = self.last.trim_ascii_end();
        if stream {
            last.ends_with(b"data: [DONE]")
        } else {
            last.ends_with(b"}")
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_known_across_frames() {
        let mut tail = Tail::default();
        tail.see(b"data: {}\n\ndata: [DO");
        assert!(!tail.is_end(true));
        tail.see(b"NE]\n\n");
        assert!(tail.is_end(true));
        assert!(!tail.is_end(false));
    }

    #[test]
    fn a_target_is_an_address_and_a_path() {
        let target = Target::parse("http://127.0.0.1:8080/v1/chat/completions", true)
            .expect("a valid target");
        assert_eq!(
            (target.address.port(), target.path.as_str()),
            (8080, "/v1/chat/completions")
        );
        assert!(Target::parse("http://localhost:8080/", false).is_err());
    }
}
