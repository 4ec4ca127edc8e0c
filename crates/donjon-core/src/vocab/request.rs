//! The request: what is asked, of which model, by whom, and how.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::to_raw_value;

use super::{
    call::{CacheDirective, Call, Priority},
    canonical::{Canonical, CanonicalPiece, Whose, Writer},
    chat::Chat,
    embed::Embed,
    identity::Identity,
    json::Extra,
    message::Message,
    wire::{Dialect, Wire},
};
use crate::error::{ErrorKind, LlmError};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// A chat completion.
    Chat,
    /// Embeddings.
    Embed,
}

impl Operation {
    /// The word for it in spans and metrics (`gen_ai.operation.name`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embed => "embeddings",
        }
    }
}

/// What is asked: immutable once it is in a request, and shared by every clone of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Prompt {
    /// For a chat completion.
    Chat(Chat),
    /// For embeddings.
    Embed(Embed),
}

/// How the answer is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// Whole.
    #[default]
    Unary,
    /// Chunk by chunk.
    Stream {
        /// Whether the caller asked to be told the usage at the end.
        usage: bool,
    },
}

/// One request to a language model.
///
/// Cloning costs a few reference counts whatever the size of the prompt, and changing the model
/// copies no prompt.
///
/// ```
/// use donjon_core::{LlmRequest, Message};
///
/// let request = LlmRequest::chat("gpt-4o-mini", [Message::user("What is a donjon?")]);
/// let elsewhere = request.clone().with_model("llama-3.3-70b");
/// assert_eq!(&**elsewhere.model(), "llama-3.3-70b");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct LlmRequest {
    ask: Arc<Ask>,
    /// The model of a target, where it is not the one that the caller asks for.
    mapped: Option<Arc<str>>,
    /// How the answer is to come.
    pub delivery: Delivery,
    /// What belongs to this call alone.
    pub call: Call,
}

/// What a caller asks. It has one reference count, so that a layer which keeps a request for another
/// attempt pays for one.
#[derive(Clone)]
struct Ask {
    model: Arc<str>,
    prompt: Arc<Prompt>,
    identity: Arc<Identity>,
    cache: CacheDirective,
}

impl Ask {
    fn canonical(&self, model: &str, whose: Whose, mut sink: impl FnMut(CanonicalPiece<'_>)) {
        let Self {
            model: _,
            prompt,
            identity,
            cache: _,
        } = self;
        let mut to = Writer::new(&mut sink);
        identity.canonical(whose, &mut to);
        to.text(model);
        prompt.write(&mut to);
        to.finish();
    }
}

/// What a request asks, of which model and on whose behalf, without what belongs to the call.
///
/// Cloning costs a reference count.
#[derive(Clone)]
pub struct Question {
    ask: Arc<Ask>,
    mapped: Option<Arc<str>>,
}

impl Question {
    /// The model that is asked.
    pub fn model(&self) -> &Arc<str> {
        self.mapped.as_ref().unwrap_or(&self.ask.model)
    }

    /// What is asked.
    pub fn prompt(&self) -> &Arc<Prompt> {
        &self.ask.prompt
    }

    /// On whose behalf.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.ask.identity
    }

    /// As [`LlmRequest::canonical`].
    pub fn canonical(&self, whose: Whose, sink: impl FnMut(CanonicalPiece<'_>)) {
        self.ask.canonical(self.model(), whose, sink);
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("model", self.model())
            .field("prompt", self.prompt())
            .field("identity", self.identity())
            .finish()
    }
}

impl LlmRequest {
    /// Asks `model` with `prompt`, for a whole answer.
    pub fn new(model: impl Into<Arc<str>>, prompt: impl Into<Arc<Prompt>>) -> Self {
        let ask = Ask {
            model: model.into(),
            prompt: prompt.into(),
            identity: Identity::anonymous(),
            cache: CacheDirective::default(),
        };
        Self {
            ask: Arc::new(ask),
            mapped: None,
            delivery: Delivery::Unary,
            call: Call::default(),
        }
    }

    /// Asks `model` to continue a conversation.
    pub fn chat(model: impl Into<Arc<str>>, messages: impl IntoIterator<Item = Message>) -> Self {
        Self::new(model, Prompt::Chat(Chat::new(messages)))
    }

    /// Asks `model` for an embedding of each text.
    pub fn embed<T: Into<Box<str>>>(
        model: impl Into<Arc<str>>,
        texts: impl IntoIterator<Item = T>,
    ) -> Self {
        Self::new(model, Prompt::Embed(Embed::new(texts)))
    }

