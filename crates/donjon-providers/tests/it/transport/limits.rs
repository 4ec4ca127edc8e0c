//! The limit per host: fair, and given back at every stage.

use std::future::{Future, pending};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use donjon_providers::transport::{HttpClient, TransportFuture};
use http::{Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::support::{Gauge, builder, chunk, get, in_memory, read_head, serve_http1, settle, text};

/// Polls once, without a task to wake.
fn poll(call: &mut TransportFuture) -> Poll<()> {
    Pin::new(call)
        .poll(&mut Context::from_waker(Waker::noop()))
        .map(drop)
}

#[tokio::test(start_paused = true)]
async fn requests_go_out_in_the_order_in_which_they_came() {
    let (connector, connections) = in_memory();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let arrivals = Arc::clone(&seen);
    serve_http1(connections, move |request| {
        arrivals
            .lock()
            .unwrap()
            .push(request.uri().path().to_owned());
        async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Response::new(Full::new(Bytes::from("x")))
        }
    });
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();
    // Queued in this order by `request`, polled in the opposite one.
    let mut calls: Vec<_> = (0..8)
        .map(|n| client.request(get(format!("http://a/{n}"))))
        .collect();
    assert_eq!((client.stats().in_flight, client.stats().waiting), (1, 7));
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(call) = calls.pop() {
        tasks.spawn(async move { text(call.await.unwrap()).await });
    }
    tasks.join_all().await;
    let expected: Vec<_> = (0..8).map(|n| format!("/{n}")).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!((client.stats().in_flight, client.stats().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_at_the_host_and_hosts_do_not_share_it() {
    let (connector, connections) = in_memory();
    let exchanges = Gauge::default();
    let counted = exchanges.clone();
    serve_http1(connections, move |_| {
        let open = counted.open();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(open);
            Response::new(Full::new(Bytes::from("x")))
        }
    });
    let client = builder()
        .max_connections_per_host(4)
        .build_with_connector(connector)
        .unwrap();
    for (hosts, most) in [(&["a"][..], 4), (&["a", "b"][..], 8)] {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100 {
            let call = client.request(get(format!("http://{}/", hosts[n % hosts.len()])));
            tasks.spawn(async move { text(call.await.unwrap()).await });
        }
        tasks.join_all().await;
        assert_eq!(exchanges.peak(), most);
    }
}

/// With the only slot held by `stage`, a second request waits; once `stage` is gone, it is sent.
async fn frees_the_slot<T>(client: &HttpClient, stage: T) {
    let mut next = client.request(get("http://a/next"));
    assert!(poll(&mut next).is_pending());
    assert_eq!(client.stats().waiting, 1);
    drop(stage);
    assert!(poll(&mut next).is_pending());
    assert_eq!((client.stats().waiting, client.stats().in_flight), (0, 1));
    drop(next);
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_before_its_first_poll_or_while_connecting_frees_its_slot() {
    let connector = tower::service_fn(|_: Uri| pending::<io::Result<TokioIo<DuplexStream>>>());
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();
    let unpolled = client.request(get("http://a/"));
    frees_the_slot(&client, unpolled).await;
    let mut connecting = client.request(get("http://a/"));
    assert!(poll(&mut connecting).is_pending());
    frees_the_slot(&client, connecting).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_before_its_head_or_within_its_body_frees_its_slot() {
    let (connector, mut connections) = in_memory();
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();

    let mut unanswered = Box::pin(client.request(get("http://a/")));
    let mut host = tokio::select! {
        _ = &mut unanswered => panic!("nobody answers"),
        host = connections.recv() => host.unwrap(),
    };
    let head = tokio::select! {
        _ = &mut unanswered => panic!("nobody answers"),
        head = read_head(&mut host) => head,
    };
    assert!(head.starts_with("GET / HTTP/1.1"));
    frees_the_slot(&client, unanswered).await;
    // The request that took the slot had begun to connect before it was dropped.
    while connections.try_recv().is_ok() {}

    let answered = tokio::spawn(client.request(get("http://a/")));
    let mut host = connections.recv().await.unwrap();
    read_head(&mut host).await;
    host.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour")
        .await
        .unwrap();
    let mut body = answered.await.unwrap().unwrap().into_body();
    chunk(&mut body).await;
    frees_the_slot(&client, body).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_frees_its_slot() {
    let connector = tower::service_fn(|_: Uri| async {
        Err::<TokioIo<DuplexStream>, _>(io::Error::other("refused"))
    });
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();
    for _ in 0..3 {
        client.request(get("http://a/")).await.unwrap_err();
    }
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_known_length_frees_its_slot_with_its_last_byte() {
    let (connector, connections) = in_memory();
    serve_http1(connections, |_| async {
        Response::new(Full::new(Bytes::from("four")))
    });
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();
    let mut body = client.request(get("http://a/")).await.unwrap().into_body();
    assert_eq!(client.stats().in_flight, 1);
    chunk(&mut body).await;
    assert_eq!(client.stats().in_flight, 0, "nobody polled for the end");
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_neither_loses_nor_takes_the_slot() {
    let (connector, connections) = in_memory();
    serve_http1(connections, |_| async {
        Response::new(Full::new(Bytes::from("x")))
    });
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();
    let held = client.request(get("http://a/"));
    let mut leaves_early = client.request(get("http://a/"));
    let mut leaves_granted = client.request(get("http://a/"));
    let stays = client.request(get("http://a/"));
    assert!(poll(&mut leaves_early).is_pending());
    assert!(poll(&mut leaves_granted).is_pending());
    assert_eq!(client.stats().waiting, 3);
    drop(leaves_early);
    assert_eq!(client.stats().waiting, 2);
    let mut stays = pin!(stays);
    assert!(
        stays
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    drop(held);
    // Granted, never polled again, dropped: the slot goes on to the last one.
    drop(leaves_granted);
    let response = stays.await.unwrap();
    text(response).await;
    settle().await;
    assert_eq!((client.stats().waiting, client.stats().in_flight), (0, 0));
}
