//! Faults below and between the events: connections that break, heads that dawdle, bodies that stall.

use std::io::ErrorKind;
use std::time::Duration;

use donjon_testkit::upstream::{Dialect, End, Script, Upstream};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::{
    ask, call, payloads, raw_call, raw_request, read_out, request, streamed, text, until,
    whatever_came,
};

const SECOND: Duration = Duration::from_secs(1);

async fn upstream(script: Script) -> Upstream {
    Upstream::builder().script(script).start().await.unwrap()
}

#[tokio::test]
async fn reset_close_and_garbage_before_the_headers() {
    let reset = upstream(Script::reset()).await;
    let (came, end) = read_out(raw_call(&reset, &ask(false)).await).await;
    assert_eq!(
        (came.as_str(), end.unwrap_err().kind()),
        ("", ErrorKind::ConnectionReset)
    );

    let close = upstream(Script::close()).await;
    let (came, end) = read_out(raw_call(&close, &ask(true)).await).await;
    assert_eq!(came, "");
    end.unwrap();

    let garbage = upstream(Script::garbage_bytes("SSH-2.0-OpenSSH_9.6\r\n")).await;
    let (came, end) = read_out(raw_call(&garbage, &ask(false)).await).await;
    assert_eq!(came, "SSH-2.0-OpenSSH_9.6\r\n");
    end.unwrap();
    for upstream in [reset, close, garbage] {
        let seen = until(&upstream, |seen| seen.open == 0).await;
        assert_eq!(seen.calls[0].end(), Some(End::Broken));
    }

    let upstream = Upstream::builder()
        .scripts([Script::garbage(), Script::close()])
        .in_memory();
    for _ in 0..2 {
        let mut client = super::client(upstream.connect()).await;
        client
            .send_request(request("/v1/messages", &ask(false)))
            .await
            .unwrap_err();
    }
}

#[tokio::test]
async fn a_cut_shows_exactly_the_tokens_before_it() {
    for (script, torn) in [
        (Script::words(5).cut_after(2), false),
        (Script::words(5).cut_inside_event(2), true),
    ] {
        let upstream = Upstream::builder().script(script).in_memory();
        let (stream, error) =
            whatever_came(call(&upstream, "/v1/chat/completions", &ask(true)).await).await;
        assert!(error.is_some(), "{stream}");
        let (whole, rest) = stream.rsplit_once("\n\n").unwrap();
        assert_eq!(payloads(whole).len(), 3, "role and two tokens");
        assert_eq!(rest.starts_with("data: {"), torn, "{rest}");
        let call = &upstream.calls()[0];
        assert_eq!((call.sent, call.end()), (2, Some(End::Broken)));
    }
}

