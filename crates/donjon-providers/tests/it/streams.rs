//! Streams through the service: how they end, and how they fail.

use std::{io, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use donjon_core::{ErrorKind, FinishReason, Snapshot};
use donjon_providers::Provider;
use http::Response;
use tower::{Service, ServiceExt, service_fn};

use crate::support::{End, Http, anthropic, ask, call, events, http, items, openai, packets};

const WORDS: &str = "data: {\"id\":\"c\",\"model\":\"served\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n\
    data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";
const FINISH: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn streamed(parts: &[&str], end: End) -> Http {
    let text = parts.concat();
    http(move || events(text.clone(), end))
}

#[tokio::test]
async fn a_stream_ends_at_done_and_waits_for_nothing_after_it() {
    let http = streamed(&[WORDS, FINISH, USAGE, DONE, WORDS], End::Open);
    let response = call(openai(), http, ask().streamed())
        .await
        .expect("a stream");
    assert_eq!(response.head.provider.as_deref(), Some("openai"));
    let items = items(response).await;
    assert_eq!(items.len(), 4);
    assert!(items.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_stream_without_done_ends_with_its_usage_or_its_body() {
    for (parts, end, count) in [
        (&[WORDS, FINISH, USAGE][..], End::Open, 4),
        (&[WORDS, FINISH][..], End::Whole, 3),
        // The blank line after the last event is missing.
        (&[WORDS, FINISH.trim_end()][..], End::Whole, 3),
        // It is complete: what breaks afterwards is nobody's loss.
        (&[WORDS, FINISH][..], End::Broken, 3),
    ] {
        let response = call(openai(), streamed(parts, end), ask().streamed())
            .await
            .expect("a stream");
        let items = items(response).await;
        assert_eq!(items.len(), count, "{end:?}");
        assert!(items.iter().all(Result::is_ok), "{items:?}");
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_is_an_error_and_never_a_short_answer() {
    for (parts, end, kind) in [
        (&[WORDS][..], End::Whole, ErrorKind::Incomplete),
        (&[WORDS, DONE][..], End::Whole, ErrorKind::Incomplete),
        (
            &[WORDS, "data: {\"choi"][..],
            End::Whole,
            ErrorKind::Incomplete,
        ),
        (&[WORDS][..], End::Broken, ErrorKind::StreamBroken),
        (&[][..], End::Whole, ErrorKind::Incomplete),
    ] {
        let response = call(openai(), streamed(parts, end), ask().streamed())
            .await
            .expect("a stream");
        let items = items(response).await;
        let error = items
            .last()
            .expect("an item")
            .as_ref()
            .expect_err("an error");
        assert_eq!(error.kind(), kind, "{parts:?} {end:?}");
    }
}

#[tokio::test]
async fn malformed_events_are_skipped_and_counted() {
    let http = streamed(
        &[
            WORDS,
            "data: {\"choices\":[{\n\n",
            "data: nonsense\n\n",
            ": comment\n\n",
            FINISH,
            DONE,
        ],
        End::Whole,
    );
    let provider = Provider::new(openai(), http);
    let handle = provider.handle();
    let response = provider
        .clone()
        .oneshot(ask().streamed())
        .await
        .expect("a stream");
    let items = items(response).await;
    assert_eq!(items.iter().filter(|item| item.is_ok()).count(), 3);
    assert_eq!(items.len(), 3);
    let stats = handle.stats();
    assert_eq!(
        (stats.calls, stats.streams, stats.malformed_events),
        (1, 1, 2)
    );
    let figures = handle.figures();
    let malformed = figures
        .iter()
        .find(|figure| figure.name == "malformed_events_total")
        .expect("a figure");
    assert!((malformed.value - 2.0).abs() < f64::EPSILON);
    assert_eq!(malformed.labels[0].1, "openai");
}

#[tokio::test]
async fn errors_in_a_stream_end_it() {
    let error = "data: {\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}}\n\n";
    let response = call(
        openai(),
        streamed(&[WORDS, error, FINISH], End::Open),
        ask().streamed(),
    )
    .await;
    let items_seen = items(response.expect("a stream")).await;
    assert_eq!(items_seen.len(), 3);
    let error = items_seen[2].as_ref().expect_err("an error");
    assert_eq!(
        (
            error.kind(),
            error.provider().map(|p| p.as_str()),
            error.target().map(|t| t.as_str())
        ),
        (ErrorKind::Overloaded, Some("openai"), Some("t"))
    );

    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"m\"}}\n\n";
    let response = call(anthropic(), streamed(&[error], End::Open), ask().streamed()).await;
    let items = items(response.expect("a stream")).await;
    assert_eq!(
        items[0].as_ref().expect_err("an error").kind(),
        ErrorKind::RateLimited
    );
}

#[tokio::test]
async fn before_the_commit_point_an_error_in_a_stream_is_a_plain_failure() {
    use donjon_core::CommitLayer;
    use tower::Layer;
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let error = "data: {\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}}\n\n";
    let provider = Provider::new(openai(), streamed(&[role, error], End::Open));
    let failed = CommitLayer::new()
        .layer(provider)
        .oneshot(ask().streamed())
        .await;
    assert_eq!(failed.expect_err("an error").kind(), ErrorKind::Overloaded);
}

#[tokio::test]
async fn an_event_has_a_bound() {
    let http = http(|| {
        let endless = std::iter::repeat_n(Bytes::from(vec![b'x'; 1000]), 10);
        let packets = std::iter::once(Bytes::from_static(b"data: "))
            .chain(endless)
            .collect();
        Response::new(self::packets(packets, End::Open))
    });
    let provider =
        Provider::new(openai(), http).with_max_event(NonZeroUsize::new(4096).expect("not zero"));
    let response = provider.oneshot(ask().streamed()).await.expect("a stream");
    let items = items(response).await;
    let error = items[0].as_ref().expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(error.message().contains("larger than 4096"), "{error}");

    // Many small events, in one packet or in many, are no large one.
    let http = self::http(move || {
        let mut packets = vec![Bytes::from_static(WORDS.as_bytes()); 100];
        packets.push((WORDS.repeat(100) + FINISH).into());
        Response::new(self::packets(packets, End::Whole))
    });
    let provider =
        Provider::new(openai(), http).with_max_event(NonZeroUsize::new(1024).expect("not zero"));
    let response = provider.oneshot(ask().streamed()).await.expect("a stream");
    assert!(self::items(response).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_is_not_utf8_spoils_only_its_own_event() {
    let said = async |parts: Vec<Bytes>| {
        let http = self::http(move || {
            let mut response = events("", End::Whole);
            *response.body_mut() = self::packets(parts.clone(), End::Whole);
            response
        });
        let response = call(openai(), http, ask().streamed()).await;
        let items = items(response.expect("a stream")).await;
        let chunks = items.into_iter().map(|item| item.expect("a chunk"));
        let text = |chunk: donjon_core::Chunk| chunk.choices[0].content.clone();
        chunks
            .filter_map(text)
            .map(String::from)
            .collect::<String>()
    };
    let event = |text: &[u8]| -> Bytes {
        let before = &b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\""[..];
        [before, text, b"\"}}]}\n\n"].concat().into()
    };
    let (words, finish) = (
        Bytes::from_static(WORDS.as_bytes()),
        Bytes::from_static(FINISH.as_bytes()),
    );
    let outside = Bytes::from_static(b"data: \xff\n\n");
    let spoilt = vec![
        event(b"a\xffb"),
        outside,
        event(b"\xe2\x82"),
        words,
        finish.clone(),
    ];
    assert_eq!(said(spoilt).await, "a\u{fffd}b\u{fffd}hi");
    // A character that is cut by the network is none that is wrong.
    let euro = event("\u{20ac}\u{1f3f0}".as_bytes());
    let bytes = (0..euro.len()).map(|at| euro.slice(at..=at));
    assert_eq!(
        said(bytes.chain([finish]).collect()).await,
        "\u{20ac}\u{1f3f0}"
    );
}

#[tokio::test]
async fn comments_do_not_count_as_part_of_an_event() {
    let bounded = async |packets: Vec<&'static str>| {
        let http = self::http(move || {
            let packets = packets
                .iter()
                .map(|packet| Bytes::from_static(packet.as_bytes()));
            let mut response = events("", End::Whole);
            *response.body_mut() = self::packets(packets.collect(), End::Whole);
            response
        });
        let provider = Provider::new(openai(), http)
            .with_max_event(NonZeroUsize::new(1024).expect("not zero"));
        items(provider.oneshot(ask().streamed()).await.expect("a stream")).await
    };
    for comment in [": OPENROUTER PROCESSING\n\n", ": ping\n", ": ping\r\n", ":"] {
        let mut packets = vec![comment; 2000];
        packets.push("\n");
        packets.extend([WORDS, FINISH]);
        let items = bounded(packets).await;
        assert!(items.iter().all(Result::is_ok), "{comment:?} {items:?}");
    }
    // Nor do they make room for more of an event.
    let items = bounded(["data: xxxxxxxx\n", ": ping\n"].repeat(200)).await;
    assert!(items[0].is_err());
}

#[tokio::test]
async fn several_choices_each_need_their_end() {
    let mut request = ask().streamed();
    request.edit_chat().expect("a chat").n = Some(2);
    let second = FINISH.replace("\"index\":0", "\"index\":1");
    let response = call(
        openai(),
        streamed(&[WORDS, FINISH, DONE], End::Whole),
        request.clone(),
    )
    .await;
    let cut = items(response.expect("a stream")).await;
    assert_eq!(
        cut.last()
            .expect("an item")
            .as_ref()
            .expect_err("an error")
            .kind(),
        ErrorKind::Incomplete
    );
    let response = call(
        openai(),
        streamed(&[WORDS, FINISH, &second, DONE], End::Whole),
        request,
    )
    .await;
    let both = items(response.expect("a stream")).await;
    let last = both.last().expect("an item").as_ref().expect("a chunk");
    assert_eq!(last.choices[0].finish_reason, Some(FinishReason::Stop));
}

#[tokio::test]
async fn dropping_a_stream_drops_its_body() {
    struct Held(
        #[expect(dead_code, reason = "held until it is dropped")] tokio::sync::oneshot::Sender<()>,
    );
    let (held, gone) = tokio::sync::oneshot::channel();
    let body = futures_util::stream::unfold(Held(held), |held| async move {
        let frame = http_body::Frame::data(Bytes::from_static(WORDS.as_bytes()));
        Some((Ok::<_, io::Error>(frame), held))
    });
    let mut body = Some(http_body_util::StreamBody::new(body));
    let http = service_fn(move |_: http::Request<_>| {
        let body = body.take().expect("called once");
        async move { Ok::<_, io::Error>(Response::new(Box::pin(body))) }
    });
    let mut provider = Provider::new(openai(), http);
    let response = provider
        .ready()
        .await
        .expect("ready")
        .call(ask().streamed())
        .await
        .expect("a stream");
    drop(response);
    gone.await.expect_err("the body is gone");
}

#[tokio::test]
async fn an_error_in_a_stream_carries_what_the_head_said() {
    let error = "data: {\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}}\n\n";
    let http = http(move || {
        let mut response = events(error, End::Open);
        let headers = response.headers_mut();
        headers.insert("retry-after", "7".parse().expect("a value"));
        headers.insert("x-should-retry", "false".parse().expect("a value"));
        response
    });
    let response = call(openai(), http, ask().streamed()).await;
    let error = items(response.expect("a stream")).await.remove(0);
    let error = error.expect_err("an error");
    assert_eq!(
        (error.retry_after(), error.should_retry()),
        (Some(Duration::from_secs(7)), Some(false))
    );
}

#[tokio::test(start_paused = true)]
async fn a_finished_stream_that_is_left_open_ends_soon() {
    let second = FINISH.replace("\"index\":0", "\"index\":1");
    for (n, parts, count) in [
        (1, vec![WORDS, FINISH], 3),
        (2, vec![WORDS, FINISH, &second], 4),
    ] {
        let mut request = ask().streamed();
        request.edit_chat().expect("a chat").n = Some(n);
        let response = call(openai(), streamed(&parts, End::Open), request).await;
        let read = items(response.expect("a stream"));
        let items = tokio::time::timeout(Duration::from_secs(2), read).await;
        let items = items.expect("not waited for without end");
        assert_eq!(items.len(), count);
        assert!(items.iter().all(Result::is_ok), "{items:?}");
    }
    // One that is not finished is waited for, as long as the layers above want.
    let mut request = ask().streamed();
    request.edit_chat().expect("a chat").n = Some(2);
    let response = call(openai(), streamed(&[WORDS, FINISH], End::Open), request).await;
    let read = items(response.expect("a stream"));
    let waited = tokio::time::timeout(Duration::from_secs(60), read).await;
    assert!(waited.is_err());
}
