//! One event of a streamed answer.

mod read;
mod write;

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{
    completion::FinishReason,
    json::Extra,
    message::{Role, ToolCall},
    usage::Usage,
    wire::{Dialect, Wire},
};
pub(in crate::vocab) use write::KNOWN;

/// One streamed event: what it adds to the answer, and how it stood on the wire.
///
/// Reads as a [`Delta`]. Passed on in the dialect it came in, it is sent as it came; through
/// [`edit`](Self::edit) its fields can be changed, and the members without a field still survive.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    delta: Delta,
    wire: Option<Wire>,
    edited: bool,
    ping: bool,
}

/// What a chunk adds to the answer
/// (<https://platform.openai.com/docs/api-reference/chat-streaming>).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Delta {
    /// The provider's name for the answer.
    pub id: Option<Arc<str>>,
    /// The model that serves.
    pub model: Option<Arc<str>>,
    /// When the answer was begun, in seconds since 1970.
    pub created: Option<u64>,
    /// What is added to each choice; empty in a chunk that only tells the usage.
    pub choices: SmallVec<[ChoiceDelta; 1]>,
    /// What the call has used up to here: the latest figure counts, they do not add up.
    pub usage: Option<Usage>,
    /// Whether this is an event of a kind that is not known here.
    pub unknown: bool,
}

/// What a chunk adds to one choice.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ChoiceDelta {
    /// Which choice.
    pub index: u32,
    /// Who speaks; in the first chunk of a choice.
    pub role: Option<Role>,
    /// Text of the answer.
    pub content: Option<Box<str>>,
    /// Text of the reasoning shown beside it.
    pub reasoning: Option<Box<str>>,
    /// Text of a refusal.
    pub refusal: Option<Box<str>>,
    /// Pieces of tool calls, each with its index.
    pub tool_calls: Vec<ToolCall>,
    /// Why the choice ended.
    pub finish_reason: Option<FinishReason>,
    /// The probabilities of these tokens, as JSON.
    pub logprobs: Option<Box<RawValue>>,
    /// Every other member of the delta (audio, what is not known yet), as it came.
    pub extra: Extra,
    /// Every other member of the choice, beside its delta, as it came.
    pub beside: Extra,
}

impl ChoiceDelta {
    /// The role chunk that opens choice `index`.
    pub fn role(index: u32, role: Role) -> Self {
        Self {
            index,
            role: Some(role),
            ..Self::default()
        }
    }

    /// Text for choice `index`.
    pub fn text(index: u32, text: impl Into<Box<str>>) -> Self {
        Self {
            index,
            content: Some(text.into()),
            ..Self::default()
        }
    }

    /// The end of choice `index`.
    pub fn finish(index: u32, reason: FinishReason) -> Self {
        Self {
            index,
            finish_reason: Some(reason),
            ..Self::default()
        }
    }

    /// Whether it shows the caller anything: text, a refusal, a tool call, audio, or a member that
    /// is not known here. Reasoning counts where `reasoning` says so. A role, an empty text and the
    /// finish reason do not count.
    pub fn shows(&self, reasoning: bool) -> bool {
        let some = |text: &Option<Box<str>>| text.as_deref().is_some_and(|text| !text.is_empty());
        some(&self.content)
            || some(&self.refusal)
            || (reasoning && some(&self.reasoning))
            || !self.tool_calls.is_empty()
            || self.extra.shows_something()
    }

    /// The bytes of text, reasoning and tool arguments that it carries.
    pub fn bytes(&self) -> usize {
        let len = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        len(&self.content)
            + len(&self.reasoning)
            + len(&self.refusal)
            + self
                .tool_calls
                .iter()
                .map(|call| call.arguments().len())
                .sum::<usize>()
    }
}

impl Delta {
    /// The first text that it adds to choice 0, if any.
    pub fn text(&self) -> Option<&str> {
        self.choices
            .iter()
            .find(|choice| choice.index == 0)
            .and_then(|choice| choice.content.as_deref())
            .filter(|text| !text.is_empty())
    }

    /// Whether it shows the caller anything; see [`ChoiceDelta::shows`].
    pub fn shows(&self, reasoning: bool) -> bool {
        self.unknown || self.choices.iter().any(|choice| choice.shows(reasoning))
    }

    /// Whether any choice ends in it.
    pub fn finishes(&self) -> bool {
        self.choices.iter().any(|c| c.finish_reason.is_some())
    }

    /// The bytes of text, reasoning and tool arguments that it carries.
    pub fn bytes(&self) -> usize {
        self.choices.iter().map(ChoiceDelta::bytes).sum()
    }
}

impl Chunk {
    /// A chunk that adds these choices.
    pub fn new(choices: impl IntoIterator<Item = ChoiceDelta>) -> Self {
        Delta {
            choices: choices.into_iter().collect(),
            ..Delta::default()
        }
        .into()
    }

    /// A chunk that adds `text` to the first choice.
    pub fn text(text: impl Into<Box<str>>) -> Self {
        Self::new([ChoiceDelta::text(0, text)])
    }

    /// The chunk that opens the first choice of an assistant's answer.
    pub fn role() -> Self {
        Self::new([ChoiceDelta::role(0, Role::Assistant)])
    }

    /// The chunk that ends the first choice.
    pub fn finish(reason: FinishReason) -> Self {
        Self::new([ChoiceDelta::finish(0, reason)])
    }

    /// A chunk that only tells the usage.
    pub fn usage(usage: Usage) -> Self {
        Delta {
            usage: Some(usage),
            ..Delta::default()
        }
        .into()
    }

    /// A keep-alive: it carries nothing, resets no clock, and is not passed on.
    pub fn ping() -> Self {
        Self {
            ping: true,
            ..Self::default()
        }
    }

    /// Whether this is a keep-alive.
    pub fn is_ping(&self) -> bool {
        self.ping
    }

    /// Reads one event of an OpenAI stream: a JSON text, which is kept as it came.
    pub fn from_openai(json: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let json = json.into();
        let delta = serde_json::from_slice(&json)?;
        Ok(Self::from_wire(delta, Wire::new(Dialect::OpenAi, json)))
    }

    /// A chunk read from `wire` by a codec, which vouches that `delta` is what it says.
    pub fn from_wire(delta: Delta, wire: Wire) -> Self {
        Self {
            delta,
            wire: Some(wire),
            edited: false,
            ping: false,
        }
    }

    /// The JSON it came as, if that is in `dialect` and nothing was edited since.
    pub fn wire(&self, dialect: Dialect) -> Option<&Bytes> {
        if self.edited {
            return None;
        }
        self.wire.as_ref()?.in_dialect(dialect)
    }

    /// The OpenAI JSON it came as, edited since or not.
    pub(in crate::vocab) fn openai_wire(&self) -> Option<&Bytes> {
        self.wire.as_ref()?.in_dialect(Dialect::OpenAi)
    }

    /// What it adds, to be changed. Members without a field survive when it is written again.
    pub fn edit(&mut self) -> &mut Delta {
        self.edited = true;
        &mut self.delta
    }

    /// What it adds.
    pub fn into_delta(self) -> Delta {
        self.delta
    }
}

impl Deref for Chunk {
    type Target = Delta;
    fn deref(&self) -> &Delta {
        &self.delta
    }
}

impl From<Delta> for Chunk {
    fn from(delta: Delta) -> Self {
        Self {
            delta,
            wire: None,
            edited: false,
            ping: false,
        }
    }
}