#[tokio::test]
async fn a_cut_inside_a_chunk_leaves_its_promise_unkept() {
    let upstream = upstream(Script::words(5).cut_inside_chunk(2)).await;
    let (came, end) = read_out(raw_call(&upstream, &ask(true)).await).await;
    end.unwrap();
    let (_, body) = came.split_once("\r\n\r\n").unwrap();
    let (whole, last) = body.rsplit_once("\n\n\r\n").unwrap();
    let (size, rest) = last.split_once("\r\n").unwrap();
    let size = usize::from_str_radix(size, 16).unwrap();
    assert!(
        rest.starts_with("data: {") && rest.len() < size,
        "{} of {size}: {rest}",
        rest.len()
    );
    assert_eq!(whole.matches("\"content\":\"w").count(), 2, "{body}");
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_stream() {
    let upstream = upstream(
        Script::words(5)
            .stall_after(2, Duration::from_millis(1))
            .reset_after(2),
    )
    .await;
    let (came, end) = read_out(raw_call(&upstream, &ask(true)).await).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(came.starts_with("HTTP/1.1 200 OK\r\n"), "{came}");
}

#[tokio::test]
async fn a_unary_answer_cut_short_of_its_length() {
    let upstream = upstream(Script::words(50).cut_after(3)).await;
    let (came, end) = read_out(raw_call(&upstream, &ask(false)).await).await;
    end.unwrap();
    let (head, body) = came.split_once("\r\n\r\n").unwrap();
    let promised = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    assert_eq!(body.len(), promised.parse::<usize>().unwrap() / 2);
}

#[tokio::test(start_paused = true)]
async fn headers_come_late_slowly_or_never() {
    let late = Upstream::builder()
        .script(Script::words(1).headers_after(20 * SECOND))
        .in_memory();
    let start = Instant::now();
    call(&late, "/v1/chat/completions", &ask(true)).await;
    assert_eq!(start.elapsed(), 20 * SECOND);

    let slow = Upstream::builder()
        .script(Script::words(1).head_trickled(1, SECOND))
        .in_memory();
    let mut connection = slow.connect();
    connection
        .write_all(raw_request("/v1/chat/completions", &ask(true)).as_bytes())
        .await
        .unwrap();
    let start = Instant::now();
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(
        (&head, start.elapsed()),
        (b"HTTP/1.1 ", 8 * SECOND),
        "a byte a second"
    );
    let mut rest = Vec::new();
    while !rest.ends_with(b"[DONE]\n\n\r\n0\r\n\r\n") {
        connection.read_buf(&mut rest).await.unwrap();
    }
    let head = 9
        + rest
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
        + 4;
    let expected = SECOND * u32::try_from(head - 1).unwrap();
    assert_eq!(
        start.elapsed(),
        expected,
        "the body passed with the last of the head"
    );

    let never = Upstream::builder().script(Script::hang()).in_memory();
    let mut client = super::client(never.connect()).await;
    let answer = client.send_request(request("/v1/chat/completions", &ask(true)));
    assert!(timeout(3600 * SECOND, answer).await.is_err());

    let only = Upstream::builder()
        .script(Script::headers_then_hang())
        .in_memory();
    let mut response = call(&only, "/v1/chat/completions", &ask(true)).await;
    assert_eq!(response.status(), 200);
    assert!(
        timeout(3600 * SECOND, response.body_mut().frame())
            .await
            .is_err()
    );
}

/// When each frame of a stream arrived, in seconds, and how it begins.
async fn timetable(script: Script) -> Vec<(u64, String)> {
    let upstream = Upstream::builder().script(script).in_memory();
    let start = Instant::now();
    let mut body = call(&upstream, "/v1/chat/completions", &ask(true))
        .await
        .into_body();
    let mut table = Vec::new();
    while let Ok(Some(frame)) = timeout(3600 * SECOND, body.frame()).await {
        let event = String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap();
        let event = match event
            .strip_prefix("data: ")
            .map(serde_json::from_str::<serde_json::Value>)
        {
            Some(Ok(chunk)) => chunk["choices"][0]["delta"].to_string(),
            _ => event.trim_end().to_owned(),
        };
        table.push((start.elapsed().as_secs(), event));
    }
    table
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_kept_to_the_second() {
    let role = r#"{"content":"","refusal":null,"role":"assistant"}"#;
    let script = Script::tokens(["a", "b", "c"])
        .first_token_after(5 * SECOND)
        .gap(2 * SECOND)
        .pings(2, SECOND)
        .empty_deltas_at(1, 1, SECOND)
        .stall_after(2, 30 * SECOND)
        .comments_at(2, 1, SECOND);
    let expected = [
        (0, role),
        (1, ": keep-alive"),
        (2, ": keep-alive"),
        (7, r#"{"content":"a"}"#),
        (8, r#"{"content":""}"#),
        (10, r#"{"content":"b"}"#),
        (41, ": OPENROUTER PROCESSING"),
        (43, r#"{"content":"c"}"#),
        (43, "{}"),
        (43, "data: [DONE]"),
    ];
    assert_eq!(
        timetable(script).await,
        expected.map(|(at, event)| (at, event.to_owned()))
    );
    assert_eq!(
        timetable(Script::words(9).role_then_silence()).await,
        [(0, role.to_owned())]
    );
    let table = timetable(Script::words(9).stall_after(1, None)).await;
    assert_eq!(table.len(), 2, "{table:?}");
}

#[tokio::test(start_paused = true)]
async fn a_unary_answer_takes_the_time_of_its_tokens() {
    let script = Script::words(4)
        .first_token_after(5 * SECOND)
        .gap(SECOND)
        .stall_after(2, 10 * SECOND);
    let upstream = Upstream::builder()
        .script(script)
        .script(Script::words(1).stall_after(0, None))
        .in_memory();
    let start = Instant::now();
    call(&upstream, "/v1/messages", &ask(false)).await;
    assert_eq!(start.elapsed(), 18 * SECOND);
    let mut client = super::client(upstream.connect()).await;
    let answer = client.send_request(request("/v1/messages", &ask(false)));
    assert!(timeout(3600 * SECOND, answer).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stall_takes_exactly_its_time_under_a_paused_clock() {
    let start = Instant::now();
    let upstream = Upstream::builder()
        .script(Script::words(60).stall_after(30, 30 * SECOND))
        .in_memory();
    let stream = text(call(&upstream, "/v1/chat/completions", &ask(true)).await).await;
    assert!(stream.contains("w59 ") && stream.ends_with("data: [DONE]\n\n"));
    // To the nanosecond, as no clock but a paused one would have it.
    assert_eq!(start.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn pings_of_anthropic_are_events() {
    let stream = streamed(Dialect::Anthropic, Script::words(1).pings(2, SECOND)).await;
    assert_eq!(
        stream
            .matches("event: ping\ndata: {\"type\":\"ping\"}\n\n")
            .count(),
        2,
        "{stream}"
    );
}
