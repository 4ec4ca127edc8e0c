//! Dropping is a normal end: the host hears of it at once, and nothing is held.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::support::{
    builder, chunk, get, in_memory, listen, read_head, serve_http1, settle, text,
};

/// A paused clock moves only when no task can run: an end that is seen without any time passing was told at once.
#[tokio::test(start_paused = true)]
async fn dropping_the_response_future_closes_the_connection_at_once() {
    let (connector, mut connections) = in_memory();
    let client = builder().build_with_connector(connector).unwrap();
    let call = tokio::spawn(client.request(get("http://a/")));
    let mut host = connections.recv().await.unwrap();
    read_head(&mut host).await;
    let dropped = Instant::now();
    call.abort();
    assert_eq!(
        host.read(&mut [0; 16]).await.unwrap(),
        0,
        "the host reads the end"
    );
    assert_eq!(dropped.elapsed(), Duration::ZERO);
    settle().await;
    assert_eq!(client.stats().connections_open, 0);
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_body_closes_the_connection_at_once() {
    let (connector, mut connections) = in_memory();
    let client = builder().build_with_connector(connector).unwrap();
    let call = tokio::spawn(client.request(get("http://a/")));
    let mut host = connections.recv().await.unwrap();
    read_head(&mut host).await;
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n";
    host.write_all(head).await.unwrap();
    let mut body = call.await.unwrap().unwrap().into_body();
    assert_eq!(chunk(&mut body).await, "four");
    assert_eq!(client.stats().in_flight, 1);
    let dropped = Instant::now();
    drop(body);
    assert_eq!(
        host.read(&mut [0; 16]).await.unwrap(),
        0,
        "the host reads the end"
    );
    assert_eq!(dropped.elapsed(), Duration::ZERO);
    settle().await;
    assert_eq!(client.stats().connections_open, 0);
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection_over_tcp() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let address = listen(move |mut stream| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nfour";
            stream.write_all(head).await.unwrap();
            // An end or a reset: the client is gone either way.
            told.send(stream.read(&mut [0; 16]).await.unwrap_or(0))
                .unwrap();
        }
    })
    .await;
    let client = builder().build().unwrap();
    let response = client
        .request(get(format!("http://{address}/")))
        .await
        .unwrap();
    let mut body = response.into_body();
    chunk(&mut body).await;
    drop(body);
    let read = tokio::time::timeout(Duration::from_secs(10), ended.recv()).await;
    assert_eq!(read.expect("the host hears of it"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn after_two_thousand_requests_dropped_at_random_nothing_is_held() {
    let (connector, connections) = in_memory();
    let server = serve_http1(connections, |_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let chunks = stream::unfold(0, |sent| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            (sent < 5).then(|| {
                (
                    Ok::<_, Infallible>(Frame::data(Bytes::from("chunk"))),
                    sent + 1,
                )
            })
        });
        Response::new(StreamBody::new(Box::pin(chunks)))
    });
    let client = builder()
        .max_connections_per_host(6)
        .pool_idle_timeout(Duration::from_secs(1))
        .build_with_connector(connector)
        .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2_000 {
        let client = client.clone();
        let start = Duration::from_millis(random.u64(..2_000));
        let patience = Duration::from_millis(random.u64(..60));
        let host = ["http://a/", "http://b/"][random.usize(..2)];
        calls.spawn(async move {
            tokio::time::sleep(start).await;
            let whole = async { text(client.request(get(host)).await.unwrap()).await };
            tokio::time::timeout(patience, whole).await.is_ok()
        });
    }
    let mut finished = 0;
    while let Some(whole) = calls.join_next().await {
        finished += usize::from(whole.unwrap());
    }
    assert!(
        (200..1_900).contains(&finished),
        "{finished} finished, the rest were dropped"
    );
    let stats = client.stats();
    assert_eq!((stats.waiting, stats.in_flight), (0, 0));
    assert!(
        stats.requests_sent < 2_000,
        "some were dropped while queued: {stats:?}"
    );

    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((client.stats().connections_open, server.now()), (0, 0));
    // And every slot is free again.
    let mut bodies = Vec::new();
    for _ in 0..6 {
        bodies.push(client.request(get("http://a/")).await.unwrap().into_body());
    }
    assert_eq!(client.stats().in_flight, 6);
    for body in bodies {
        body.collect().await.unwrap();
    }
    assert_eq!(client.stats().in_flight, 0);
}
