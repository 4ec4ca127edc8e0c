//! The prompt of a chat completion.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    json::{Extra, json_object},
    message::{Message, Tool},
    wire::Wire,
};

json_object! {
    /// The members of a chat completion request that are not about its delivery.
    struct Members {
        pub messages: Arc<[Arc<Message>]> = "messages" => required,
        pub tools: Arc<[Tool]> = "tools",
        pub tool_choice: Option<Box<RawValue>> = "tool_choice",
        pub parallel_tool_calls: Option<bool> = "parallel_tool_calls",
        pub max_tokens: Option<u64> = "max_tokens",
        pub max_completion_tokens: Option<u64> = "max_completion_tokens",
        pub temperature: Option<f64> = "temperature",
        pub top_p: Option<f64> = "top_p",
        pub n: Option<u32> = "n",
        pub stop: Option<Stop> = "stop",
        pub seed: Option<i64> = "seed",
        pub response_format: Option<Box<RawValue>> = "response_format",
        pub reasoning_effort: Option<Box<str>> = "reasoning_effort",
    }
}

/// What a chat completion is asked with: the messages, the tools, and the parameters.
///
/// The members are those of OpenAI's chat completions
/// (<https://platform.openai.com/docs/api-reference/chat/create>); what has no field here is kept
/// in [`extra`](Self::extra) as it came. A prompt is immutable once it is in a request, and shared
/// by every clone of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chat {
    /// The conversation, oldest first.
    pub messages: Arc<[Arc<Message>]>,
    /// The tools that the model may call.
    pub tools: Arc<[Tool]>,
    /// Whether and which tool must be called, as JSON.
    pub tool_choice: Option<Box<RawValue>>,
    /// Whether several tools may be called at once.
    pub parallel_tool_calls: Option<bool>,
    /// The most tokens of the answer, by its older name.
    pub max_tokens: Option<u64>,
    /// The most tokens of the answer, reasoning included.
    pub max_completion_tokens: Option<u64>,
    /// The sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// The nucleus of sampling, 0 to 1.
    pub top_p: Option<f64>,
    /// How many choices are asked for.
    pub n: Option<u32>,
    /// Where the answer ends.
    pub stop: Option<Stop>,
    /// Asks for the same answer to the same request.
    pub seed: Option<i64>,
    /// The form of the answer (JSON, a JSON schema), as JSON.
    pub response_format: Option<Box<RawValue>>,
    /// How much to reason before answering.
    pub reasoning_effort: Option<Box<str>>,
    /// Every other member, as it came.
    pub extra: Extra,
    /// The whole request as it came, for a codec of the same dialect to pass on.
    pub wire: Option<Wire>,
}

impl Chat {
    /// A prompt of these messages and no parameters.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().map(Arc::new).collect(),
            tools: Arc::default(),
            tool_choice: None,
            parallel_tool_calls: None,
            max_tokens: None,
            max_completion_tokens: None,
            temperature: None,
            top_p: None,
            n: None,
            stop: None,
            seed: None,
            response_format: None,
            reasoning_effort: None,
            extra: Extra::new(),
            wire: None,
        }
    }

    /// How many choices the answer must have: `n`, or one.
    pub fn choices(&self) -> u32 {
        self.n.unwrap_or(1).max(1)
    }

    /// The most tokens that the answer may have, if that was said under either name.
    pub fn output_limit(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    pub(crate) fn write_members<M: serde::ser::SerializeMap>(
        &self,
        map: &mut M,
    ) -> Result<(), M::Error> {
        // Taken apart whole, so that a new field does not compile until it is written here.
        let Self {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            max_tokens,
            max_completion_tokens,
            temperature,
            top_p,
            n,
            stop,
            seed,
            response_format,
            reasoning_effort,
            extra,
            wire: _,
        } = self;
        map.serialize_entry("messages", messages)?;
        if !tools.is_empty() {
            map.serialize_entry("tools", tools)?;
        }
        entry(map, "tool_choice", tool_choice.as_ref())?;
        entry(map, "parallel_tool_calls", parallel_tool_calls.as_ref())?;
        entry(map, "max_tokens", max_tokens.as_ref())?;
        entry(map, "max_completion_tokens", max_completion_tokens.as_ref())?;
        entry(map, "temperature", temperature.as_ref())?;
        entry(map, "top_p", top_p.as_ref())?;
        entry(map, "n", n.as_ref())?;
        entry(map, "stop", stop.as_ref())?;
        entry(map, "seed", seed.as_ref())?;
        entry(map, "response_format", response_format.as_ref())?;
        entry(map, "reasoning_effort", reasoning_effort.as_ref())?;
        extra.write_but(map, super::request::STREAM_OPTIONS)
    }
}

fn entry<M: serde::ser::SerializeMap, T: Serialize>(
    map: &mut M,
    name: &str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(name, value),
        None => Ok(()),
    }
}

impl From<Members> for Chat {
    fn from(members: Members) -> Self {
        let Members {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            max_tokens,
            max_completion_tokens,
            temperature,
            top_p,
            n,
            stop,
            seed,
            response_format,
            reasoning_effort,
            extra,
        } = members;
        Self {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            max_tokens,
            max_completion_tokens,
            temperature,
            top_p,
            n,
            stop,
            seed,
            response_format,
            reasoning_effort,
            extra,
            wire: None,
        }
    }
}

impl<'de> Deserialize<'de> for Chat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Members::deserialize(deserializer).map(Self::from)
    }
}

/// One stop sequence or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A single sequence.
    One(Box<str>),
    /// Any of these.
    Many(Vec<Box<str>>),
}

impl Stop {
    /// The sequences.
    pub fn as_slice(&self) -> &[Box<str>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Serialize for Stop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(one) => serializer.serialize_str(one),
            Self::Many(many) => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Stop;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E>(self, one: &str) -> Result<Stop, E> {
                Ok(Stop::One(one.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = seq.next_element()? {
                    many.push(one);
                }
                Ok(Stop::Many(many))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
