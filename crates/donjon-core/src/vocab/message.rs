//! Messages, their parts and their tool calls.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::json::{Extra, json_object, json_words};

json_words! {
    /// Who speaks.
    pub enum Role {
        /// Instructions that stand above the conversation.
        System = "system",
        /// The same, as newer OpenAI models call it.
        Developer = "developer",
        /// The person or program that asks.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// The result of a tool call.
        Tool = "tool",
    }
}

json_object! {
    /// One message of a conversation, or of an answer.
    pub struct Message {
        /// Who speaks.
        pub role: Role = "role" => required,
        /// What is said; absent on an assistant message that only calls tools.
        pub content: Option<Content> = "content",
        /// The name of the speaker, where there are several of one role.
        pub name: Option<Box<str>> = "name",
        /// Reasoning shown beside the answer.
        pub reasoning: Option<Box<str>> = "reasoning_content" | "reasoning",
        /// Why the model refused.
        pub refusal: Option<Box<str>> = "refusal",
        /// The tools that the assistant calls.
        pub tool_calls: Vec<ToolCall> = "tool_calls",
        /// Which call a tool message answers.
        pub tool_call_id: Option<Box<str>> = "tool_call_id",
    }
}

impl Message {
    /// A message of `role` that says `content`.
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            name: None,
            reasoning: None,
            refusal: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            extra: Extra::new(),
        }
    }

    /// A system message.
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user message.
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// The result of the tool call `id`.
    pub fn tool(id: impl Into<Box<str>>, content: impl Into<Content>) -> Self {
        Self {
            tool_call_id: Some(id.into()),
            ..Self::new(Role::Tool, content)
        }
    }

    /// Whether there is nothing in it that could be shown.
    pub(crate) fn shows_nothing(&self) -> bool {
        let none = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().is_empty();
        let no_parts = match &self.content {
            Some(Content::Parts(parts)) => parts.iter().all(|part| none(&part.text)),
            Some(Content::Text(_)) | None => true,
        };
        no_parts
            && self.text().is_empty()
            && none(&self.refusal)
            && none(&self.reasoning)
            && self.tool_calls.is_empty()
            && !self.extra.shows_something()
    }

    /// The text of the message, its parts joined; empty when it has none.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        match &self.content {
            None => "".into(),
            Some(Content::Text(text)) => (&**text).into(),
            Some(Content::Parts(parts)) => match &parts[..] {
                [part] => part.text.as_deref().unwrap_or_default().into(),
                parts => parts
                    .iter()
                    .filter_map(|part| part.text.as_deref())
                    .collect(),
            },
        }
    }
}

/// What a message says: a text, or a list of parts.
#[derive(Clone)]
pub enum Content {
    /// One text.
    Text(Box<str>),
    /// Texts, images and whatever else a part may be.
    Parts(Vec<Part>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is said is printed only when somebody asks for it.
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Parts(parts) => write!(f, "Parts({})", parts.len()),
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self::Parts(parts)
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Parts(parts) => parts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content parts")
            }
            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

json_object! {
    /// One part of a message. Parts of a kind without fields here (`input_audio`, `file`) keep
    /// their members in `extra`.
    pub struct Part {
        /// `text`, `image_url`, `input_audio`, `file`, `refusal`, or another word.
        pub kind: Box<str> = "type" => required,
        /// The text of a `text` part.
        pub text: Option<Box<str>> = "text",
        /// The image of an `image_url` part.
        pub image_url: Option<ImageUrl> = "image_url",
    }
}

impl Part {
    /// A `text` part.
    pub fn text(text: impl Into<Box<str>>) -> Self {
        Self {
            kind: "text".into(),
            text: Some(text.into()),
            image_url: None,
            extra: Extra::new(),
        }
    }

