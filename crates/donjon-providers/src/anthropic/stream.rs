//! Streamed answers (<https://docs.anthropic.com/en/docs/build-with-claude/streaming>).

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use donjon_core::{ChoiceDelta, Chunk, Delta, Dialect, LlmError, Role, ToolCall, Usage, Wire};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{
    error,
    words::{UsageIn, finish_reason},
};
use crate::{
    codec::{Step, StreamDecoder},
    json,
    openai::THINKING_BLOCKS,
};

/// Reads the events of one streamed message.
///
/// Each event becomes one chunk that holds it as it came, so that it can be passed on in this
/// dialect; those that show nothing become chunks that show nothing.
#[derive(Debug, Default)]
pub struct AnthropicDecoder {
    id: Option<Arc<str>>,
    model: Option<Arc<str>>,
    usage: UsageIn,
    blocks: SmallVec<[(u32, Open); 4]>,
    tools: u32,
    reasoning: Reasoning,
    /// Reasoning that was signed, told with what follows it.
    signed: Vec<Box<RawValue>>,
}

/// The reasoning of the block that is open: whole and signed, it can be taken back to Anthropic in
/// the words of another dialect.
#[derive(Debug, Default)]
struct Reasoning {
    thinking: String,
    signature: String,
    redacted: Option<Box<str>>,
}

/// What a block that was begun is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// A text.
    Plain,
    /// Reasoning.
    Reasoning,
    /// A tool call: which, and whether any of its arguments have come.
    Tool { index: u32, begun: bool },
    /// A kind that is not known here.
    Unknown,
}

impl AnthropicDecoder {
    /// Reads an answer from its first event.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&mut self, index: u32) -> Option<&mut Open> {
        let block = self.blocks.iter_mut().find(|(at, _)| *at == index);
        block.map(|(_, open)| open)
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    delta: Option<DeltaIn<'a>>,
    #[serde(default, borrow)]
    content_block: Option<BlockIn<'a>>,
    #[serde(default)]
    message: Option<MessageIn>,
    #[serde(default)]
    usage: Option<UsageIn>,
}

#[derive(Deserialize)]
struct DeltaIn<'a> {
    // Absent in a `message_delta`.
    #[serde(rename = "type", default, borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    text: Option<Box<str>>,
    #[serde(default)]
    thinking: Option<Box<str>>,
    #[serde(default)]
    signature: Option<Box<str>>,
    #[serde(default)]
    partial_json: Option<String>,
    #[serde(default)]
    stop_reason: Option<Box<str>>,
}

#[derive(Deserialize)]
struct BlockIn<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    text: Option<Box<str>>,
    #[serde(default)]
    thinking: Option<Box<str>>,
    #[serde(default)]
    signature: Option<Box<str>>,
    #[serde(default)]
    data: Option<Box<str>>,
    #[serde(default)]
    id: Option<Box<str>>,
    #[serde(default)]
    name: Option<Box<str>>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MessageIn {
    #[serde(default)]
    id: Option<Arc<str>>,
    #[serde(default)]
    model: Option<Arc<str>>,
    #[serde(default)]
    usage: Option<UsageIn>,
}

/// What an event adds.
enum Adds {
    Nothing,
    Choice(ChoiceDelta),
    Unknown,
}

