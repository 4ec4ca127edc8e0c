//! How events are put on the wire: every way the standard allows.
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.

use std::num::NonZeroUsize;

use bytes::Bytes;

use super::script::Script;

/// One event before framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A comment line.
    Comment(String),
    /// A named or nameless event.
    Data {
        name: Option<&'static str>,
        data: String,
    },
    /// A line by itself, in a stream of lines.
    Line(String),
}

impl Event {
    pub(super) fn nameless(data: impl ToString) -> Self {
        Self::Data {
            name: None,
            data: data.to_string(),
        }
    }

    pub(super) fn named(name: &'static str, data: impl ToString) -> Self {
        Self::Data {
            name: Some(name),
            data: data.to_string(),
        }
    }
}

/// The way events are written.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    pub(super) line_end: &'static str,
    pub(super) space: &'static str,
    pub(super) byte_order_mark: bool,
    pub(super) packet: Option<NonZeroUsize>,
    pub(super) several_data_lines: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            line_end: "\n",
            space: " ",
            byte_order_mark: false,
            packet: None,
            several_data_lines: false,
        }
    }
}

impl Framing {
    pub(super) fn encode(&self, event: &Event) -> Bytes {
        let (end, space) = (self.line_end, self.space);
        match event {
            Event::Comment(text) => format!(":{space}{text}{end}{end}").into(),
            // A carriage return alone ends no line here.
            Event::Line(text) if end == "\r" => format!("{text}\n").into(),
            Event::Line(text) => format!("{text}{end}").into(),
            Event::Data { name, data } => {
                let name = name
                    .map(|name| format!("event:{space}{name}{end}"))
                    .unwrap_or_default();
                // White space between JSON tokens means nothing, so an object may go on in another data line.
                let data = match data.strip_prefix('{') {
                    Some(rest) if self.several_data_lines => format!("{{{end}data:{space}{rest}"),
                    _ => data.clone(),
                };
                format!("{name}data:{space}{data}{end}{end}").into()
            }
        }
    }

    /// The event cut into packets.
    pub(super) fn packets(&self, mut event: Bytes) -> Vec<Bytes> {
        let Some(size) = self.packet else {
            return vec![event];
        };
        let mut packets = Vec::with_capacity(event.len() / size + 1);
        while event.len() > size.get() {
            packets.push(event.split_to(size.get()));
        }
        packets.push(event);
        packets
    }
}

/// Oddities of framing that change nothing in the meaning of a stream. In Ollama's, which is lines of JSON, only the line
/// ends and packets show.
impl Script {
    /// Ends lines with CR LF.
    pub fn crlf(mut self) -> Self {
        self.framing.line_end = "\r\n";
        self
    }

    /// Ends lines with CR alone.
    pub fn lone_cr(mut self) -> Self {
        self.framing.line_end = "\r";
        self
    }

    /// Puts no space after `data:`, `event:` and the colon of a comment.
    pub fn no_space(mut self) -> Self {
        self.framing.space = "";
        self
    }

    /// Opens the stream with a byte order mark.
    pub fn byte_order_mark(mut self) -> Self {
        self.framing.byte_order_mark = true;
        self
    }

    /// Sends every event in packets of `n` bytes, wherever that cuts it: each a chunk of its own, flushed on its own.
    /// 0 counts as 1.
    pub fn packets(mut self, n: usize) -> Self {
        self.framing.packet = NonZeroUsize::new(n.max(1));
        self
    }

    /// Spreads every JSON object over two `data:` lines.
    pub fn several_data_lines(mut self) -> Self {
        self.framing.several_data_lines = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_framing_says_the_same() {
        let event = Event::named("ping", r#"{"type":"ping"}"#);
        let plain = Framing::default();
        assert_eq!(
            &plain.encode(&event)[..],
            b"event: ping\ndata: {\"type\":\"ping\"}\n\n"
        );
        let odd = Framing {
            line_end: "\r\n",
            space: "",
            several_data_lines: true,
            ..Framing::default()
        };
        assert_eq!(
            &odd.encode(&event)[..],
            b"event:ping\r\ndata:{\r\ndata:\"type\":\"ping\"}\r\n\r\n"
        );
        assert_eq!(
            &odd.encode(&Event::nameless("[DONE]"))[..],
            b"data:[DONE]\r\n\r\n"
        );
        assert_eq!(&plain.encode(&Event::Comment("hi".into()))[..], b": hi\n\n");
        let line = Event::Line(r#"{"done":true}"#.into());
        assert_eq!(&odd.encode(&line)[..], b"{\"done\":true}\r\n");
        let lone = Framing {
            line_end: "\r",
            ..Framing::default()
        };
        assert_eq!(&lone.encode(&line)[..], b"{\"done\":true}\n");
    }

    #[test]
    fn packets_lose_nothing() {
        let framing = Framing {
            packet: NonZeroUsize::new(3),
            ..Framing::default()
        };
        let packets = framing.packets(Bytes::from_static(b"abcdefgh"));
        assert_eq!(packets, ["abc", "def", "gh"]);
        assert_eq!(framing.packets(Bytes::from_static(b"abc")), ["abc"]);
    }
}
