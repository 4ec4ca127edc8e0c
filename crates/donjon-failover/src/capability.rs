//! What a target can do, and what a request needs.

use std::fmt;

use donjon_core::{Content, LlmRequest, Message, Prompt, Role};

/// Something that not every target can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Capability {
    /// It calls tools. Needed by a chat that brings some.
    Tools = 0,
    /// It sees images. Needed by a chat that shows one.
    Vision = 1,
    /// It continues an assistant message that was begun for it. Needed by a chat that ends with one.
    Prefill = 2,
    /// It answers in a form that is prescribed. Needed by a chat with a `response_format` other than
    /// text.
    StructuredOutput = 3,
}

impl Capability {
    /// All there are.
    pub const ALL: &'static [Self] = &[
        Self::Tools,
        Self::Vision,
        Self::Prefill,
        Self::StructuredOutput,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Vision => "vision",
            Self::Prefill => "prefill",
            Self::StructuredOutput => "structured_output",
        }
    }

    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The one of a set of bits that comes first.
    pub(crate) fn first_of(bits: u32) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|capability| bits & capability.bit() != 0)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that a target can do, as bits.
pub(crate) const EVERYTHING: u32 = (1 << Capability::ALL.len()) - 1;

/// What a request needs of its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Capabilities, as bits.
    pub(crate) abilities: u32,
    /// Tokens that must have room in the context window; 0 where nobody has counted.
    pub(crate) tokens: u64,
}

impl Needs {
    pub(crate) fn of(request: &LlmRequest) -> Self {
        let tokens = request.call.estimate.map_or(0, |estimate| estimate.input);
        let mut abilities = 0;
        if let Prompt::Chat(chat) = request.prompt() {
            let mut need = |needed: bool, capability: Capability| {
                abilities |= u32::from(needed) * capability.bit();
            };
            let messages = || chat.messages.iter();
            let last = messages().next_back();
            let format = chat.response_format.as_deref();
            need(!chat.tools.is_empty(), Capability::Tools);
            need(messages().any(|m| shows_image(m)), Capability::Vision);
            need(
                last.is_some_and(|m| m.role == Role::Assistant),
                Capability::Prefill,
            );
            need(
                format.is_some_and(|f| prescribes(f.get())),
                Capability::StructuredOutput,
            );
        }
        Self { abilities, tokens }
    }
}

fn shows_image(message: &Message) -> bool {
    let Some(Content::Parts(parts)) = &message.content else {
        return false;
    };
    let images = ["image_url", "image", "input_image"];
    parts.iter().any(|part| images.contains(&&*part.kind))
}

/// Whether a `response_format` prescribes anything: `null` and `{"type": "text"}` do not.
fn prescribes(format: &str) -> bool {
    ["\"json_schema\"", "\"json_object\""]
        .iter()
        .any(|kind| format.contains(kind))
}

#[cfg(test)]
mod tests {
    use donjon_core::{Estimate, Part};

    use super::*;

    fn needs(body: &str) -> Vec<Capability> {
        let request = LlmRequest::from_openai_chat(body.to_owned()).expect("a good request");
        let bits = Needs::of(&request).abilities;
        let all = Capability::ALL.iter().copied();
        all.filter(|c| bits & c.bit() != 0).collect()
    }

    #[test]
    fn a_request_needs_what_it_brings() {
        let user = r#"{"role":"user","content":"hi"}"#;
        let chat = |messages: &str, more: &str| {
            needs(&format!(r#"{{"model":"m","messages":[{messages}]{more}}}"#))
        };
        assert_eq!(chat(user, ""), []);
        let tools = r#","tools":[{"type":"function","function":{"name":"f"}}]"#;
        assert_eq!(chat(user, tools), [Capability::Tools]);
        let text = r#","response_format":{"type":"text"}"#;
        assert_eq!(chat(user, text), []);
        let json = r#","response_format":{"type":"json_object"}"#;
        assert_eq!(chat(user, json), [Capability::StructuredOutput]);
        let begun = format!(r#"{user},{{"role":"assistant","content":"Well,"}}"#);
        assert_eq!(chat(&begun, ""), [Capability::Prefill]);
        let image = r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}"#;
        assert_eq!(chat(image, ""), [Capability::Vision]);
    }

    #[test]
    fn tokens_are_needed_once_somebody_has_counted_them() {
        let mut request = LlmRequest::chat("m", [Message::user(vec![Part::text("hi")])]);
        assert_eq!(Needs::of(&request), Needs::default());
        request.call.estimate = Some(Estimate::new(12, 100));
        assert_eq!(Needs::of(&request).tokens, 12);
        assert_eq!(Needs::of(&LlmRequest::embed("m", ["hi"])), Needs::default());
    }
}
