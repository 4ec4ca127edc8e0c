//! What the upstream remembers, and that it notices at once when its peer leaves.

use std::time::Duration;

use bytes::Bytes;
use donjon_testkit::upstream::{Dialect, End, Failure, Script, Upstream};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance};

use super::{ask, call, client, raw_call, raw_request, request, text, until};

#[tokio::test]
async fn a_request_is_written_down_as_it_came() {
    let upstream = Upstream::builder().start().await.unwrap();
    let mut connection = client(TcpStream::connect(upstream.addr()).await.unwrap()).await;
    let before = Instant::now();
    let mut first = request("/v1/messages?beta=true", &ask(false));
    first
        .headers_mut()
        .insert("X-Api-Key", "sk-secret".parse().unwrap());
    text(connection.send_request(first).await.unwrap()).await;
    text(
        connection
            .send_request(request("/v1/chat/completions", &ask(true)))
            .await
            .unwrap(),
    )
    .await;
    call(&upstream, "/v1/chat/completions", &ask(false)).await;

    let calls = upstream.calls();
    let seen = &calls[0].request;
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("POST", "/v1/messages?beta=true")
    );
    assert_eq!(
        (seen.dialect, seen.streamed(), seen.model()),
        (Dialect::Anthropic, false, Some("m-1"))
    );
    assert_eq!(seen.header("x-api-key"), Some("sk-secret"));
    assert!(
        seen.headers
            .keys()
            .all(|name| !name.as_str().contains(char::is_uppercase))
    );
    assert_eq!(
        (&seen.body[..], &seen.json),
        (ask(false).to_string().as_bytes(), &ask(false))
    );
    assert!(before <= seen.at && seen.at <= calls[1].request.at);
    assert!(!format!("{seen:?}").contains("sk-secret"));
    let connections: Vec<_> = calls
        .iter()
        .map(|call| (call.request.number, call.request.connection))
        .collect();
    assert_eq!(
        connections,
        [(0, 0), (1, 0), (2, 1)],
        "the second call reused the connection"
    );
    assert!(calls.iter().all(|call| call.end() == Some(End::Completed)));
    assert_eq!(
        (
            upstream.count(),
            upstream.cancelled(),
            upstream.accepted_connections()
        ),
        (3, 0, 2)
    );
    drop(connection);
    until(&upstream, |seen| seen.open == 0).await;
}

#[tokio::test]
async fn a_stream_without_a_single_event_is_completed_too() {
    let nothing = Script::empty_answer()
        .no_role()
        .no_finish_reason()
        .no_done();
    let upstream = Upstream::builder().script(nothing).in_memory();
    assert_eq!(
        text(call(&upstream, "/v1/chat/completions", &ask(true)).await).await,
        ""
    );
    assert_eq!(upstream.calls()[0].end(), Some(End::Completed));
}

#[tokio::test]
async fn scripts_come_from_the_queue_then_the_closure_then_the_default() {
    let status = async |upstream: &Upstream| {
        call(upstream, "/v1/messages", &ask(false))
            .await
            .status()
            .as_u16()
    };
    let upstream = Upstream::builder()
        .scripts([Failure::server_error(), Failure::overloaded()])
        .respond(|request| {
            if request.streamed() {
                Script::words(1)
            } else {
                Script::error(418, "")
            }
        })
        .in_memory();
    upstream.push(Script::words(1));
    assert_eq!(upstream.queued(), 3);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(status(&upstream).await);
    }
    assert_eq!(statuses, [500, 529, 200, 418]);
    let upstream = Upstream::builder()
        .otherwise(Failure::bad_gateway())
        .in_memory();
    assert_eq!(status(&upstream).await, 502);
}

#[tokio::test]
async fn calls_in_progress_and_their_peak() {
    let upstream = Upstream::builder()
        .otherwise(Script::hang())
        .start()
        .await
        .unwrap();
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(raw_call(&upstream, &ask(false)).await);
    }
    let seen = until(&upstream, |seen| seen.in_progress == 3).await;
    assert_eq!(
        (seen.peak, seen.open, upstream.open_connections()),
        (3, 3, 3)
    );
    peers.pop();
    until(&upstream, |seen| seen.in_progress == 2 && seen.open == 2).await;
    drop(peers);
    let seen = until(&upstream, |seen| seen.in_progress == 0 && seen.open == 0).await;
    assert_eq!((seen.peak, seen.cancelled(), seen.accepted), (3, 3, 3));
    let _again = raw_call(&upstream, &ask(false)).await;
    let seen = until(&upstream, |seen| seen.in_progress == 1).await;
    assert_eq!(seen.peak, 3, "a peak does not fall");
}

