//! Connections are kept, counted and reaped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use super::support::{
    builder, get, http1_connection, in_memory, listen, read_head, serve_http1, settle, text,
};

#[tokio::test]
async fn requests_in_turn_share_a_connection_over_tcp_and_are_counted() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let address = listen(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        http1_connection(stream, |request| async move {
            let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
            Response::new(Full::new(Bytes::from(agent)))
        })
    })
    .await;
    let client = builder().user_agent("castle/1").build().unwrap();
    for _ in 0..5 {
        let response = client
            .request(get(format!("http://{address}/")))
            .await
            .unwrap();
        assert_eq!(text(response).await, "castle/1");
        settle().await;
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    let stats = client.stats();
    assert_eq!(stats.connections_opened, 1);
    assert_eq!(stats.connections_open, 1);
    assert_eq!(stats.connections_closed, 0);
    assert_eq!(stats.requests_sent, 5);
    assert_eq!(stats.requests_reused, 4);
    assert_eq!((stats.in_flight, stats.waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_reaped_although_nobody_asks_for_it() {
    let (connector, connections) = in_memory();
    let server = serve_http1(connections, |_| async {
        Response::new(Full::new(Bytes::new()))
    });
    let client = builder()
        .pool_idle_timeout(Duration::from_secs(10))
        .build_with_connector(connector)
        .unwrap();
    client.request(get("http://a/")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!((client.stats().connections_open, server.now()), (1, 1));
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!((client.stats().connections_open, server.now()), (0, 0));
    assert_eq!(client.stats().connections_closed, 1);
}

#[tokio::test(start_paused = true)]
async fn without_keep_alive_every_request_has_a_connection_of_its_own() {
    let (connector, connections) = in_memory();
    serve_http1(connections, |_| async {
        Response::new(Full::new(Bytes::from("x")))
    });
    let client = builder()
        .keep_alive(false)
        .build_with_connector(connector)
        .unwrap();
    for _ in 0..3 {
        let response = client.request(get("http://a/")).await.unwrap();
        text(response).await;
        settle().await;
    }
    let stats = client.stats();
    assert_eq!((stats.connections_opened, stats.connections_open), (3, 0));
    assert_eq!(stats.requests_reused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_stale_connection_never_took_goes_out_on_a_new_one() {
    let (connector, mut connections) = in_memory();
    let client = builder().build_with_connector(connector).unwrap();
    let first = tokio::spawn(client.request(get("http://a/")));
    let mut stale = connections.recv().await.unwrap();
    read_head(&mut stale).await;
    stale
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    first.await.unwrap().unwrap();
    settle().await;

    // The host hangs up and, before the client's connection task can notice, the next request takes the connection from the pool.
    drop(stale);
    let second = client.request(get("http://a/"));
    let host = async {
        let mut fresh = connections.recv().await.unwrap();
        read_head(&mut fresh).await;
        fresh
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        fresh
    };
    let both = async { tokio::join!(second, host) };
    let both = tokio::time::timeout(Duration::from_secs(1), both).await;
    let (response, _fresh) = both.expect("the request goes out again");
    assert_eq!(response.unwrap().status(), 204);
    assert_eq!(client.stats().connections_opened, 2);
}

#[tokio::test(start_paused = true)]
async fn connections_close_with_the_last_clone() {
    let (connector, connections) = in_memory();
    let server = serve_http1(connections, |_| async {
        Response::new(Full::new(Bytes::new()))
    });
    let client = builder().build_with_connector(connector).unwrap();
    let clone = client.clone();
    client.request(get("http://a/")).await.unwrap();
    settle().await;
    drop(client);
    settle().await;
    assert_eq!(server.now(), 1);
    drop(clone);
    settle().await;
    assert_eq!(server.now(), 0);
}
