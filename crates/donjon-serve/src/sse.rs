//! Framing of server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use bytes::{BufMut, BytesMut};
use serde::Serialize;

/// A line that carries nothing, so that what stands between does not think the stream dead.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends an event with `json` as its data.
pub(crate) fn data(out: &mut BytesMut, json: &[u8]) {
    out.reserve(json.len() + 8);
    out.put_slice(b"data: ");
    put_lines(out, json);
    out.put_slice(b"\n\n");
}

/// Appends an event with the JSON of `value` as its data. False if it has none, and then nothing
/// was appended.
pub(crate) fn data_of(out: &mut BytesMut, value: &impl Serialize) -> bool {
    let before = out.len();
    out.put_slice(b"data: ");
    let start = out.len();
    if serde_json::to_writer((&mut *out).writer(), value).is_err() {
        out.truncate(before);
        return false;
    }
    // Members that are passed on as they came may have been printed on several lines.
    if has_line_end(&out[start..]) {
        let json = out.split_off(start);
        put_lines(out, &json);
    }
    out.put_slice(b"\n\n");
    true
}

/// Appends `json`, each line of which must be a data line of its own. A line end in JSON is only
/// ever white space between tokens.
fn put_lines(out: &mut BytesMut, json: &[u8]) {
    if !has_line_end(json) {
        out.put_slice(json);
        return;
    }
    let mut lines = json
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty());
    out.put_slice(lines.next().unwrap_or_default());
    for line in lines {
        out.put_slice(b"\ndata: ");
        out.put_slice(line);
    }
}

fn has_line_end(json: &[u8]) -> bool {
    json.contains(&b'\n') || json.contains(&b'\r')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, value::RawValue};

    use super::*;

    /// The data of the events in `text`, read by the rules of the standard.
    fn events(text: &[u8]) -> Vec<String> {
        let text = std::str::from_utf8(text).unwrap();
        assert!(!text.contains('\r'), "{text:?}");
        text.split_terminator("\n\n")
            .map(|event| {
                let lines: Vec<_> = event
                    .lines()
                    .map(|line| line.strip_prefix("data: ").expect("a data line"))
                    .collect();
                lines.join("\n")
            })
            .collect()
    }

    #[test]
    fn json_of_several_lines_stays_one_event() {
        let mut out = BytesMut::new();
        for json in ["{\"a\":1}", "{\n  \"a\":\r\n\r\n 1\r}\n"] {
            data(&mut out, json.as_bytes());
            let raw = RawValue::from_string(json.trim().to_owned()).unwrap();
            assert!(data_of(&mut out, &[raw]));
        }
        let events = events(&out);
        assert_eq!(events.len(), 4);
        for (at, event) in events.iter().enumerate() {
            let value: Value = serde_json::from_str(event).unwrap();
            let value = if at % 2 == 0 { &value } else { &value[0] };
            assert_eq!(value["a"], 1, "{event}");
        }
    }

    #[test]
    fn what_has_no_json_appends_nothing() {
        let mut out = BytesMut::from("before");
        let unprintable = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(!data_of(&mut out, &unprintable));
        assert_eq!(&out[..], b"before");
    }
}
