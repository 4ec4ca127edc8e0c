//! Whole answers, read and written (<https://docs.anthropic.com/en/api/messages>).

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use donjon_core::{
    ChatCompletion, Choice, Content, Dialect, ErrorKind, LlmError, Message, ToolCall, Usage, Wire,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    error,
    words::{UsageIn, UsageOut, finish_reason, stop_reason},
};
use crate::{json, openai::THINKING_BLOCKS, prompt::object_of};

/// One block of content, as far as the vocabulary has words for it.
#[derive(Deserialize)]
pub(super) struct BlockIn<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) thinking: Option<String>,
    #[serde(default)]
    pub(super) signature: Option<String>,
    #[serde(default)]
    pub(super) id: Option<Box<str>>,
    #[serde(default)]
    pub(super) name: Option<Box<str>>,
    #[serde(default, borrow)]
    pub(super) input: Option<&'a RawValue>,
}

/// What the blocks of an assistant's message come to.
#[derive(Default)]
pub(super) struct Said<'a> {
    text: Option<String>,
    reasoning: Option<String>,
    tool_calls: Vec<ToolCall>,
    thinking: Vec<&'a RawValue>,
    /// Whether some thinking has no signature, without which Anthropic does not take it back.
    pub(super) unsigned: bool,
}

impl<'a> Said<'a> {
    pub(super) fn add(&mut self, raw: &'a RawValue) -> Result<(), serde_json::Error> {
        let block: BlockIn<'_> = match serde_json::from_str(raw.get()) {
            Ok(block) => block,
            // Members of a kind that is not known here may have any shape.
            Err(_) if is_unknown(raw) => return Ok(()),
            Err(error) => return Err(error),
        };
        match &*block.kind {
            "text" => self.add_text(&block.text.unwrap_or_default()),
            "thinking" => {
                let thinking = block.thinking.unwrap_or_default();
                self.reasoning.get_or_insert_default().push_str(&thinking);
                if block.signature.is_none_or(|signature| signature.is_empty()) {
                    self.unsigned = true;
                } else {
                    self.thinking.push(raw);
                }
            }
            "redacted_thinking" => self.thinking.push(raw),
            "tool_use" => self.tool_calls.push(ToolCall::function(
                block.id.unwrap_or_default(),
                block.name.unwrap_or_default(),
                block.input.map_or("{}", RawValue::get),
            )),
            // The calls and results of the server's own tools have no words here; they survive
            // where the answer is passed on as it came.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn add_text(&mut self, text: &str) {
        self.text.get_or_insert_default().push_str(text);
    }

    pub(super) fn into_message(self) -> Message {
        let mut message = Message::assistant("");
        message.content = self.text.map(|text| Content::Text(text.into()));
        message.reasoning = self.reasoning.map(Into::into);
        message.tool_calls = self.tool_calls;
        if !self.thinking.is_empty()
            && let Some(blocks) = json::raw(&self.thinking)
        {
            message.extra.insert(THINKING_BLOCKS, blocks);
        }
        message
    }
}

/// Whether `raw` is a block of a kind that has no words here.
fn is_unknown(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let known = ["text", "thinking", "redacted_thinking", "tool_use"];
    serde_json::from_str::<Kind>(raw.get()).is_ok_and(|block| !known.contains(&&*block.kind))
}

