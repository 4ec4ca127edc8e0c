//! The same streams, written as Anthropic's events.

use bytes::BytesMut;
use donjon_core::{Choice, Head};
use donjon_providers::anthropic::EventWriter;
use serde_json::Value;

use super::*;

fn written(read: &Read) -> String {
    let mut writer = EventWriter::new(&Head::new("served"));
    let mut out = BytesMut::new();
    for chunk in &read.chunks {
        writer.chunk(chunk, &mut out);
    }
    writer.finish(&mut out);
    String::from_utf8(out.into()).expect("text")
}

/// The events of a text as name and data.
fn events(text: &str) -> Vec<(String, Value)> {
    text.split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name").to_owned();
            let lines: Vec<_> = data
                .lines()
                .map(|l| l.strip_prefix("data: ").expect("data"))
                .collect();
            let data: Value = serde_json::from_str(&lines.join("\n")).expect("JSON");
            assert_eq!(data["type"], name.as_str());
            (name, data)
        })
        .collect()
}

/// Panics unless the events stand in the order that Anthropic's own clients rely on.
fn check_order(events: &[(String, Value)]) {
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let count = |name: &str| names.iter().filter(|n| **n == name).count();
    assert_eq!(names.first(), Some(&"message_start"));
    assert_eq!(names[names.len() - 2..], ["message_delta", "message_stop"]);
    for once in ["message_start", "message_delta", "message_stop"] {
        assert_eq!(count(once), 1, "{once}");
    }
    let (mut open, mut next) = (None, 0);
    for (name, data) in events {
        match name.as_str() {
            "content_block_start" => {
                assert_eq!((open, &data["index"]), (None, &Value::from(next)));
                open = Some(next);
                next += 1;
            }
            "content_block_delta" => {
                assert_eq!(open.map(Value::from).as_ref(), Some(&data["index"]))
            }
            "content_block_stop" => {
                assert_eq!(open.take().map(Value::from).as_ref(), Some(&data["index"]));
            }
            "message_delta" => assert_eq!(open, None),
            _ => {}
        }
    }
    assert_eq!(open, None);
}

#[test]
fn streams_of_this_dialect_go_out_as_they_came() {
    for recorded in all()
        .into_iter()
        .filter(|r| r.dialect == Dialect::Anthropic)
    {
        let text = written(&read(
            recorded.dialect,
            vec![frame(&recorded, PLAIN).into()],
        ));
        let mut expected = String::new();
        for payload in recorded
            .payloads
            .iter()
            .filter(|payload| !payload.contains("\"ping\""))
        {
            let kind = &serde_json::from_str::<Value>(payload).expect("JSON")["type"];
            let kind = kind.as_str().expect("a type");
            write!(expected, "event: {kind}\ndata: {payload}\n\n").expect("in memory");
        }
        assert_eq!(text, expected, "{}", recorded.name);
        check_order(&events(&text));
    }
}

#[test]
fn streams_of_the_other_dialect_say_the_same() {
    for recorded in all() {
        let mut came = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
        // Edited, they are written from their fields whatever they came in.
        came.chunks.iter_mut().for_each(|chunk| {
            chunk.edit();
        });
        let text = written(&came);
        check_order(&events(&text));
        let back = read(Dialect::Anthropic, vec![text.into()]);
        let (before, after) = (fold(&came), fold(&back));
        assert_eq!(after.first_text(), before.first_text(), "{}", recorded.name);
        assert_eq!((&after.id, &after.model), (&before.id, &before.model));
        let (one, other) = (&before.choices[0], &after.choices[0]);
        assert_eq!(other.finish_reason, one.finish_reason, "{}", recorded.name);
        let signed = |choice: &Choice| {
            choice
                .message
                .extra
                .get("thinking_blocks")
                .map(|raw| raw.get().to_owned())
        };
        assert_eq!(signed(other), signed(one), "{}", recorded.name);
        let some = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
        assert_eq!(some(&other.message.reasoning), some(&one.message.reasoning));
        let calls = |answer: &ChatCompletion| -> Vec<_> {
            let each = answer.tool_calls().iter();
            each.map(|c| {
                (
                    c.id.clone(),
                    c.name().map(str::to_owned),
                    c.arguments().to_owned(),
                )
            })
            .collect()
        };
        assert_eq!(calls(&after), calls(&before), "{}", recorded.name);
        let usage =
            |answer: &ChatCompletion| answer.usage.map(|u| (u.input, u.output, u.cache_read));
        assert_eq!(usage(&after), usage(&before), "{}", recorded.name);
    }
}

#[test]
fn a_stream_that_is_edited_midway_stays_in_order() {
    let recorded = all()
        .into_iter()
        .find(|r| r.name.contains("clear-thinking"))
        .expect("it is there");
    let count = recorded.payloads.len();
    for from in 0..count {
        let mut came = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
        came.chunks.iter_mut().skip(from).take(1).for_each(|chunk| {
            chunk.edit();
        });
        let text = written(&came);
        check_order(&events(&text));
        let back = fold(&read(Dialect::Anthropic, vec![text.into()]));
        assert_eq!(back.first_text(), "925 ÷ 5 = 185", "edited at {from}");
    }
}

#[test]
fn an_answer_that_says_nothing_is_whole_and_a_second_start_is_left_out() {
    check_order(&events(&written(&Read::default())));
    let recorded = all()
        .into_iter()
        .find(|r| r.name.contains("anthropic-text"))
        .expect("it is there");
    let mut came = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
    let first = came.chunks[0].clone();
    came.chunks.insert(1, first);
    check_order(&events(&written(&came)));
}

#[test]
fn a_stream_stays_in_order_whichever_of_its_events_makes_no_sense() {
    let recorded = all().into_iter();
    for mut recorded in recorded.filter(|r| r.dialect == Dialect::Anthropic) {
        let came = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
        let text = fold(&came).first_text().into_owned();
        for at in 0..recorded.payloads.len() {
            let broken = recorded.payloads[at].replace('}', "");
            let whole = std::mem::replace(&mut recorded.payloads[at], broken);
            let came = read(recorded.dialect, vec![frame(&recorded, PLAIN).into()]);
            assert_eq!(came.malformed, 1, "{whole}");
            let out = written(&came);
            check_order(&events(&out));
            // What frames the text may be lost without loss of text.
            if !whole.contains("_delta") {
                let back = fold(&read(Dialect::Anthropic, vec![out.into()]));
                assert_eq!(back.first_text(), text, "{} {whole}", recorded.name);
            }
            recorded.payloads[at] = whole;
        }
    }
}