    /// Reads the body of an OpenAI chat completion request, and keeps it as it came.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`], which says what is wrong and where.
    pub fn from_openai_chat(json: impl Into<Bytes>) -> Result<Self, LlmError> {
        let json = json.into();
        let mut chat: Chat = serde_json::from_slice(&json).map_err(|e| invalid(&e))?;
        let model: Option<Arc<str>> = chat.extra.take("model")?;
        let model = model.ok_or_else(|| LlmError::invalid_field("model", "is missing"))?;
        let stream: Option<Option<bool>> = chat.extra.take("stream")?;
        let options: Option<Option<Extra>> = chat.extra.take(STREAM_OPTIONS)?;
        let mut usage = false;
        if let Some(mut options) = options.flatten() {
            let asked: Option<Option<bool>> = options.take("include_usage")?;
            usage = asked.flatten().unwrap_or(false);
            // Whatever else it says is passed on.
            if !options.is_empty()
                && let Ok(rest) = to_raw_value(&options)
            {
                chat.extra.insert(STREAM_OPTIONS, rest);
            }
        }
        chat.wire = Some(Wire::new(Dialect::OpenAi, json));
        let mut request = Self::new(model, Prompt::Chat(chat));
        if stream.flatten() == Some(true) {
            request.delivery = Delivery::Stream { usage };
        }
        Ok(request)
    }

    /// The JSON body of an OpenAI chat completion request, `None` for another operation.
    ///
    /// What came from an OpenAI body goes out as it came, but for the model and the delivery.
    pub fn to_openai_chat(&self) -> Option<Bytes> {
        let Prompt::Chat(chat) = self.prompt() else {
            return None;
        };
        let body = Body {
            model: self.model(),
            delivery: self.delivery,
            chat,
        };
        serde_json::to_vec(&body).ok().map(Bytes::from)
    }

    /// The model that is asked: the one that the caller asked for, or what a target maps it to.
    pub fn model(&self) -> &Arc<str> {
        self.mapped.as_ref().unwrap_or(&self.ask.model)
    }

    /// What is asked.
    pub fn prompt(&self) -> &Prompt {
        &self.ask.prompt
    }

    /// What is asked, to be kept or asked once more; its address tells prompts apart that are the
    /// same by more than their words.
    pub fn shared_prompt(&self) -> &Arc<Prompt> {
        &self.ask.prompt
    }

    /// How many requests, this one included, share what is asked: more than one while a driver keeps
    /// it for another attempt.
    pub fn shared_by(&self) -> usize {
        Arc::strong_count(&self.ask)
    }

    /// On whose behalf it is made.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.ask.identity
    }

    /// What it asks of a cache.
    pub fn cache(&self) -> &CacheDirective {
        &self.ask.cache
    }

    /// What is asked, to be kept or compared when the request has gone its way.
    pub fn question(&self) -> Question {
        Question {
            ask: self.ask.clone(),
            mapped: self.mapped.clone(),
        }
    }

    /// Hands `sink`, piece by piece (in one where it is short), what decides the answer in one canonical form: the model, all of
    /// the prompt, and of the identity what `whose` names. Requests that ask the same give the same
    /// bytes, in whatever order their members came, in every process; requests that differ in
    /// anything that may change the answer give others. How it is delivered, what belongs to the call
    /// and what it asks of a cache are not in it.
    ///
    /// Two texts of a request that differ only in members that came twice may give the same.
    pub fn canonical(&self, whose: Whose, sink: impl FnMut(CanonicalPiece<'_>)) {
        // Taken apart whole, so that a new field does not compile until it is decided on.
        let Self {
            ask,
            mapped: _,
            delivery: _,
            call: _,
        } = self;
        ask.canonical(self.model(), whose, sink);
    }

    /// What it asks for.
    pub fn operation(&self) -> Operation {
        match self.prompt() {
            Prompt::Chat(_) => Operation::Chat,
            Prompt::Embed(_) => Operation::Embed,
        }
    }

    /// The prompt, if it asks for a chat completion.
    pub fn as_chat(&self) -> Option<&Chat> {
        match self.prompt() {
            Prompt::Chat(chat) => Some(chat),
            Prompt::Embed(_) => None,
        }
    }

    /// The prompt to be changed, if it asks for a chat completion: copied if it is shared, and no
    /// longer passed on as it came.
    pub fn edit_chat(&mut self) -> Option<&mut Chat> {
        match Arc::make_mut(&mut Arc::make_mut(&mut self.ask).prompt) {
            Prompt::Chat(chat) => {
                chat.wire = None;
                Some(chat)
            }
            Prompt::Embed(_) => None,
        }
    }

    /// How many choices the answer must have.
    pub fn choices(&self) -> u32 {
        self.as_chat().map_or(1, Chat::choices)
    }

    /// Whether the answer is to come chunk by chunk.
    pub fn is_stream(&self) -> bool {
        matches!(self.delivery, Delivery::Stream { .. })
    }

    /// Asks another model; copies no prompt.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.set_model(model);
        self
    }