impl AnthropicDecoder {
    fn begin(&mut self, index: u32, block: BlockIn<'_>) -> Adds {
        let (open, adds) = match &*block.kind {
            "text" => (Open::Plain, text(block.text)),
            "thinking" => {
                self.reasoning = Reasoning {
                    thinking: block.thinking.as_deref().unwrap_or_default().into(),
                    signature: block.signature.as_deref().unwrap_or_default().into(),
                    redacted: None,
                };
                (Open::Reasoning, reasoning(block.thinking))
            }
            "redacted_thinking" => {
                self.reasoning = Reasoning {
                    redacted: block.data,
                    ..Reasoning::default()
                };
                (Open::Reasoning, Adds::Nothing)
            }
            "tool_use" => {
                let tool = self.tools;
                self.tools += 1;
                // Arguments follow in pieces; some servers send them whole, here.
                let whole = block.input.map(RawValue::get);
                let whole = whole.filter(|input| !matches!(*input, "{}" | "null" | "\"\""));
                let begun = whole.is_some();
                let arguments = whole.unwrap_or_default();
                let mut call = ToolCall::function(
                    block.id.unwrap_or_default(),
                    block.name.unwrap_or_default(),
                    arguments,
                );
                call.index = Some(tool);
                (Open::Tool { index: tool, begun }, calls(call))
            }
            _ => (Open::Unknown, Adds::Unknown),
        };
        self.blocks.retain(|(at, _)| *at != index);
        self.blocks.push((index, open));
        adds
    }

    fn go_on(&mut self, index: u32, delta: DeltaIn<'_>) -> Adds {
        match &*delta.kind {
            "text_delta" => text(delta.text),
            "thinking_delta" => {
                let thinking = delta.thinking.as_deref().unwrap_or_default();
                self.reasoning.thinking.push_str(thinking);
                reasoning(delta.thinking)
            }
            "signature_delta" => {
                let signature = delta.signature.as_deref().unwrap_or_default();
                self.reasoning.signature.push_str(signature);
                Adds::Nothing
            }
            "input_json_delta" => match self.open(index) {
                Some(Open::Tool { index, begun }) => match delta.partial_json {
                    Some(piece) if !piece.is_empty() => {
                        *begun = true;
                        calls(ToolCall::piece(*index, piece))
                    }
                    _ => Adds::Nothing,
                },
                _ => Adds::Unknown,
            },
            _ => Adds::Unknown,
        }
    }

    fn stop(&mut self, index: u32) -> Adds {
        match self.open(index) {
            // A call without arguments is told by an empty text, which is no JSON.
            Some(Open::Tool {
                index,
                begun: false,
            }) => calls(ToolCall::piece(*index, "{}")),
            Some(Open::Reasoning) => {
                self.signed
                    .extend(std::mem::take(&mut self.reasoning).signed());
                Adds::Nothing
            }
            _ => Adds::Nothing,
        }
    }
}

impl Reasoning {
    /// The block as it must be given back, if it is signed.
    fn signed(self) -> Option<Box<RawValue>> {
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Block {
            Thinking { thinking: String, signature: String },
            RedactedThinking { data: Box<str> },
        }
        let block = match self {
            Self {
                redacted: Some(data),
                ..
            } => Block::RedactedThinking { data },
            Self { signature, .. } if signature.is_empty() => return None,
            Self {
                thinking,
                signature,
                ..
            } => Block::Thinking {
                thinking,
                signature,
            },
        };
        json::raw(&block)
    }
}

fn text(text: Option<Box<str>>) -> Adds {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => Adds::Choice(ChoiceDelta::text(0, text)),
        None => Adds::Nothing,
    }
}

fn reasoning(text: Option<Box<str>>) -> Adds {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => {
            let mut choice = ChoiceDelta::default();
            choice.reasoning = Some(text);
            Adds::Choice(choice)
        }
        None => Adds::Nothing,
    }
}

fn calls(call: ToolCall) -> Adds {
    let mut choice = ChoiceDelta::default();
    choice.tool_calls = vec![call];
    Adds::Choice(choice)
}

