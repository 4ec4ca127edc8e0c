//! Every failure has its kind, and its cause.

use std::error::Error;
use std::future::pending;
use std::io;
use std::time::Duration;

use donjon_providers::transport::{TransportError, TransportErrorKind};
use http::Uri;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::support::{builder, chain, closed_port, get, in_memory, listen, read_head};

/// Sends a request to a host that answers with these bytes and hangs up.
async fn against(answer: &'static str) -> Result<Vec<u8>, TransportError> {
    let (connector, mut connections) = in_memory();
    let client = builder().build_with_connector(connector).unwrap();
    tokio::spawn(async move {
        let mut stream = connections.recv().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let response = client.request(get("http://a/")).await;
    assert_eq!(client.stats().in_flight, u64::from(response.is_ok()));
    let mut body = response?.into_body();
    let mut read = Vec::new();
    let end = loop {
        match body.frame().await {
            Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(error)) => break Err(error),
            None => break Ok(read),
        }
    };
    assert_eq!(
        client.stats().in_flight,
        0,
        "although the body is still here"
    );
    drop(body);
    end
}

fn cause<E: Error + 'static>(error: &TransportError) -> Option<&E> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| {
        error.source()
    })
    .find_map(|error| error.downcast_ref())
}

#[tokio::test]
async fn a_refused_connection_is_connect_and_sent_nothing() {
    let client = builder().build().unwrap();
    let address = closed_port().await;
    let error = client
        .request(get(format!("http://{address}/")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Connect);
    assert!(!error.may_have_been_sent());
    let io = cause::<io::Error>(&error).expect("the chain reaches the system's error");
    assert_eq!(io.kind(), io::ErrorKind::ConnectionRefused);
    let stats = client.stats();
    assert_eq!((stats.connections_opened, stats.in_flight), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_fails_keeps_its_own_error_in_the_chain() {
    let connector = tower::service_fn(|_: Uri| async {
        Err::<TokioIo<DuplexStream>, _>(io::Error::other("no such castle"))
    });
    let client = builder().build_with_connector(connector).unwrap();
    let error = client.request(get("http://a/")).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Connect);
    assert_eq!(chain(&error).last().unwrap(), "no such castle");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_is_a_connect_timeout_after_five_seconds() {
    let connector = tower::service_fn(|_: Uri| pending::<io::Result<TokioIo<DuplexStream>>>());
    let client = builder().build_with_connector(connector).unwrap();
    let started = Instant::now();
    let error = client.request(get("http://a/")).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::ConnectTimeout);
    assert!(!error.may_have_been_sent());
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_millis(5010),
        "{waited:?}"
    );
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test]
async fn the_connect_timeout_covers_a_tls_handshake_that_is_not_answered() {
    let address = listen(|mut stream| async move {
        let mut hello = Vec::new();
        stream.read_to_end(&mut hello).await.unwrap();
    })
    .await;
    let client = builder()
        .connect_timeout(Duration::from_millis(30))
        .build()
        .unwrap();
    let error = client
        .request(get(format!("https://{address}/")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::ConnectTimeout);
}

#[tokio::test]
async fn a_reset_before_the_head_is_closed() {
    let address = listen(|mut stream| async move {
        read_head(&mut stream).await;
        // Dropping it now sends RST rather than FIN.
        stream.set_zero_linger().unwrap();
    })
    .await;
    let client = builder().build().unwrap();
    let error = client
        .request(get(format!("http://{address}/")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Closed, "{error:?}");
    assert!(error.may_have_been_sent());
    assert!(cause::<hyper::Error>(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_before_it_took_the_request_is_closed_and_sent_nothing() {
    let (connector, mut connections) = in_memory();
    let client = builder().build_with_connector(connector).unwrap();
    let hang_up = async { drop(connections.recv().await) };
    let (response, ()) = tokio::join!(biased; client.request(get("http://a/")), hang_up);
    let error = response.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Closed, "{error:?}");
    assert!(!error.may_have_been_sent());
}

#[tokio::test(start_paused = true)]
async fn an_end_before_or_within_the_head_is_closed() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let error = against(answer).await.unwrap_err();
        assert_eq!(
            error.kind(),
            TransportErrorKind::Closed,
            "{answer:?}: {error:?}"
        );
        assert!(error.may_have_been_sent());
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_within_the_body_is_body() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfour\r\n",
    ] {
        let error = against(answer).await.unwrap_err();
        assert_eq!(
            error.kind(),
            TransportErrorKind::Body,
            "{answer:?}: {error:?}"
        );
        assert!(error.may_have_been_sent());
        assert!(cause::<hyper::Error>(&error).is_some());
    }
    let whole = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n";
    assert_eq!(against(whole).await.unwrap(), b"four");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_is_other() {
    let error = against("SSH-2.0-OpenSSH_9.9\r\n\r\n").await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Other, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_relative_uri_is_other_and_sent_nothing() {
    let (connector, _connections) = in_memory();
    let client = builder()
        .max_connections_per_host(1)
        .build_with_connector(connector)
        .unwrap();
    let error = client.request(get("/v1/models")).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Other);
    assert!(!error.may_have_been_sent());
}

#[tokio::test(start_paused = true)]
async fn no_error_shows_the_request() {
    let (connector, mut connections) = in_memory();
    let client = builder().build_with_connector(connector).unwrap();
    tokio::spawn(async move {
        read_head(&mut connections.recv().await.unwrap()).await;
    });
    let mut request = get("http://a/?key=hunter2");
    request
        .headers_mut()
        .insert("authorization", "Bearer hunter2".parse().unwrap());
    let error = client.request(request).await.unwrap_err();
    let printed = format!("{error} {error:?} {:?} {client:?}", chain(&error));
    assert!(!printed.contains("hunter2"), "{printed}");
}
