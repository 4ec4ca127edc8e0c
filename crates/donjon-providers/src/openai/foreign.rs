//! Prompts that came in another dialect, made fit for OpenAI's.

use std::sync::Arc;

use donjon_core::{Chat, Content, Dialect, ErrorKind, Extra, LlmError, Message};

/// The member under which signed reasoning travels with a message; no member of OpenAI's.
pub(crate) const THINKING_BLOCKS: &str = "thinking_blocks";

/// `chat` with only what OpenAI knows, or `None` where it can go as it is.
pub(super) fn adapt(chat: &Chat, newer_limit: bool) -> Result<Option<Chat>, LlmError> {
    let foreign = chat
        .wire
        .as_ref()
        .is_some_and(|wire| wire.dialect != Dialect::OpenAi);
    if !foreign {
        return Ok(None);
    }
    check(chat)?;
    let mut own = chat.clone();
    own.wire = None;
    // Extra members are of the other dialect, but for the one that both have.
    own.extra = Extra::new();
    if let Some(user) = chat.extra.get("user") {
        own.extra.insert("user", user.to_owned());
    }
    if newer_limit {
        own.max_completion_tokens = chat.output_limit();
        own.max_tokens = None;
    }
    let foreign = |message: &Message| message.reasoning.is_some() || !message.extra.is_empty();
    if chat.messages.iter().any(|message| foreign(message)) {
        own.messages = chat
            .messages
            .iter()
            .map(|message| {
                if !foreign(message) {
                    return message.clone();
                }
                let mut message = Message::clone(message);
                message.reasoning = None;
                message.extra = Extra::new();
                Arc::new(message)
            })
            .collect();
    }
    Ok(Some(own))
}

/// Refuses what has no words here, so that a target that has them may be asked.
fn check(chat: &Chat) -> Result<(), LlmError> {
    for (at, message) in chat.messages.iter().enumerate() {
        let Some(Content::Parts(parts)) = &message.content else {
            continue;
        };
        for part in parts {
            if !matches!(
                &*part.kind,
                "text" | "image_url" | "input_audio" | "file" | "refusal"
            ) {
                let field = format!("messages[{at}].content");
                return Err(unsupported(&field, &part.kind));
            }
        }
    }
    for (at, tool) in chat.tools.iter().enumerate() {
        if tool.function.is_none() {
            return Err(unsupported(&format!("tools[{at}]"), &tool.kind));
        }
    }
    Ok(())
}

fn unsupported(field: &str, kind: &str) -> LlmError {
    let message = format!("`{field}`: the provider has no words for `{kind}`");
    LlmError::new(ErrorKind::Unsupported, message).with_field(field)
}
