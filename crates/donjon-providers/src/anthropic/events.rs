//! Streams written as Anthropic's events
//! (<https://docs.anthropic.com/en/docs/build-with-claude/streaming>).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use donjon_core::{ChoiceDelta, Chunk, Dialect, FinishReason, Head, LlmError, ToolCall, Usage};
use serde::{Deserialize, Serialize};

use super::{
    answer::{BlockOut, MessageOut},
    error::error_to_json,
    words::{UsageOut, stop_reason},
};
use crate::{openai::THINKING_BLOCKS, sse::write_event};

/// Writes the chunks of one answer as the events that Anthropic's clients expect: one
/// `message_start`, each block begun, filled and ended under its own index, one `message_delta` with
/// the reason and the usage, one `message_stop`.
///
/// Chunks that came in this dialect are passed on as they came; the first that did not, or was
/// edited, makes this and all that follow be written from their fields. An answer has one choice
/// here: the others of a chunk are left out.
///
/// ```
/// use bytes::BytesMut;
/// use donjon_core::{Chunk, FinishReason, Head};
/// use donjon_providers::anthropic::EventWriter;
///
/// let mut writer = EventWriter::new(&Head::new("m"));
/// let mut out = BytesMut::new();
/// for chunk in [Chunk::text("Hello"), Chunk::finish(FinishReason::Stop)] {
///     writer.chunk(&chunk, &mut out);
/// }
/// writer.finish(&mut out);
/// let text = std::str::from_utf8(&out).unwrap();
/// assert!(text.starts_with("event: message_start\n"));
/// assert!(text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
/// ```
#[derive(Debug)]
pub struct EventWriter {
    head: Head,
    started: bool,
    /// Whether all so far could be passed on as it came.
    passing: bool,
    /// The block that is begun and not ended, and its index.
    open: Option<(Block, u32)>,
    next_index: u32,
    /// The blocks of the tool calls so far.
    tools: Vec<(u32, u32)>,
    finish: Option<FinishReason>,
    refused: bool,
    usage: Usage,
    /// Whether `message_delta` was passed on.
    told_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    /// The call with this index.
    Tool(u32),
    /// One that was passed on.
    Passed,
}

impl EventWriter {
    /// Writes an answer that was given by whom `head` says.
    pub fn new(head: &Head) -> Self {
        Self {
            head: head.clone(),
            started: false,
            passing: true,
            open: None,
            next_index: 0,
            tools: Vec::new(),
            finish: None,
            refused: false,
            usage: Usage::default(),
            told_end: false,
        }
    }

    /// Appends what `chunk` says, which may be nothing yet.
    pub fn chunk(&mut self, chunk: &Chunk, out: &mut BytesMut) {
        if chunk.is_ping() {
            return;
        }
        if let Some(usage) = chunk.usage {
            self.usage = usage;
        }
        if self.passing {
            let json = chunk.wire(Dialect::Anthropic);
            if json.is_some_and(|json| self.pass(json, out)) {
                return;
            }
            self.passing = false;
            self.close(out);
        }
        self.start(chunk, out);
        for choice in chunk.choices.iter().filter(|choice| choice.index == 0) {
            self.choice(choice, out);
        }
    }

    /// Appends the end of an answer that is whole.
    pub fn finish(&mut self, out: &mut BytesMut) {
        self.start(&Chunk::default(), out);
        self.close(out);
        if !self.told_end {
            self.told_end = true;
            let reason = match (self.refused, &self.finish) {
                (true, None | Some(FinishReason::Stop)) => "refusal",
                (_, reason) => stop_reason(reason.as_ref()),
            };
            event(
                out,
                &Event::MessageDelta {
                    delta: EndOut {
                        stop_reason: reason,
                        stop_sequence: None,
                    },
                    usage: self.usage.into(),
                },
            );
        }
        event(out, &Event::MessageStop);
    }

    /// Appends the event that ends an answer which broke: the last one, with no sign of a whole
    /// answer after it.
    pub fn error(&mut self, error: &LlmError, out: &mut BytesMut) {
        write_event(out, "error", &error_to_json(error));
    }