    /// Asks another model; copies no prompt.
    pub fn set_model(&mut self, model: impl Into<Arc<str>>) {
        self.mapped = Some(model.into());
    }

    /// Asks something else; requests that share the prompt keep theirs.
    pub fn set_prompt(&mut self, prompt: impl Into<Arc<Prompt>>) {
        Arc::make_mut(&mut self.ask).prompt = prompt.into();
    }

    /// Asks for the answer chunk by chunk.
    #[must_use]
    pub fn streamed(mut self) -> Self {
        self.delivery = Delivery::Stream { usage: true };
        self
    }

    /// Says on whose behalf it is made.
    #[must_use]
    pub fn on_behalf_of(mut self, identity: impl Into<Arc<Identity>>) -> Self {
        self.set_identity(identity);
        self
    }

    /// Says on whose behalf it is made; copies no prompt.
    pub fn set_identity(&mut self, identity: impl Into<Arc<Identity>>) {
        Arc::make_mut(&mut self.ask).identity = identity.into();
    }

    /// Says what it asks of a cache; copies no prompt.
    pub fn set_cache(&mut self, directive: CacheDirective) {
        Arc::make_mut(&mut self.ask).cache = directive;
    }

    /// Says how long the call may take from its beginning.
    #[must_use]
    pub fn with_timeout(mut self, within: Duration) -> Self {
        self.call.set_timeout(within);
        self
    }

    /// Says how urgent it is.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.call.priority = priority;
        self
    }
}

impl fmt::Debug for LlmRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmRequest")
            .field("model", self.model())
            .field("prompt", self.prompt())
            .field("identity", self.identity())
            .field("cache", self.cache())
            .field("delivery", &self.delivery)
            .field("call", &self.call)
            .finish()
    }
}

impl From<Chat> for Prompt {
    fn from(chat: Chat) -> Self {
        Self::Chat(chat)
    }
}

impl From<Embed> for Prompt {
    fn from(embed: Embed) -> Self {
        Self::Embed(embed)
    }
}

/// Told by the delivery, and so written apart from the prompt.
pub(super) const STREAM_OPTIONS: &str = "stream_options";

fn invalid(error: &serde_json::Error) -> LlmError {
    LlmError::new(ErrorKind::InvalidRequest, error.to_string())
}

/// The body of a chat request.
struct Body<'a> {
    model: &'a str,
    delivery: Delivery,
    chat: &'a Chat,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        if let Delivery::Stream { usage } = self.delivery {
            map.serialize_entry("stream", &true)?;
            let mut options: Extra = self.chat.extra.read(STREAM_OPTIONS).unwrap_or_default();
            if usage {
                let yes = to_raw_value(&true).map_err(serde::ser::Error::custom)?;
                options.insert("include_usage", yes);
            }
            if !options.is_empty() {
                map.serialize_entry(STREAM_OPTIONS, &options)?;
            }
        }
        let wire = self.chat.wire.as_ref();
        match wire.and_then(|wire| wire.in_dialect(Dialect::OpenAi)) {
            Some(json) => {
                serde_json::from_slice::<Members<'_>>(json)
                    .map_err(serde::ser::Error::custom)?
                    .write(&mut map)?;
            }
            None => self.chat.write_members(&mut map)?,
        }
        map.end()
    }
}

/// The members of a JSON object, borrowed.
struct Members<'a>(Vec<(super::json::Key<'a>, &'a serde_json::value::RawValue)>);

impl Members<'_> {
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        for (super::json::Key(key), value) in &self.0 {
            if !["model", "stream", STREAM_OPTIONS].contains(&&**key) {
                map.serialize_entry(&**key, value)?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
