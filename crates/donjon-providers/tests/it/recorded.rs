//! Recorded streams, however they are framed and however the network takes them apart.

mod out;

use std::{fmt::Write, pin::pin, task};

use bytes::Bytes;
use donjon_core::{ChatCompletion, Chunk, Dialect, FinishReason, Fold};
use donjon_providers::{
    Step, StreamDecoder, anthropic::AnthropicDecoder, openai::OpenAiDecoder, sse::EventData,
};
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use crate::support::{End, packets};

/// The payloads of a stream, and whose words they are.
struct Recorded {
    name: &'static str,
    dialect: Dialect,
    payloads: Vec<String>,
}

macro_rules! recorded {
    ($($dialect:ident $path:literal)*) => {
        [$((Dialect::$dialect, $path, include_str!(concat!("../data/", $path)))),*]
    };
}

fn all() -> Vec<Recorded> {
    recorded! {
        OpenAi "openai/openai-text.chunks.txt"
        OpenAi "openai/xai-text.chunks.txt"
        OpenAi "openai/deepseek-tool-call.chunks.txt"
        OpenAi "openai/groq-tool-call.chunks.txt"
        OpenAi "openai/mistral-text.chunks.txt"
        OpenAi "openai/mistral-tool-call.chunks.txt"
        Anthropic "anthropic/anthropic-text.chunks.txt"
        Anthropic "anthropic/anthropic-clear-thinking.1.chunks.txt"
        Anthropic "anthropic/anthropic-json-tool.1.chunks.txt"
        Anthropic "anthropic/anthropic-tool-no-args.chunks.txt"
        Anthropic "anthropic/basic_response.txt"
        Anthropic "anthropic/tool_use_response.txt"
    }
    .into_iter()
    .map(|(dialect, name, text)| {
        let data = |line: &str| line.strip_prefix("data: ").unwrap_or(line).to_owned();
        let mut payloads: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with('{') || line.starts_with("data:"))
            .map(data)
            .collect();
        if dialect == Dialect::OpenAi {
            payloads.push("[DONE]".into());
        }
        Recorded {
            name,
            dialect,
            payloads,
        }
    })
    .collect()
}

/// The ways in which the standard lets a stream be written.
#[derive(Clone, Copy, Debug)]
struct Framing {
    line_end: &'static str,
    bom: bool,
    space: bool,
    comments: bool,
    names: bool,
    /// Whether the brace that opens a payload stands on a data line of its own.
    two_lines: bool,
}

const PLAIN: Framing = Framing {
    line_end: "\n",
    bom: false,
    space: true,
    comments: false,
    names: false,
    two_lines: false,
};

fn frame(recorded: &Recorded, framing: Framing) -> String {
    let Framing { line_end: end, .. } = framing;
    let data = if framing.space { "data: " } else { "data:" };
    let mut out = String::new();
    if framing.bom {
        out.push('\u{feff}');
    }
    for (at, payload) in recorded.payloads.iter().enumerate() {
        if framing.comments {
            write!(out, ": keep-alive {at} é{end}").expect("in memory");
            if at % 2 == 0 {
                // A comment alone, and an event without data.
                write!(out, "{end}retry: 3000{end}{end}").expect("in memory");
            }
        }
        if framing.names {
            write!(out, "event: something{end}id: {at}{end}").expect("in memory");
        }
        match payload.strip_prefix('{').filter(|_| framing.two_lines) {
            Some(rest) => write!(out, "{data}{{{end}{data}{rest}{end}{end}"),
            None => write!(out, "{data}{payload}{end}{end}"),
        }
        .expect("in memory");
    }
    out
}

fn split(text: &[u8], mut cuts: Vec<usize>) -> Vec<Bytes> {
    cuts.retain(|cut| *cut < text.len());
    cuts.sort_unstable();
    let mut packets = Vec::with_capacity(cuts.len() + 1);
    let mut from = 0;
    for cut in cuts {
        packets.push(Bytes::copy_from_slice(&text[from..cut]));
        from = cut;
    }
    packets.push(Bytes::copy_from_slice(&text[from..]));
    packets
}

/// What comes of a stream: its chunks, and how many events made no sense.
#[derive(Debug, Default)]
struct Read {
    chunks: Vec<Chunk>,
    malformed: usize,
    done: bool,
}