    /// Passes an event on; false if it does not follow from those before it.
    fn pass(&mut self, json: &[u8], out: &mut BytesMut) -> bool {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(default)]
            index: u32,
        }
        let Ok(Kind { kind, index }) = serde_json::from_slice(json) else {
            return false;
        };
        // Events that made no sense were skipped on the way here, and what they began or ended is
        // missing. Nothing changes before it is sure that this one is passed on.
        match &*kind {
            // After a failover there may be a second one; a client wants exactly one.
            "message_start" if self.started => return true,
            "message_start" => self.started = true,
            _ if !self.started => return false,
            "content_block_start" => {
                // Clients count blocks and find them by their place.
                if index != self.next_index {
                    return false;
                }
                self.close(out);
                self.open = Some((Block::Passed, index));
                self.next_index = index.saturating_add(1);
            }
            "content_block_delta" if self.open != Some((Block::Passed, index)) => return false,
            "content_block_stop" => {
                if self.open != Some((Block::Passed, index)) {
                    return true;
                }
                self.open = None;
            }
            "message_delta" => {
                self.close(out);
                self.told_end = true;
            }
            "message_stop" => return true,
            _ => {}
        }
        write_event(out, &kind, json);
        true
    }

    fn start(&mut self, chunk: &Chunk, out: &mut BytesMut) {
        if self.started {
            return;
        }
        self.started = true;
        let id = chunk.id.as_deref().or(self.head.id.as_deref());
        let id = super::message_id(id);
        let model = chunk.model.as_deref().filter(|model| !model.is_empty());
        event(
            out,
            &Event::MessageStart {
                message: MessageOut {
                    id: &id,
                    r#type: "message",
                    role: "assistant",
                    model: model.unwrap_or(&self.head.model),
                    content: Vec::new(),
                    stop_reason: None,
                    stop_sequence: None,
                    usage: self.usage.into(),
                },
            },
        );
    }

    fn choice(&mut self, choice: &ChoiceDelta, out: &mut BytesMut) {
        let some = |text: &Option<Box<str>>| text.as_deref().is_some_and(|text| !text.is_empty());
        if some(&choice.reasoning) {
            let thinking = choice.reasoning.as_deref().unwrap_or_default();
            let index = self.begin(Block::Thinking, out, || BlockOut::Thinking {
                thinking: "",
                signature: "",
            });
            delta(out, index, &DeltaOut::Thinking { thinking });
        }
        self.sign(choice, out);
        self.refused |= some(&choice.refusal);
        for text in [&choice.content, &choice.refusal] {
            if some(text) {
                let text = text.as_deref().unwrap_or_default();
                let index = self.begin(Block::Text, out, || BlockOut::Text { text: "".into() });
                delta(out, index, &DeltaOut::Text { text });
            }
        }
        for call in &choice.tool_calls {
            self.call(call, out);
        }
        if choice.finish_reason.is_some() {
            self.finish.clone_from(&choice.finish_reason);
        }
    }

    /// Signs the reasoning that is open, where Anthropic signed it; several blocks have become one
    /// by now, which no signature fits.
    fn sign(&mut self, choice: &ChoiceDelta, out: &mut BytesMut) {
        #[derive(Deserialize)]
        struct Signed {
            #[serde(default)]
            signature: String,
        }
        if let Some((Block::Thinking, index)) = self.open
            && let Some(signed) = choice.extra.read::<Vec<Signed>>(THINKING_BLOCKS)
            && let [Signed { signature }] = &signed[..]
            && !signature.is_empty()
        {
            delta(out, index, &DeltaOut::Signature { signature });
        }
    }

    fn call(&mut self, call: &ToolCall, out: &mut BytesMut) {
        // A provider that sends calls whole may leave the index out; then each name is a new one.
        let last = self.tools.last().map(|(tool, _)| *tool);
        let tool = call.index.unwrap_or_else(|| match last {
            Some(last) if call.name().is_none() => last,
            Some(last) => last.saturating_add(1),
            None => 0,
        });
        let known = self.tools.iter().find(|(known, _)| *known == tool);
        let index = match known {
            // Pieces of a call whose block was ended go there all the same: clients go by the index.
            Some((_, index)) => *index,
            None => {
                let index = self.begin(Block::Tool(tool), out, || BlockOut::ToolUse {
                    id: call.id.as_deref().unwrap_or_default(),
                    name: call.name().unwrap_or_default(),
                    input: super::answer::raw_text("{}"),
                });
                self.tools.push((tool, index));
                index
            }
        };
        let partial_json = call.arguments();
        if !partial_json.is_empty() {
            delta(out, index, &DeltaOut::InputJson { partial_json });
        }
    }

    /// Begins `block`, unless it is the one that is open, and gives its index.
    fn begin<'a>(
        &mut self,
        block: Block,
        out: &mut BytesMut,
        content_block: impl FnOnce() -> BlockOut<'a>,
    ) -> u32 {
        if let Some((open, index)) = self.open
            && open == block
        {
            return index;
        }
        self.close(out);
        let index = self.next_index;
        self.next_index += 1;
        self.open = Some((block, index));
        let content_block = content_block();
        event(
            out,
            &Event::ContentBlockStart {
                index,
                content_block,
            },
        );
        index
    }

    fn close(&mut self, out: &mut BytesMut) {
        if let Some((_, index)) = self.open.take() {
            event(out, &Event::ContentBlockStop { index });
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event<'a> {
    MessageStart {
        message: MessageOut<'a>,
    },
    ContentBlockStart {
        index: u32,
        content_block: BlockOut<'a>,
    },
    ContentBlockDelta {
        index: u32,
        delta: &'a DeltaOut<'a>,
    },
    ContentBlockStop {
        index: u32,
    },
    MessageDelta {
        delta: EndOut,
        usage: UsageOut,
    },
    MessageStop,
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum DeltaOut<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

#[derive(Serialize)]
struct EndOut {
    stop_reason: &'static str,
    stop_sequence: Option<()>,
}

fn delta(out: &mut BytesMut, index: u32, delta: &DeltaOut<'_>) {
    event(out, &Event::ContentBlockDelta { index, delta });
}

/// Appends an event of our own making, whose JSON has no line ends.
fn event(out: &mut BytesMut, event: &Event<'_>) {
    out.put_slice(b"event: ");
    out.put_slice(event.name().as_bytes());
    out.put_slice(b"\ndata: ");
    // Strings and numbers into memory: nothing in it can fail.
    let _ = serde_json::to_writer((&mut *out).writer(), event);
    out.put_slice(b"\n\n");
}