/// Each phase in which a peer can leave: whether it asked for a stream, the script, and how many tokens came before.
fn phases() -> [(&'static str, bool, Script, usize); 7] {
    let hour = Duration::from_secs(3600);
    [
        ("before the headers", true, Script::hang(), 0),
        (
            "before late headers",
            true,
            Script::words(1).headers_after(hour),
            0,
        ),
        (
            "during a unary answer",
            false,
            Script::words(5).first_token_after(hour),
            0,
        ),
        ("after the headers", true, Script::headers_then_hang(), 0),
        (
            "after the role",
            true,
            Script::words(5).role_then_silence(),
            0,
        ),
        ("stalled", true, Script::words(5).stall_after(3, None), 3),
        ("between tokens", true, Script::words(5).gap(hour), 1),
    ]
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed_in_every_phase() {
    for (phase, stream, script, tokens) in phases() {
        let upstream = Upstream::builder().script(script).start().await.unwrap();
        let peer = raw_call(&upstream, &ask(stream)).await;
        until(&upstream, |seen| {
            seen.calls.first().is_some_and(|call| call.sent == tokens)
        })
        .await;
        assert_eq!(
            (upstream.in_progress(), upstream.cancelled()),
            (1, 0),
            "{phase}"
        );
        drop(peer);
        let seen = until(&upstream, |seen| seen.cancelled() == 1 && seen.open == 0).await;
        assert_eq!(
            (seen.calls[0].sent, seen.in_progress),
            (tokens, 0),
            "{phase}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_is_noticed_without_waiting_for_a_timer() {
    for (phase, stream, script, tokens) in phases() {
        let upstream = Upstream::builder().script(script).in_memory();
        let mut peer = upstream.connect();
        peer.write_all(raw_request("/v1/chat/completions", &ask(stream)).as_bytes())
            .await
            .unwrap();
        until(&upstream, |seen| {
            seen.calls.first().is_some_and(|call| call.sent == tokens)
        })
        .await;
        advance(Duration::from_secs(7)).await;
        let left = Instant::now();
        drop(peer);
        let seen = until(&upstream, |seen| seen.cancelled() == 1).await;
        assert_eq!(seen.calls[0].ended.unwrap().at, left, "{phase}");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_in_the_middle_of_a_busy_stream_is_noticed() {
    let script = Script::words(20_000).gap(Duration::from_millis(1));
    let upstream = Upstream::builder().script(script).start().await.unwrap();
    let mut peer = raw_call(&upstream, &ask(true)).await;
    peer.read_exact(&mut [0; 1024]).await.unwrap();
    drop(peer);
    let seen = until(&upstream, |seen| seen.cancelled() == 1).await;
    assert!(seen.calls[0].sent > 0 && seen.calls[0].sent < 20_000);
}

#[tokio::test]
async fn over_http2_a_reset_stream_leaves_its_neighbours_alone() {
    let upstream = Upstream::builder()
        .scripts([
            Script::words(9).stall_after(2, None),
            Script::reset(),
            Script::words(3).head_trickled(1, Duration::from_secs(3600)),
            Script::words(9).cut_after(1),
        ])
        .start()
        .await
        .unwrap();
    let stream = TokioIo::new(TcpStream::connect(upstream.addr()).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    let ask = || {
        let mut request = request("http://upstream/v1/chat/completions", &ask(true));
        request.headers_mut().remove("host");
        request
    };
    let stalled = client.send_request(ask()).await.unwrap();
    until(&upstream, |seen| seen.calls[0].sent == 2).await;
    client.send_request(ask()).await.unwrap_err();
    drop(stalled);
    let seen = until(&upstream, |seen| seen.cancelled() == 1).await;
    assert_eq!(
        (seen.calls[0].end(), seen.calls[1].end()),
        (Some(End::PeerLeft), Some(End::Broken))
    );
    let whole = async { text(client.send_request(ask()).await.unwrap()).await };
    let whole = tokio::time::timeout(Duration::from_secs(10), whole)
        .await
        .unwrap();
    assert!(whole.ends_with("[DONE]\n\n"), "{whole}");
    client
        .send_request(ask())
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap_err();
    assert_eq!(
        (upstream.accepted_connections(), upstream.open_connections()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_pooling_client_reuses_connections_in_memory() {
    let upstream = Upstream::builder().in_memory();
    let client =
        Pooled::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(upstream.connector());
    for _ in 0..3 {
        let request = request(
            &format!("{}/chat/completions", upstream.base_url()),
            &ask(false),
        );
        let response = client.request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()["object"],
            json!("chat.completion")
        );
    }
    assert_eq!((upstream.count(), upstream.accepted_connections()), (3, 1));
}

#[tokio::test]
async fn dropping_the_last_handle_closes_everything() {
    let upstream = Upstream::builder()
        .otherwise(Script::hang())
        .start()
        .await
        .unwrap();
    let other = upstream.clone();
    let (addr, connector) = (upstream.addr(), upstream.connector());
    let mut stuck = raw_call(&upstream, &ask(false)).await;
    let mut in_memory = upstream.connect();
    until(&upstream, |seen| seen.in_progress == 1 && seen.open == 2).await;
    drop(upstream);
    assert_eq!(other.in_progress(), 1, "a clone keeps it");
    drop(other);
    assert_eq!(stuck.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(in_memory.read(&mut [0; 1]).await.unwrap(), 0);
    // The listener closes when its task is next run, which the end of the connections does not prove.
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let client = Pooled::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let error = client
        .request(request("http://upstream.test/v1/messages", &ask(false)))
        .await
        .unwrap_err();
    assert!(error.is_connect());
}