fn read(dialect: Dialect, sent: Vec<Bytes>) -> Read {
    match dialect {
        Dialect::Anthropic => read_with(AnthropicDecoder::new(), sent),
        _ => read_with(OpenAiDecoder::new(1), sent),
    }
}

fn read_with(mut decoder: impl StreamDecoder, sent: Vec<Bytes>) -> Read {
    let mut events = pin!(EventData::new(packets(sent, End::Whole), 8 << 20));
    let mut read = Read::default();
    while let Some(data) = events.next().now_or_never().expect("all is there") {
        match decoder
            .decode(data.expect("a good stream"))
            .expect("no error")
        {
            Step::Chunk(chunk) => read.chunks.push(chunk),
            Step::Last(chunk) => {
                read.chunks.push(chunk);
                read.done = true;
                break;
            }
            Step::Done => {
                read.done = true;
                break;
            }
            Step::Nothing => {}
            _ => read.malformed += 1,
        }
    }
    read
}

/// Everything that a chunk says, to be compared.
fn said(read: &Read) -> Vec<String> {
    let wire = |chunk: &Chunk| {
        let wire = chunk
            .wire(Dialect::OpenAi)
            .or(chunk.wire(Dialect::Anthropic));
        let wire = std::str::from_utf8(wire.expect("as it came")).expect("text");
        wire.replace("{\n", "{")
    };
    let chunks = read.chunks.iter();
    chunks
        .map(|chunk| format!("{:?} {}", **chunk, wire(chunk)))
        .collect()
}

fn fold(read: &Read) -> ChatCompletion {
    let mut fold = Fold::new();
    read.chunks.iter().for_each(|chunk| fold.push(chunk));
    fold.finish()
}

#[test]
fn every_byte_a_packet() {
    for recorded in all() {
        let expected = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
        let odd = Framing {
            line_end: "\r\n",
            bom: true,
            space: false,
            comments: true,
            names: true,
            two_lines: true,
        };
        for framing in [
            PLAIN,
            odd,
            Framing {
                line_end: "\r",
                ..odd
            },
        ] {
            let text = frame(&recorded, framing);
            let bytes = split(text.as_bytes(), (1..text.len()).collect());
            let got = read(recorded.dialect, bytes);
            assert_eq!(got.malformed, 0, "{} {framing:?}", recorded.name);
            assert!(got.done, "{} {framing:?}", recorded.name);
            assert_eq!(said(&got), said(&expected), "{} {framing:?}", recorded.name);
        }
    }
}

