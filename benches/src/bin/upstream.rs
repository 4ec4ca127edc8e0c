//! A fast upstream with fixed answers in the shape of OpenAI's: `upstream [--listen ADDR] [--gap-us N]`.
//!
//! Streamed chunks are all ready at once, or `--gap-us` microseconds apart (rounded up to whole milliseconds, as tokio's timers
//! are). One thread.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints where it listens"
)]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use donjon_benches::answers;
use donjon_benches::args::Args;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::from_env(&[])?;
    let gap = Duration::from_micros(args.or("gap-us", 0)?);
    let listener =
        TcpListener::bind(args.or("listen", SocketAddr::from(([127, 0, 0, 1], 0)))?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let answers = Answers {
        complete: answers::complete(),
        events: answers::events(),
        gap,
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        let service = service_fn(move |request| answers.clone().answer(request));
        tokio::spawn(async move {
            // A client that leaves is no concern of ours.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[derive(Clone)]
struct Answers {
    complete: Bytes,
    events: Vec<Bytes>,
    gap: Duration,
}

impl Answers {
    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
        let body = request.into_body().collect().await?.to_bytes();
        let (status, kind, body) = match serde_json::from_slice::<Asked>(&body) {
            Ok(Asked { stream: false }) => (
                StatusCode::OK,
                "application/json",
                Full::new(self.complete).boxed_unsync(),
            ),
            Ok(Asked { stream: true }) => (StatusCode::OK, "text/event-stream", self.streamed()),
            Err(error) => (
                StatusCode::BAD_REQUEST,
                "text/plain",
                Full::from(error.to_string()).boxed_unsync(),
            ),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        Ok(response)
    }

    fn streamed(self) -> UnsyncBoxBody<Bytes, Infallible> {
        let gap = self.gap;
        let frames = stream::iter(self.events)
            .enumerate()
            .then(move |(index, event)| async move {
                if !gap.is_zero() && index > 0 {
                    tokio::time::sleep(gap).await;
                }
                Ok(Frame::data(event))
            });
        StreamBody::new(frames).boxed_unsync()
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    stream: bool,
}
