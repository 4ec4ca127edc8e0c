//! The canonical form of a JSON text: without white space, members in the order of their names,
//! numbers by their value, texts without escapes.

use std::borrow::Cow;

use super::Writer;

/// Deeper than this a value is written as it stands. It is how far a text of a caller may make us
/// recurse.
const DEPTH: u32 = 100;

/// Writes `json`, which is known to be well formed.
pub(super) fn write(json: &str, to: &mut Writer<'_>) {
    let json = json.trim_ascii();
    match json.as_bytes().first() {
        Some(b'{' | b'[') => Tape::of(json).write(0, 0, to),
        _ => scalar(json, to),
    }
}

/// Writes an object that is known to be well formed, but for some of its members.
pub(super) fn object_but(json: &[u8], but: &[&str], to: &mut Writer<'_>) {
    match std::str::from_utf8(json).map(str::trim_ascii) {
        Ok(json) if json.starts_with('{') => Tape::of(json).object(0, 0, but, to),
        _ => to.framed(b'?', json),
    }
}

/// Where each value of a text begins and ends, so that members can be put in order in one pass over
/// the text however deep they nest.
struct Tape<'a> {
    json: &'a str,
    nodes: Vec<Node>,
}

struct Node {
    start: usize,
    end: usize,
    /// The place of the first node that is not part of this one.
    next: usize,
    /// How many values are right within; names of members count.
    children: usize,
}

impl<'a> Tape<'a> {
    fn of(json: &'a str) -> Self {
        let bytes = json.as_bytes();
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let start = at;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b':' | b',' => {
                    at += 1;
                    continue;
                }
                b'}' | b']' => {
                    at += 1;
                    if let Some(closed) = open.pop() {
                        nodes[closed].end = at;
                        nodes[closed].next = nodes.len();
                    }
                    continue;
                }
                b'{' | b'[' => at += 1,
                b'"' => at = end_of_text(bytes, at),
                _ => at = end_of_scalar(bytes, at),
            }
            if let Some(&parent) = open.last() {
                nodes[parent].children += 1;
            }
            if matches!(byte, b'{' | b'[') {
                open.push(nodes.len());
            }
            nodes.push(Node {
                start,
                end: at,
                next: nodes.len() + 1,
                children: 0,
            });
        }
        Self { json, nodes }
    }

    fn text(&self, at: usize) -> &'a str {
        let node = &self.nodes[at];
        &self.json[node.start..node.end]
    }

    fn write(&self, at: usize, depth: u32, to: &mut Writer<'_>) {
        let text = self.text(at);
        match text.as_bytes().first() {
            Some(b'{' | b'[') if depth >= DEPTH => to.framed(b'?', text.as_bytes()),
            Some(b'{') => self.object(at, depth, &[], to),
            Some(b'[') => {
                to.number(b'[', self.nodes[at].children as u64);
                let mut child = at + 1;
                while child < self.nodes[at].next {
                    self.write(child, depth + 1, to);
                    child = self.nodes[child].next;
                }
            }
            _ => scalar(text, to),
        }
    }

    fn object(&self, at: usize, depth: u32, but: &[&str], to: &mut Writer<'_>) {
        let mut members = Vec::with_capacity(self.nodes[at].children / 2);
        let mut name = at + 1;
        while name < self.nodes[at].next {
            let value = self.nodes[name].next;
            let text = unescaped(self.text(name));
            if !text.as_deref().is_some_and(|text| but.contains(&text)) {
                // What cannot be unescaped is its own name.
                members.push((text.unwrap_or(self.text(name).into()), value));
            }
            name = self.nodes.get(value).map_or(usize::MAX, |value| value.next);
        }
        // Of two of one name the first stays first: who reads it may take either.
        members.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, value) in members {
            to.framed(b'm', name.as_bytes());
            self.write(value, depth + 1, to);
        }
        to.end();
    }
}

