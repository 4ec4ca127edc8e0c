//! One event of a streamed answer.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{
    completion::FinishReason,
    json::{Extra, Key, Lenient, whole_seconds},
    message::{Content, Part, Role, ToolCall},
    usage::Usage,
    wire::{Dialect, Wire},
};

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
    pub(super) fn openai_wire(&self) -> Option<&Bytes> {
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

impl<'de> Deserialize<'de> for Delta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Delta;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a chat completion chunk")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delta, A::Error> {
                let mut delta = Delta::default();
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "id" => delta.id = shared(map.next_value()?),
                        "model" => delta.model = shared(map.next_value()?),
                        "created" => {
                            delta.created = map.next_value::<Option<f64>>()?.map(whole_seconds);
                        }
                        "choices" => {
                            if let Some(Choices(choices)) = map.next_value()? {
                                delta.choices = choices;
                            }
                        }
                        "usage" => delta.usage = map.next_value::<Lenient<Usage>>()?.0,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(delta)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Straight from the input, where reading an `Arc<str>` would go through a `Box<str>`.
fn shared(text: Option<Key<'_>>) -> Option<Arc<str>> {
    text.map(|Key(text)| Arc::from(&*text))
}

struct Choices(SmallVec<[ChoiceDelta; 1]>);

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Choices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices, A::Error> {
                let mut choices = SmallVec::new();
                while let Some(choice) = seq.next_element()? {
                    choices.push(choice);
                }
                Ok(Choices(choices))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for ChoiceDelta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ChoiceDelta;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a choice")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ChoiceDelta, A::Error> {
                let mut choice = ChoiceDelta::default();
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "index" => choice.index = map.next_value::<Option<u32>>()?.unwrap_or(0),
                        "finish_reason" => choice.finish_reason = map.next_value()?,
                        "logprobs" => choice.logprobs = map.next_value()?,
                        "delta" => {
                            if let Some(inner) = map.next_value::<Option<InnerDelta>>()? {
                                inner.put(&mut choice);
                            }
                        }
                        _ => {
                            if let Some(value) = map.next_value::<Option<Box<RawValue>>>()? {
                                choice.beside.push(key, value);
                            }
                        }
                    }
                }
                choice.beside.settle();
                // An empty finish reason is how some servers say "not yet".
                if choice.finish_reason == Some(FinishReason::Other("".into())) {
                    choice.finish_reason = None;
                }
                Ok(choice)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[derive(Default)]
struct InnerDelta {
    role: Option<Role>,
    content: Option<Box<str>>,
    reasoning: Option<Box<str>>,
    refusal: Option<Box<str>>,
    tool_calls: Vec<ToolCall>,
    extra: Extra,
}

impl InnerDelta {
    /// A list of parts: a text if all of them are, else kept as it is.
    fn parts(&mut self, parts: Vec<Part>) {
        if parts.iter().all(|part| &*part.kind == "text") {
            let texts = parts.iter().filter_map(|part| part.text.as_deref());
            self.content = Some(texts.collect::<String>().into());
        } else if let Ok(parts) = serde_json::value::to_raw_value(&parts) {
            self.extra.push("content", parts);
        }
    }

    fn put(self, choice: &mut ChoiceDelta) {
        choice.role = self.role;
        choice.content = self.content;
        choice.reasoning = self.reasoning;
        choice.refusal = self.refusal;
        choice.tool_calls = self.tool_calls;
        choice.extra = self.extra;
    }
}

impl<'de> Deserialize<'de> for InnerDelta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = InnerDelta;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InnerDelta, A::Error> {
                let mut delta = InnerDelta::default();
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "role" => delta.role = map.next_value()?,
                        "content" => match map.next_value::<Option<Content>>()? {
                            Some(Content::Text(text)) => delta.content = Some(text),
                            Some(Content::Parts(parts)) => delta.parts(parts),
                            None => {}
                        },
                        "reasoning_content" | "reasoning" => {
                            if let Some(text) = map.next_value()? {
                                delta.reasoning = Some(text);
                            }
                        }
                        "refusal" => delta.refusal = map.next_value()?,
                        "tool_calls" => {
                            delta.tool_calls = map
                                .next_value::<Option<Vec<ToolCall>>>()?
                                .unwrap_or_default();
                        }
                        _ => {
                            // What is null says nothing and survives on the wire.
                            if let Some(value) = map.next_value::<Option<Box<RawValue>>>()? {
                                delta.extra.push(key, value);
                            }
                        }
                    }
                }
                delta.extra.settle();
                Ok(delta)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for Chunk {
    /// Writes an OpenAI chunk. Members that came on an OpenAI wire and have no field survive.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members: Extra = self
            .openai_wire()
            .and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.delta.id.as_deref().unwrap_or_default())?;
        map.serialize_entry("object", "chat.completion.chunk")?;
        map.serialize_entry("created", &self.delta.created.unwrap_or(0))?;
        map.serialize_entry("model", self.delta.model.as_deref().unwrap_or_default())?;
        map.serialize_entry("choices", &self.delta.choices[..])?;
        if let Some(usage) = &self.delta.usage {
            // Unchanged, it goes out with all that the provider put there.
            match members.get("usage") {
                Some(raw) if members.read("usage") == Some(*usage) => {
                    map.serialize_entry("usage", raw)?;
                }
                _ => map.serialize_entry("usage", usage)?,
            }
        }
        for (key, value) in members.iter() {
            if !KNOWN.contains(&key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// The members of a chunk that have fields.
pub(super) const KNOWN: [&str; 6] = ["id", "object", "created", "model", "choices", "usage"];

impl Serialize for ChoiceDelta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Inner<'a>(&'a ChoiceDelta);
        impl Serialize for Inner<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let choice = self.0;
                let mut map = serializer.serialize_map(None)?;
                if let Some(role) = &choice.role {
                    map.serialize_entry("role", role)?;
                }
                if let Some(content) = &choice.content {
                    map.serialize_entry("content", content)?;
                }
                if let Some(reasoning) = &choice.reasoning {
                    map.serialize_entry("reasoning_content", reasoning)?;
                }
                if let Some(refusal) = &choice.refusal {
                    map.serialize_entry("refusal", refusal)?;
                }
                if !choice.tool_calls.is_empty() {
                    map.serialize_entry("tool_calls", &choice.tool_calls)?;
                }
                choice.extra.write(&mut map)?;
                map.end()
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &self.index)?;
        map.serialize_entry("delta", &Inner(self))?;
        if let Some(logprobs) = &self.logprobs {
            map.serialize_entry("logprobs", logprobs)?;
        }
        map.serialize_entry("finish_reason", &self.finish_reason)?;
        self.beside.write(&mut map)?;
        map.end()
    }
}