fn framings() -> impl Strategy<Value = Framing> {
    let line_end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (line_end, any::<[bool; 5]>()).prop_map(
        |(line_end, [bom, space, comments, names, two_lines])| Framing {
            line_end,
            bom,
            space,
            comments,
            names,
            two_lines,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_framing_and_any_split_give_the_same_events(
        framing in framings(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        for recorded in all() {
            let expected = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
            let text = frame(&recorded, framing);
            let cuts = cuts.iter().map(|cut| cut.index(text.len())).collect();
            let got = read(recorded.dialect, split(text.as_bytes(), cuts));
            prop_assert_eq!(said(&got), said(&expected), "{}", recorded.name);
            prop_assert!(got.done && got.malformed == 0);
        }
    }

    #[test]
    fn a_stream_cut_anywhere_gives_a_beginning_of_its_chunks(cut in any::<prop::sample::Index>()) {
        for recorded in all() {
            let text = frame(&recorded, PLAIN);
            let whole = said(&read(recorded.dialect, vec![text.clone().into()]));
            let cut = cut.index(text.len());
            let got = read(recorded.dialect, vec![Bytes::copy_from_slice(&text.as_bytes()[..cut])]);
            let got = said(&got);
            prop_assert_eq!(&got[..], &whole[..got.len()], "{} at {}", recorded.name, cut);
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        lines in proptest::collection::vec("(data|event|id|retry|: |[a-z]{0,3}):? ?[{}\\[\\]\":a-z0-9,]{0,30}(\n|\r|\r\n)*", 0..20),
        cuts in proptest::collection::vec(0_usize..300, 0..10),
    ) {
        for text in [bytes, lines.concat().into_bytes()] {
            for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
                let _ = drain(dialect, split(&text, cuts.clone()));
            }
        }
    }
}

/// Reads whatever there is, errors included.
fn drain(dialect: Dialect, sent: Vec<Bytes>) -> usize {
    let mut events = pin!(EventData::new(packets(sent, End::Whole), 100));
    let mut openai = OpenAiDecoder::new(1);
    let mut anthropic = AnthropicDecoder::new();
    let mut count = 0;
    let mut cx = task::Context::from_waker(task::Waker::noop());
    while let task::Poll::Ready(Some(Ok(data))) = events.as_mut().poll_next_unpin_in(&mut cx) {
        count += 1;
        let _ = match dialect {
            Dialect::Anthropic => anthropic.decode(data),
            _ => openai.decode(data),
        };
    }
    count
}

trait PollNextIn: futures_util::Stream {
    fn poll_next_unpin_in(
        self: std::pin::Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Self::Item>> {
        self.poll_next(cx)
    }
}

impl<S: futures_util::Stream> PollNextIn for S {}

#[test]
fn what_the_recorded_streams_say() {
    let read = |name: &str| {
        let recorded = all()
            .into_iter()
            .find(|r| r.name.contains(name))
            .expect(name);
        fold(&read(
            recorded.dialect,
            vec![frame(&recorded, PLAIN).into()],
        ))
    };
    let ends = |answer: &ChatCompletion| {
        let usage = answer.usage.expect("usage");
        (
            answer.choices[0].finish_reason.clone().expect("a reason"),
            usage.input,
            usage.output,
        )
    };
    let calls = |answer: &ChatCompletion| -> Vec<(String, String)> {
        let each = answer.tool_calls().iter();
        each.map(|call| (call.name().expect("a name").into(), call.arguments().into()))
            .collect()
    };

    let answer = read("openai-text");
    assert!(answer.first_text().starts_with("**"));
    assert_eq!(ends(&answer).0, FinishReason::Stop);
    assert_eq!(answer.model.as_deref(), Some("gpt-4.1-nano-2025-04-14"));

    let answer = read("xai-text");
    assert!(
        answer.choices[0]
            .message
            .reasoning
            .as_deref()
            .is_some_and(|text| text.starts_with("First, the user"))
    );
    assert_eq!(ends(&answer), (FinishReason::Stop, 12, 2));

    let answer = read("deepseek-tool-call");
    assert_eq!(ends(&answer), (FinishReason::ToolCalls, 339, 83));
    assert_eq!(answer.usage.expect("usage").reasoning, 39);
    assert_eq!(
        calls(&answer),
        [("weather".into(), r#"{"location": "San Francisco"}"#.into())]
    );

    assert_eq!(calls(&read("groq")), [("weather".into(), "{}".into())]);
    let answer = read("mistral-tool");
    assert_eq!(ends(&answer), (FinishReason::ToolCalls, 124, 22));
    assert_eq!(
        calls(&answer),
        [("weather".into(), r#"{"location": "San Francisco"}"#.into())]
    );
    assert!(
        read("mistral-text")
            .first_text()
            .starts_with("Hello, world!")
    );

    let answer = read("anthropic-text");
    assert!(
        answer
            .first_text()
            .starts_with("Hello! I'm doing well, thank you for asking")
    );
    assert_eq!(answer.id.as_deref(), Some("msg_01QC4g3HwBThD4BaNtBckFDJ"));
    let answer = read("clear-thinking");
    assert!(
        answer.choices[0]
            .message
            .reasoning
            .as_deref()
            .is_some_and(|text| text.starts_with("The previous result was"))
    );
    assert_eq!(answer.first_text(), "925 ÷ 5 = 185");
    // Signed, so that it can be given back through the words of another dialect.
    let signed = answer.choices[0].message.extra.get("thinking_blocks");
    let signed: serde_json::Value =
        serde_json::from_str(signed.expect("signed").get()).expect("JSON");
    assert_eq!(
        signed[0]["thinking"],
        "The previous result was 925. Now I need to divide that by 5.\n\n925 ÷ 5 = 185"
    );
    assert!(
        signed[0]["signature"]
            .as_str()
            .is_some_and(|s| s.starts_with("EvQBCkYICxgC"))
    );
    assert_eq!(ends(&answer), (FinishReason::Stop, 69, 53));
    let answer = read("no-args");
    assert_eq!(ends(&answer), (FinishReason::ToolCalls, 565, 48));
    assert_eq!(calls(&answer), [("updateIssueList".into(), "{}".into())]);
    assert_eq!(read("basic_response").first_text(), "Hello there!");
    let answer = read("tool_use_response");
    assert_eq!(
        calls(&answer),
        [("get_weather".into(), r#"{"location": "Paris"}"#.into())]
    );
}