/// The place behind the text that begins at `at`.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_scalar(bytes: &[u8], at: usize) -> usize {
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
    let length = bytes[at..].iter().position(ends);
    length.map_or(bytes.len(), |length| at + length)
}

/// The text without quotes and escapes; `None` where these make no text (half of a surrogate pair).
fn unescaped(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(quoted).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

fn scalar(text: &str, to: &mut Writer<'_>) {
    match text {
        "null" => to.tag(b'0'),
        "true" => to.tag(b'y'),
        "false" => to.tag(b'n'),
        _ if text.starts_with('"') => match unescaped(text) {
            Some(text) => to.text(&text),
            None => to.framed(b'?', text.as_bytes()),
        },
        _ => match Number::of(text) {
            Some(number) => number.write(to),
            None => to.framed(b'?', text.as_bytes()),
        },
    }
}

/// A decimal number of any size: digits without zeros at either end, times a power of ten.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Number<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            // One that no computer can hold is not worth normalising.
            Some((digits, exponent)) => (digits, i64::from(exponent.parse::<i32>().ok()?)),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (mut whole, mut fraction) = (whole.as_bytes(), fraction.as_bytes());
        let mut exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        while let [b'0', rest @ ..] = whole {
            whole = rest;
        }
        while let (true, [b'0', rest @ ..]) = (whole.is_empty(), fraction) {
            fraction = rest;
        }
        while let [rest @ .., b'0'] = fraction {
            fraction = rest;
            exponent += 1;
        }
        while let (true, [rest @ .., b'0']) = (fraction.is_empty(), whole) {
            whole = rest;
            exponent += 1;
        }
        Some(Self {
            negative,
            whole,
            fraction,
            exponent,
        })
    }

    fn write(&self, to: &mut Writer<'_>) {
        let length = self.whole.len() + self.fraction.len();
        if length == 0 {
            to.tag(b'z');
            return;
        }
        to.tag(if self.negative { b'-' } else { b'+' });
        to.signed(b'x', self.exponent);
        to.number(b'd', length as u64);
        to.put(self.whole);
        to.put(self.fraction);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::CanonicalPiece, *};

    fn form(json: &str) -> Vec<u8> {
        serde_json::from_str::<&serde_json::value::RawValue>(json).expect("well formed");
        let mut form = Vec::new();
        let mut sink = |piece: CanonicalPiece<'_>| form.extend_from_slice(piece.bytes);
        let mut to = Writer::new(&mut sink);
        write(json, &mut to);
        to.finish();
        form
    }

    #[test]
    fn what_means_the_same_is_written_alike() {
        for (one, other) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0.5", "5E-1"),
            ("-0", "0.00"),
            ("12.50", "1250e-2"),
            (
                r#"{"a":1,"b":[true,null]}"#,
                " { \"b\" : [ true ,null ],\n\"a\":1 } ",
            ),
            (r#""a\u0062""#, r#""ab""#),
            (r#"{"\u0061":1}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(form(one), form(other), "{one} and {other}");
        }
    }

    #[test]
    fn what_differs_is_not() {
        let all = [
            "1",
            "-1",
            "10",
            "0.1",
            "1.01",
            "18446744073709551616",
            "18446744073709551617",
            "1e999999999999",
            "null",
            "true",
            "false",
            "\"\"",
            "\"1\"",
            "\"null\"",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            "[1,2]",
            "[12]",
            "[[],1]",
            "[[1],2]",
            "[[1,2]]",
            r#"{"a":1}"#,
            r#"{"a":2}"#,
            r#"{"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"["a",1]"#,
            r#""\ud800""#,
            r#""\ud801""#,
            r#""\\ud800""#,
            r#"{"a":null}"#,
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[..at] {
                assert_ne!(form(one), form(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = |inner: &str| {
            let deep = 200_000;
            form(&(("[".repeat(deep) + inner) + &"]".repeat(deep)))
        };
        assert_ne!(deep("1"), deep("2"));
    }
}