/// Reads a whole answer, and keeps it as it came.
///
/// # Errors
///
/// The error that it holds in place of an answer; [`ErrorKind::InvalidResponse`] if it is no answer;
/// [`ErrorKind::Incomplete`] if it does not say why it ended.
pub fn completion_from_json(body: Bytes) -> Result<ChatCompletion, LlmError> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(default)]
        id: Option<Arc<str>>,
        #[serde(default)]
        model: Option<Arc<str>>,
        #[serde(borrow)]
        content: Vec<&'a RawValue>,
        #[serde(default)]
        stop_reason: Option<String>,
        #[serde(default)]
        usage: Option<UsageIn>,
    }
    let fail =
        |cause| error::decode_unannounced(&body).unwrap_or_else(|| crate::openai::no_answer(cause));
    let answer: Answer<'_> = serde_json::from_slice(&body).map_err(fail)?;
    let mut said = Said::default();
    for raw in &answer.content {
        said.add(raw).map_err(fail)?;
    }
    let Some(reason) = answer.stop_reason else {
        let missing = "the answer has no stop reason";
        return Err(LlmError::new(ErrorKind::Incomplete, missing));
    };
    let mut completion = ChatCompletion::default();
    completion.id = answer.id;
    completion.model = answer.model;
    completion.usage = answer.usage.map(Usage::from);
    completion.choices = vec![Choice::new(0, said.into_message(), finish_reason(&reason))];
    completion.wire = Some(Wire::new(Dialect::Anthropic, body));
    Ok(completion)
}

/// The body that gives `completion` to a client of Anthropic: as it came, if it came in this
/// dialect; else its first choice, since an answer has no others here.
pub fn completion_to_json(completion: &ChatCompletion) -> Bytes {
    let wire = completion.wire.as_ref();
    if let Some(json) = wire.and_then(|wire| wire.in_dialect(Dialect::Anthropic)) {
        return json.clone();
    }
    let choice = completion.choices.first();
    let message = choice.map(|choice| &choice.message);
    let refused = message.is_some_and(|message| message.refusal.is_some());
    json::to_bytes(&MessageOut {
        id: &super::message_id(completion.id.as_deref()),
        r#type: "message",
        role: "assistant",
        model: completion.model.as_deref().unwrap_or_default(),
        content: message.map(blocks).unwrap_or_default(),
        stop_reason: Some(if refused {
            "refusal"
        } else {
            stop_reason(choice.and_then(|choice| choice.finish_reason.as_ref()))
        }),
        stop_sequence: None,
        usage: completion.usage.unwrap_or_default().into(),
    })
}

#[derive(Serialize)]
pub(super) struct MessageOut<'a> {
    pub(super) id: &'a str,
    pub(super) r#type: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<ContentOut<'a>>,
    pub(super) stop_reason: Option<&'static str>,
    pub(super) stop_sequence: Option<()>,
    pub(super) usage: UsageOut,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ContentOut<'a> {
    Block(BlockOut<'a>),
    /// As it came.
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum BlockOut<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'static str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Box<RawValue>,
    },
}

fn blocks(message: &Message) -> Vec<ContentOut<'_>> {
    let mut content = Vec::with_capacity(2);
    let signed: Option<Vec<Box<RawValue>>> = message.extra.read(THINKING_BLOCKS);
    match (signed, message.reasoning.as_deref()) {
        (Some(signed), _) => content.extend(signed.into_iter().map(ContentOut::Raw)),
        // Only Anthropic signs; a client shows this and must not expect it to be taken back.
        (None, Some(thinking)) if !thinking.is_empty() => {
            let signature = "";
            content.push(ContentOut::Block(BlockOut::Thinking {
                thinking,
                signature,
            }));
        }
        _ => {}
    }
    let text = message.text();
    if !text.is_empty() {
        content.push(ContentOut::Block(BlockOut::Text { text }));
    }
    if let Some(refusal) = message.refusal.as_deref().filter(|text| !text.is_empty()) {
        let text = refusal.into();
        content.push(ContentOut::Block(BlockOut::Text { text }));
    }
    for call in &message.tool_calls {
        content.push(ContentOut::Block(BlockOut::ToolUse {
            id: call.id.as_deref().unwrap_or_default(),
            name: call.name().unwrap_or_default(),
            input: object_of(call.arguments()),
        }));
    }
    content
}

/// `json`, a constant that is well formed, as a raw value.
pub(super) fn raw_text(json: &'static str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_default()
}
