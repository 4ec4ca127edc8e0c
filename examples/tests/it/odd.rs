//! Callers and providers that are odd, but right.

use std::time::Duration;

use bytes::Bytes;
use donjon_testkit::upstream::Script;
use http::Method;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    message::message_of,
    stream::assert_one_answer,
    support::{
        ANTHROPIC, CHAT, Caller, Gate, MESSAGES, OPENAI, SOON, Unread, always, chat, config,
        messages, seen, steady, text_of, upstream,
    },
};

#[tokio::test]
async fn odd_but_legal_streams_pass() {
    const WORDS: &str = "ein Bergfried, \u{57ce}\u{5854} ";
    let words = || Script::answer(WORDS);
    let pause = Duration::from_millis(2);
    let cases = [
        ("no [DONE]", words().no_done(), WORDS),
        ("an empty answer", Script::empty_answer(), ""),
        ("a malformed event", words().bad_event_at(1), WORDS),
        ("comments", words().comments_at(1, 3, pause), WORDS),
        ("pings first", words().pings(3, pause), WORDS),
        ("an unknown delta", words().unknown_delta(), WORDS),
        ("no usage", words().no_usage(), WORDS),
        ("every byte a packet", words().packets(1), WORDS),
        ("CR LF", words().crlf(), WORDS),
        ("CR", words().lone_cr().packets(7), WORDS),
        ("no space", words().no_space(), WORDS),
        (
            "a byte order mark",
            words().byte_order_mark().packets(2),
            WORDS,
        ),
        ("several data lines", words().several_data_lines(), WORDS),
    ];
    for (what, script, text) in cases {
        let only = always(script).await;
        let gate = Gate::open(&config(&[(OPENAI, &only)], 3, "")).await;
        let answer = gate.post(CHAT, chat(true)).await;
        let chunks = assert_one_answer(&answer);
        assert_eq!(text_of(&chunks, 0), text, "{what}");
        assert_eq!(only.count(), 1, "{what}");
        assert!(!answer.text().contains(": keep-alive"), "{what}");
        if what == "an unknown delta" {
            assert!(
                answer.text().contains(r#""hologram":{"frames":3}"#),
                "{}",
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn odd_but_legal_streams_pass_from_anthropic() {
    let words = || Script::answer("ein Bergfried").reasoning("Hm. ");
    let pause = Duration::from_millis(2);
    for (what, script) in [
        ("every byte a packet", words().packets(1)),
        ("CR LF", words().crlf()),
        ("CR", words().lone_cr().packets(7)),
        ("several data lines", words().several_data_lines()),
        ("pings", words().pings_at(1, 3, pause)),
        ("comments", words().comments_at(1, 3, pause)),
        ("a malformed event", words().bad_event_at(1)),
        ("an empty delta", words().empty_deltas_at(2, 2, pause)),
    ] {
        let only = always(script).await;
        let gate = Gate::open(&config(&[(ANTHROPIC, &only)], 3, "")).await;
        let answer = gate.post(CHAT, chat(true)).await;
        let chunks = assert_one_answer(&answer);
        assert_eq!(text_of(&chunks, 0), "ein Bergfried", "{what}");
        let answer = gate.post(MESSAGES, messages(true)).await;
        let message = message_of(&answer);
        assert_eq!(message["content"][1]["text"], "ein Bergfried", "{what}");
        assert_eq!(only.count(), 2, "{what}");
    }
}

/// Clients whose language has no absent members send them as null.
#[tokio::test]
async fn members_may_be_null() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    let body = json!({
        "model": "gpt-4o",
        "messages": [
            {"role": "user", "content": "Does it rain?", "name": null},
            {"role": "assistant", "content": null, "refusal": null, "audio": null,
                "function_call": null, "tool_calls": [{"id": "c1", "type": "function",
                "function": {"name": "weather", "arguments": "{}"}}]},
            {"role": "tool", "content": "It pours.", "tool_call_id": "c1", "name": null},
            {"role": "assistant", "content": "It does.", "tool_calls": null, "reasoning_content": null},
        ],
        "tools": null, "tool_choice": null, "parallel_tool_calls": null, "max_tokens": null,
        "max_completion_tokens": null, "temperature": null, "top_p": null, "n": null,
        "stop": null, "seed": null, "response_format": null, "reasoning_effort": null,
        "stream": null, "stream_options": null, "user": null, "metadata": null, "logit_bias": null,
    });
    let answer = gate.post(CHAT, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Does it rain?"}],
        "system": null, "stop_sequences": null, "stream": null, "temperature": null, "top_p": null,
        "top_k": null, "tools": null, "tool_choice": null, "metadata": null, "thinking": null,
    });
    let answer = gate.post(MESSAGES, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(only.count(), 2);
}

/// Some servers do not stream what they were asked to stream.
#[tokio::test]
async fn a_whole_answer_to_who_asked_for_a_stream() {
    let whole = json!({
        "id": "c-1", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"},
            "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    });
    let only = always(Script::raw(200, "application/json", whole.to_string())).await;
    let gate = Gate::before(&[&only]).await;
    let answer = gate.post(CHAT, chat(true)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let chunks = assert_one_answer(&answer);
    assert_eq!(text_of(&chunks, 0), "whole");
    let message = message_of(&gate.post(MESSAGES, messages(true)).await);
    assert_eq!(
        message["content"],
        json!([{"type": "text", "text": "whole"}])
    );
    assert_eq!(only.count(), 2);
}

#[tokio::test]
async fn a_prompt_of_megabytes_arrives_whole() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    let prompt = "What is a donjon? \u{57ce} ".repeat(200_000);
    let body = chat(true).replace("What is a donjon?", &prompt);
    let answer = gate.post(CHAT, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = &only.calls()[0].request.json["messages"][0]["content"];
    assert!(sent.as_str() == Some(&prompt), "it is another prompt");
}

#[tokio::test]
async fn one_connection_to_the_provider_serves_one_call_after_the_other() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    for stream in [true, false, true, true, false] {
        let answer = gate.post(CHAT, chat(stream)).await;
        assert!(answer.text().contains("served"), "{}", answer.text());
    }
    assert_eq!((only.count(), only.accepted_connections()), (5, 1));
}

#[tokio::test]
async fn one_connection_of_the_caller_takes_one_answer_after_the_other() {
    let only = upstream([
        Script::answer("first"),
        Script::words(9).cut_after(2),
        Script::error(400, "{}"),
        Script::answer("last"),
    ])
    .await;
    let gate = Gate::before(&[&only]).await;
    let mut caller = Caller::connect(&gate).await;
    let answer = caller.post(CHAT, chat(true)).await.read().await;
    assert_eq!(text_of(&answer.chunks(), 0), "first");
    // Neither an error in a stream nor one in place of an answer breaks the connection.
    let answer = caller.post(CHAT, chat(true)).await.read().await;
    assert!(
        answer.text().contains(r#"data: {"error":{"#),
        "{}",
        answer.text()
    );
    let answer = caller.post(CHAT, chat(false)).await.read().await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = caller
        .send(Method::GET, "/health/live", "")
        .await
        .read()
        .await;
    assert_eq!(answer.status, 200);
    let answer = caller.post(MESSAGES, messages(false)).await.read().await;
    assert!(answer.text().contains("last"), "{}", answer.text());
}

#[tokio::test]
async fn a_body_in_chunks_has_the_same_limit() {
    let only = steady().await;
    let config = config(&[(OPENAI, &only)], 1, "[server]\nmax_body_bytes = 1000");
    let gate = Gate::open(&config).await;
    let body = chat(false);
    for (padding, status) in [(0, "200"), (2000, "413")] {
        let mut request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        // White space counts as well.
        for piece in [&body[..9], &" ".repeat(padding), &body[9..]] {
            if !piece.is_empty() {
                request.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
            }
        }
        request.push_str("0\r\n\r\n");
        let mut stream = TcpStream::connect(gate.addr).await.expect("it listens");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it takes it");
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.expect("it ends").expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    assert_eq!(only.count(), 1);
}

/// Over HTTP/2 the calls of one caller share a connection; leaving one of them leaves the others.
#[tokio::test]
async fn a_caller_over_http2_can_leave_one_call_of_several() {
    let only = upstream([
        Script::words(5_000).gap(Duration::from_millis(2)),
        Script::words(20).gap(Duration::from_millis(5)),
    ])
    .await;
    let gate = Gate::before(&[&only]).await;
    let stream = TcpStream::connect(gate.addr).await.expect("it listens");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let ask = || {
        let request = http::Request::post(format!("http://{}{CHAT}", gate.addr))
            .body(Full::new(Bytes::from(chat(true))))
            .expect("a good request");
        let mut sender = sender.clone();
        async move {
            timeout(SOON, sender.send_request(request))
                .await
                .expect("in time")
        }
    };
    let left = ask().await.expect("an answer");
    let stays = ask().await.expect("an answer");
    assert_eq!(left.version(), http::Version::HTTP_2);
    drop(left);
    seen(&only, |seen| seen.cancelled() == 1).await;
    let answer = Unread::of(stays).read().await;
    let words: String = (0..20).map(|n| format!("w{n} ")).collect();
    assert_eq!(text_of(&answer.chunks(), 0), words);
    assert_eq!((only.count(), only.cancelled()), (2, 1));
}
