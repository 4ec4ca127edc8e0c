//! A whole answer.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    embed::Embeddings,
    json::{Extra, Lenient, json_object, json_words, whole_seconds},
    message::{Message, ToolCall},
    request::Operation,
    usage::Usage,
    wire::Wire,
};

/// The whole answer to an [`Operation`]; cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Completion {
    /// To a chat.
    Chat(Arc<ChatCompletion>),
    /// To a request for embeddings.
    Embed(Arc<Embeddings>),
}

impl Completion {
    /// What was asked for.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Chat(_) => Operation::Chat,
            Self::Embed(_) => Operation::Embed,
        }
    }

    /// The answer to a chat.
    pub fn as_chat(&self) -> Option<&ChatCompletion> {
        match self {
            Self::Chat(chat) => Some(chat),
            Self::Embed(_) => None,
        }
    }

    /// The embeddings.
    pub fn as_embed(&self) -> Option<&Embeddings> {
        match self {
            Self::Embed(embeddings) => Some(embeddings),
            Self::Chat(_) => None,
        }
    }

    /// The text of the first answer to a chat; empty for anything else.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        self.as_chat()
            .map(ChatCompletion::first_text)
            .unwrap_or_default()
    }

    /// What the call used, if the provider said so.
    pub fn usage(&self) -> Option<&Usage> {
        match self {
            Self::Chat(chat) => chat.usage.as_ref(),
            Self::Embed(embeddings) => embeddings.usage.as_ref(),
        }
    }
}

impl From<ChatCompletion> for Completion {
    fn from(chat: ChatCompletion) -> Self {
        Self::Chat(Arc::new(chat))
    }
}

impl From<Embeddings> for Completion {
    fn from(embeddings: Embeddings) -> Self {
        Self::Embed(Arc::new(embeddings))
    }
}

json_words! {
    /// Why a choice ended.
    pub enum FinishReason {
        /// The model was done.
        Stop = "stop",
        /// The limit of output tokens was reached.
        Length = "length",
        /// The model waits for the results of its tool calls.
        ToolCalls = "tool_calls",
        /// A filter of the provider held the answer back.
        ContentFilter = "content_filter",
        /// The older form of `tool_calls`.
        FunctionCall = "function_call",
    }
}

json_object! {
    /// One of the answers to a chat.
    pub struct Choice {
        /// Its place among the choices.
        pub index: u32 = "index" => required,
        /// What the model says.
        pub message: Message = "message" => required,
        /// Why it ended.
        pub finish_reason: Option<FinishReason> = "finish_reason",
        /// The probabilities of tokens, as JSON.
        pub logprobs: Option<Box<RawValue>> = "logprobs",
    }
}

impl Choice {
    /// The choice at `index`.
    pub fn new(index: u32, message: Message, finish_reason: FinishReason) -> Self {
        Self {
            index,
            message,
            finish_reason: Some(finish_reason),
            logprobs: None,
            extra: Extra::new(),
        }
    }
}

json_object! {
    struct Members {
        pub id: Option<Arc<str>> = "id",
        pub created: Lenient<f64> = "created",
        pub model: Option<Arc<str>> = "model",
        pub choices: Vec<Choice> = "choices",
        pub usage: Option<Box<RawValue>> = "usage",
        pub object: Option<Box<str>> = "object",
    }
}

/// The whole answer to a chat
/// (<https://platform.openai.com/docs/api-reference/chat/object>).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ChatCompletion {
    /// The provider's name for the answer.
    pub id: Option<Arc<str>>,
    /// When it was made, in seconds since 1970.
    pub created: Option<u64>,
    /// The model that served.
    pub model: Option<Arc<str>>,
    /// The answers, as many as were asked for.
    pub choices: Vec<Choice>,
    /// What the call used, if the provider said so.
    pub usage: Option<Usage>,
    /// Every other member, as it came.
    pub extra: Extra,
    /// The whole answer as it came, for the edge to pass on in the same dialect. Clear it when
    /// editing.
    pub wire: Option<Wire>,
    /// The usage as it was told, with what has no field.
    told: Option<Box<RawValue>>,
}

impl ChatCompletion {
    /// An answer of one choice that says `text` and then stops.
    pub fn text(model: impl Into<Arc<str>>, text: impl Into<Box<str>>) -> Self {
        let text: Box<str> = text.into();
        Self {
            model: Some(model.into()),
            choices: vec![Choice::new(
                0,
                Message::assistant(String::from(text)),
                FinishReason::Stop,
            )],
            ..Self::default()
        }
    }

    /// The text of the first choice; empty when there is none.
    pub fn first_text(&self) -> std::borrow::Cow<'_, str> {
        self.choices
            .first()
            .map(|choice| choice.message.text())
            .unwrap_or_default()
    }

    /// The tool calls of the first choice.
    pub fn tool_calls(&self) -> &[ToolCall] {
        self.choices
            .first()
            .map(|choice| &*choice.message.tool_calls)
            .unwrap_or_default()
    }

    /// Whether every choice that there is, and at least one, says why it ended.
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|c| c.finish_reason.is_some())
    }

    /// Whether a filter held the answer back and left nothing to show.
    pub fn is_withheld(&self) -> bool {
        !self.choices.is_empty()
            && self.choices.iter().all(|choice| {
                choice.finish_reason == Some(FinishReason::ContentFilter)
                    && choice.message.shows_nothing()
            })
    }
}

impl<'de> Deserialize<'de> for ChatCompletion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Members {
            id,
            created,
            model,
            choices,
            usage,
            object: _,
            extra,
        } = Members::deserialize(deserializer)?;
        Ok(Self {
            id,
            created: created.0.map(whole_seconds),
            model,
            choices,
            usage: usage
                .as_ref()
                .and_then(|raw| serde_json::from_str(raw.get()).ok()),
            told: usage,
            extra,
            wire: None,
        })
    }
}

impl Serialize for ChatCompletion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id.as_deref().unwrap_or_default())?;
        map.serialize_entry("object", "chat.completion")?;
        map.serialize_entry("created", &self.created.unwrap_or(0))?;
        map.serialize_entry("model", self.model.as_deref().unwrap_or_default())?;
        map.serialize_entry("choices", &self.choices)?;
        if let Some(usage) = &self.usage {
            // Unchanged, it goes out with all that the provider put there.
            let told = self.told.as_ref().filter(|raw| {
                serde_json::from_str(raw.get()).is_ok_and(|told: Usage| told == *usage)
            });
            match told {
                Some(raw) => map.serialize_entry("usage", raw)?,
                None => map.serialize_entry("usage", usage)?,
            }
        }
        self.extra.write(&mut map)?;
        map.end()
    }
}
