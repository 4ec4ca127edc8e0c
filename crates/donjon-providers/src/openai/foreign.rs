//! Prompts that came in another dialect, made fit for OpenAI's.

use std::sync::Arc;

use donjon_core::{Chat, Content, Dialect, ErrorKind, Extra, LlmError, Message};

/// The member under which signed reasoning travels with a message; no member of OpenAI's.
pub(crate) const THINKING_BLOCKS: &str = "thinking_blocks";

/// The member under which Gemini's signatures travel with a tool call; no member of OpenAI's either.
pub(crate) const EXTRA_CONTENT: &str = "extra_content";

/// `chat` with only what OpenAI knows, or `None` where it can go as it is. `openai` says whether it
/// goes to OpenAI itself, which has its own name for the limit of output and takes no member that it
/// does not know; compatible servers may be anything.
pub(super) fn adapt(chat: &Chat, openai: bool) -> Result<Option<Chat>, LlmError> {
    let wire = chat.wire.as_ref();
    if wire.is_some_and(|wire| wire.dialect != Dialect::OpenAi) {
        return translated(chat, openai).map(Some);
    }
    // A caller may give back what it was given by another provider.
    let signed = |message: &Message| {
        let mut calls = message.tool_calls.iter();
        message.extra.get(THINKING_BLOCKS).is_some()
            || calls.any(|call| call.extra.get(EXTRA_CONTENT).is_some())
    };
    if !openai || !chat.messages.iter().any(|message| signed(message)) {
        return Ok(None);
    }
    let mut own = chat.clone();
    own.wire = None;
    own.messages = mapped(chat, signed, |message| {
        message.extra.remove(THINKING_BLOCKS);
        message.reasoning = None;
        for call in &mut message.tool_calls {
            call.extra.remove(EXTRA_CONTENT);
        }
    });
    Ok(Some(own))
}

/// A prompt of another dialect.
fn translated(chat: &Chat, openai: bool) -> Result<Chat, LlmError> {
    check(chat)?;
    let mut own = chat.clone();
    own.wire = None;
    // Extra members are of the other dialect, but for the one that both have.
    own.extra = Extra::new();
    if let Some(user) = chat.extra.get("user") {
        own.extra.insert("user", user.to_owned());
    }
    if openai {
        own.max_completion_tokens = chat.output_limit();
        own.max_tokens = None;
    }
    let foreign = |message: &Message| message.reasoning.is_some() || !message.extra.is_empty();
    own.messages = mapped(chat, foreign, |message| {
        message.reasoning = None;
        message.extra = Extra::new();
    });
    Ok(own)
}

/// The messages, with those that `which` finds changed; the others stay shared.
fn mapped(
    chat: &Chat,
    which: impl Fn(&Message) -> bool,
    change: impl Fn(&mut Message),
) -> Arc<[Arc<Message>]> {
    let messages = chat.messages.iter().map(|message| {
        let mut message = message.clone();
        if which(&message) {
            change(Arc::make_mut(&mut message));
        }
        message
    });
    messages.collect()
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
