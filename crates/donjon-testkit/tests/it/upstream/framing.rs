//! The framings that change nothing in what a stream says.

use std::time::Duration;

use donjon_testkit::upstream::{Dialect, Script, Upstream};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{ask, call, streamed};

/// The fields of an event stream read the way the standard says, in the simplest possible words.
fn read_by_the_standard(stream: &str) -> Vec<String> {
    let stream = stream
        .strip_prefix('\u{feff}')
        .unwrap_or(stream)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let mut events = Vec::new();
    for block in stream.split("\n\n").filter(|block| !block.is_empty()) {
        let data = block.lines().filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<_> = data
            .map(|data| data.strip_prefix(' ').unwrap_or(data))
            .collect();
        if !data.is_empty() {
            events.push(data.join("\n"));
        }
    }
    events
}

#[tokio::test]
async fn every_framing_tells_the_same_events() {
    let script = || Script::tokens(["a", "grüß", "\n"]).comments_at(1, 1, Duration::ZERO);
    for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
        let plain = streamed(dialect, script()).await;
        let framings: [(&str, Script, &str); 7] = [
            ("crlf", script().crlf(), "\r\n\r\n"),
            ("lone_cr", script().lone_cr(), "\r\r"),
            ("no_space", script().no_space(), "data:{"),
            ("byte_order_mark", script().byte_order_mark(), "\u{feff}"),
            ("packets", script().packets(1), "data: "),
            (
                "several_data_lines",
                script().several_data_lines(),
                "data: {\ndata: \"",
            ),
            (
                "all",
                script()
                    .crlf()
                    .no_space()
                    .byte_order_mark()
                    .packets(3)
                    .several_data_lines(),
                "data:{\r\ndata:\"",
            ),
        ];
        for (name, script, mark) in framings {
            let odd = streamed(dialect, script).await;
            assert!(odd.contains(mark), "{name}: {odd}");
            let same = |text: &str| -> Vec<Value> {
                let events = read_by_the_standard(text);
                events
                    .iter()
                    .map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
                    .collect()
            };
            assert_eq!(same(&odd), same(&plain), "{name}");
        }
    }
}

#[tokio::test]
async fn packets_arrive_one_by_one() {
    let upstream = Upstream::builder()
        .script(Script::words(1).packets(7))
        .in_memory();
    let mut body = call(&upstream, "/v1/chat/completions", &ask(true))
        .await
        .into_body();
    let mut sizes = Vec::new();
    while let Some(frame) = body.frame().await {
        sizes.push(frame.unwrap().into_data().unwrap().len());
    }
    assert!(
        sizes.iter().all(|size| *size <= 7) && sizes.len() > 20,
        "{sizes:?}"
    );
}