    /// An `image_url` part: an address, or a `data:` URL that holds the image itself.
    pub fn image_url(url: impl Into<Box<str>>) -> Self {
        Self {
            kind: "image_url".into(),
            text: None,
            image_url: Some(ImageUrl {
                url: url.into(),
                detail: None,
                extra: Extra::new(),
            }),
            extra: Extra::new(),
        }
    }

    /// A part of any other `kind`, its members in `extra`.
    pub fn other(kind: impl Into<Box<str>>, extra: Extra) -> Self {
        Self {
            kind: kind.into(),
            text: None,
            image_url: None,
            extra,
        }
    }
}

json_object! {
    /// Where an image is.
    pub struct ImageUrl {
        /// An address, or a `data:` URL.
        pub url: Box<str> = "url" => required,
        /// `auto`, `low` or `high`.
        pub detail: Option<Box<str>> = "detail",
    }
}

json_object! {
    /// A tool call of the assistant, or the piece of one that a chunk carries.
    pub struct ToolCall {
        /// Which call of the message a piece belongs to; absent on whole calls.
        pub index: Option<u32> = "index",
        /// The name by which the result refers to the call.
        pub id: Option<Box<str>> = "id",
        /// `function`, nearly always.
        pub kind: Option<Box<str>> = "type",
        /// The function and its arguments.
        pub function: Option<FunctionCall> = "function",
    }
}

impl ToolCall {
    /// A whole call of the function `name` with `arguments`, a JSON text.
    pub fn function(
        id: impl Into<Box<str>>,
        name: impl Into<Box<str>>,
        arguments: impl Into<String>,
    ) -> Self {
        Self {
            index: None,
            id: Some(id.into()),
            kind: Some("function".into()),
            function: Some(FunctionCall {
                name: Some(name.into()),
                arguments: Some(arguments.into()),
                extra: Extra::new(),
            }),
            extra: Extra::new(),
        }
    }

    /// A piece of the call at `index`.
    pub fn piece(index: u32, arguments: impl Into<String>) -> Self {
        Self {
            index: Some(index),
            id: None,
            kind: None,
            function: Some(FunctionCall {
                name: None,
                arguments: Some(arguments.into()),
                extra: Extra::new(),
            }),
            extra: Extra::new(),
        }
    }

    /// The name of the called function, once it is known.
    pub fn name(&self) -> Option<&str> {
        self.function.as_ref()?.name.as_deref()
    }

    /// The arguments, a JSON text, or as much of it as there is.
    pub fn arguments(&self) -> &str {
        self.function
            .as_ref()
            .and_then(|function| function.arguments.as_deref())
            .unwrap_or_default()
    }
}

json_object! {
    /// A function and the arguments it is called with.
    pub struct FunctionCall {
        /// The function's name.
        pub name: Option<Box<str>> = "name",
        /// A JSON text, written by a model: it need not be well formed.
        pub arguments: Option<String> = "arguments",
    }
}

json_object! {
    /// A tool that the model may call.
    pub struct Tool {
        /// `function`, nearly always.
        pub kind: Box<str> = "type" => required,
        /// The function, on a tool of that kind.
        pub function: Option<Function> = "function",
    }
}

impl Tool {
    /// A function tool.
    pub fn function(function: Function) -> Self {
        Self {
            kind: "function".into(),
            function: Some(function),
            extra: Extra::new(),
        }
    }
}

json_object! {
    /// A function that the model may call.
    pub struct Function {
        /// Its name.
        pub name: Box<str> = "name" => required,
        /// What it does, for the model to read.
        pub description: Option<Box<str>> = "description",
        /// A JSON schema of its arguments.
        pub parameters: Option<Box<RawValue>> = "parameters",
        /// Whether the arguments must follow the schema exactly.
        pub strict: Option<bool> = "strict",
    }
}

impl Function {
    /// A function called `name`, without arguments until `parameters` is set.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self {
            name: name.into(),
            description: None,
            parameters: None,
            strict: None,
            extra: Extra::new(),
        }
    }
}