impl StreamDecoder for AnthropicDecoder {
    fn decode(&mut self, data: String) -> Result<Step, LlmError> {
        if data.trim_ascii().is_empty() {
            return Ok(Step::Nothing);
        }
        let Ok(event) = serde_json::from_str::<Event<'_>>(&data) else {
            return Ok(self.unreadable(data));
        };
        let mut delta = Delta::default();
        let adds = match &*event.kind {
            "ping" => return Ok(Step::Nothing),
            "message_stop" => return Ok(Step::Done),
            "error" => {
                return match error::decode_unannounced(data.as_bytes()) {
                    Some(error) => Err(error),
                    None => Ok(Step::Malformed),
                };
            }
            "message_start" => {
                let Some(message) = event.message else {
                    return Ok(Step::Malformed);
                };
                (self.id, self.model) = (message.id, message.model);
                if let Some(usage) = message.usage {
                    self.usage = usage;
                    delta.usage = Some(Usage::from(usage));
                }
                Adds::Choice(ChoiceDelta::role(0, Role::Assistant))
            }
            "content_block_start" => match event.content_block {
                Some(block) => self.begin(event.index, block),
                None => return Ok(Step::Malformed),
            },
            "content_block_delta" => match event.delta {
                Some(delta) => self.go_on(event.index, delta),
                None => return Ok(Step::Malformed),
            },
            "content_block_stop" => self.stop(event.index),
            "message_delta" => {
                if let Some(usage) = event.usage {
                    self.usage = usage.over(self.usage);
                    delta.usage = Some(Usage::from(self.usage));
                }
                match event.delta.and_then(|delta| delta.stop_reason) {
                    Some(reason) => Adds::Choice(ChoiceDelta::finish(0, finish_reason(&reason))),
                    None => Adds::Nothing,
                }
            }
            _ => Adds::Unknown,
        };
        match adds {
            Adds::Nothing => {}
            Adds::Choice(mut choice) => {
                if !self.signed.is_empty() && choice.reasoning.is_none() {
                    let signed = std::mem::take(&mut self.signed);
                    let signed = json::raw(&signed).unwrap_or_default();
                    choice.extra.insert(THINKING_BLOCKS, signed);
                }
                delta.choices.push(choice);
            }
            Adds::Unknown => delta.unknown = true,
        }
        delta.id.clone_from(&self.id);
        delta.model.clone_from(&self.model);
        let wire = Wire::new(Dialect::Anthropic, Bytes::from(data));
        Ok(Step::Chunk(Chunk::from_wire(delta, wire)))
    }
}

impl AnthropicDecoder {
    /// An event whose members are not what was expected: one of a kind that is not known here, or
    /// about a block of such a kind, is shown as it came; any other makes no sense.
    fn unreadable(&mut self, data: String) -> Step {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            content_block: Option<Inner>,
            #[serde(default)]
            delta: Option<Inner>,
        }
        #[derive(Deserialize)]
        struct Inner {
            #[serde(rename = "type")]
            kind: String,
        }
        #[derive(Deserialize)]
        struct Index {
            index: u32,
        }
        let Ok(event) = serde_json::from_str::<Kind>(&data).or_else(|_| {
            serde_json::from_str::<Inner>(&data).map(|Inner { kind }| Kind {
                kind,
                content_block: None,
                delta: None,
            })
        }) else {
            return Step::Malformed;
        };
        let inner = event.content_block.or(event.delta).map(|inner| inner.kind);
        let known = match (&*event.kind, inner.as_deref()) {
            ("content_block_start", Some(kind)) => {
                matches!(kind, "text" | "thinking" | "redacted_thinking" | "tool_use")
            }
            ("content_block_delta", Some(kind)) => matches!(
                kind,
                "text_delta" | "thinking_delta" | "signature_delta" | "input_json_delta"
            ),
            ("error", _) => true,
            (kind, _) => kind.starts_with("content_block_") || kind.starts_with("message_"),
        };
        if known {
            return Step::Malformed;
        }
        if event.kind == "content_block_start"
            && let Ok(Index { index }) = serde_json::from_str(&data)
        {
            self.blocks.retain(|(at, _)| *at != index);
            self.blocks.push((index, Open::Unknown));
        }
        let mut delta = Delta::default();
        delta.unknown = true;
        delta.id.clone_from(&self.id);
        delta.model.clone_from(&self.model);
        let wire = Wire::new(Dialect::Anthropic, Bytes::from(data));
        Step::Chunk(Chunk::from_wire(delta, wire))
    }
}

#[cfg(test)]
mod tests;
