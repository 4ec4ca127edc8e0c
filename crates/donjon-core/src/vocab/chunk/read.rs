//! Reading a chunk from the words of OpenAI.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{ChoiceDelta, Delta};
use crate::vocab::{
    completion::FinishReason,
    json::{Extra, Key, Lenient, whole_seconds},
    message::{Content, Part, Role, ToolCall},
    usage::Usage,
};

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
