//! HTTP/2: one connection, many streams, each with an end of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use donjon_providers::transport::{HttpVersion, TransportErrorKind};
use futures_util::stream;
use http::{Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::support::{Gauge, builder, chunk, get, http2_connection, in_memory, settle};

type Chunks = mpsc::UnboundedReceiver<Bytes>;

/// A body that sends what comes through a channel and counts as open until it is dropped.
fn trickle(
    chunks: Chunks,
    gauge: &Gauge,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + use<> {
    let state = (chunks, gauge.open());
    let frames = stream::unfold(state, |(mut chunks, open)| async {
        let chunk = chunks.recv().await?;
        Some((Ok(Frame::data(chunk)), (chunks, open)))
    });
    StreamBody::new(Box::pin(frames))
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_resets_it_and_leaves_its_neighbour_alive() {
    let (connector, mut connections) = in_memory();
    let (streams, mut opened) = mpsc::unbounded_channel();
    let gauge = Gauge::default();
    let counted = gauge.clone();
    tokio::spawn(async move {
        let connection = connections.recv().await.unwrap();
        http2_connection(connection, |_| {
            let (sender, chunks) = mpsc::unbounded_channel();
            sender.send(Bytes::from("first")).unwrap();
            streams.send(sender).unwrap();
            let body = trickle(chunks, &counted);
            async { Response::new(body) }
        })
        .await;
    });
    let client = builder()
        .http_version(HttpVersion::Http2PriorKnowledge)
        .build_with_connector(connector)
        .unwrap();

    let response = client.request(get("http://a/")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let mut leaves = response.into_body();
    let mut stays = client.request(get("http://a/")).await.unwrap().into_body();
    let _first = opened.recv().await.unwrap();
    let neighbour = opened.recv().await.unwrap();
    assert_eq!(chunk(&mut leaves).await, "first");
    assert_eq!(chunk(&mut stays).await, "first");
    assert_eq!((gauge.now(), client.stats().in_flight), (2, 2));

    let dropped = Instant::now();
    drop(leaves);
    settle().await;
    assert_eq!(
        (gauge.now(), client.stats().in_flight),
        (1, 1),
        "the host let go of the one"
    );
    assert_eq!(dropped.elapsed(), Duration::ZERO);
    neighbour.send(Bytes::from("second")).unwrap();
    assert_eq!(chunk(&mut stays).await, "second");
    drop(neighbour);
    assert!(stays.collect().await.unwrap().to_bytes().is_empty());
    let stats = client.stats();
    assert_eq!((stats.connections_opened, stats.connections_open), (1, 1));
    assert_eq!(
        (stats.requests_sent, stats.requests_reused, stats.in_flight),
        (2, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_a_response_future_resets_its_stream_alone() {
    let (connector, mut connections) = in_memory();
    let gauge = Gauge::default();
    let counted = gauge.clone();
    let answer = Arc::new(tokio::sync::Notify::new());
    let go = Arc::clone(&answer);
    tokio::spawn(async move {
        let connection = connections.recv().await.unwrap();
        http2_connection(connection, |_| {
            let (open, go) = (counted.open(), Arc::clone(&go));
            async move {
                go.notified().await;
                drop(open);
                Response::new(String::from("x"))
            }
        })
        .await;
    });
    let client = builder()
        .http_version(HttpVersion::Http2PriorKnowledge)
        .build_with_connector(connector)
        .unwrap();
    let leaves = tokio::spawn(client.request(get("http://a/")));
    let stays = tokio::spawn(client.request(get("http://a/")));
    settle().await;
    assert_eq!(gauge.now(), 2);
    leaves.abort();
    settle().await;
    assert_eq!((gauge.now(), client.stats().in_flight), (1, 1));
    answer.notify_waiters();
    assert_eq!(stays.await.unwrap().unwrap().status(), 200);
    assert_eq!(client.stats().connections_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_answers_no_ping_is_given_up() {
    let (connector, mut connections) = in_memory();
    let client = builder()
        .http_version(HttpVersion::Http2PriorKnowledge)
        .http2_keep_alive(Duration::from_secs(20), Duration::from_secs(3))
        .build_with_connector(connector)
        .unwrap();
    let started = Instant::now();
    let call = tokio::spawn(client.request(get("http://a/")));
    // Open, and silent.
    let _host = connections.recv().await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Closed, "{error:?}");
    let waited = started.elapsed();
    assert!((23..25).contains(&waited.as_secs()), "{waited:?}");
    settle().await;
    assert_eq!(client.stats().connections_open, 0);
}
