//! Whole answers told as streams.

use donjon_core::{
    ChatCompletion, Choice, ChoiceDelta, Chunk, Completion, Content, Delta, ErrorKind, LlmError,
    Message, ResponseStream,
};

/// The chunks that add up to `completion`: a caller who asked for a stream gets one from a service
/// that answered whole.
pub(crate) fn chunks_of(completion: &Completion) -> ResponseStream {
    match completion.as_chat() {
        Some(chat) => {
            let choices = u32::try_from(chat.choices.len()).unwrap_or(u32::MAX);
            let usage = chat.usage.map(Chunk::usage);
            let chunks = std::iter::once(chunk_of(chat)).chain(usage).map(Ok);
            ResponseStream::new(
                choices,
                futures_util::stream::iter(chunks.collect::<Vec<_>>()),
            )
        }
        None => {
            let error = not_a_chat();
            ResponseStream::new(1, futures_util::stream::iter([Err(error)]))
        }
    }
}

/// What is said when a service answers a chat with something else.
pub(crate) fn not_a_chat() -> LlmError {
    LlmError::new(
        ErrorKind::Internal,
        "the service did not answer with a chat completion",
    )
}

fn chunk_of(chat: &ChatCompletion) -> Chunk {
    let mut delta = Delta::default();
    delta.id.clone_from(&chat.id);
    delta.model.clone_from(&chat.model);
    delta.created = chat.created;
    delta.choices = chat.choices.iter().map(choice_of).collect();
    delta.into()
}

fn choice_of(choice: &Choice) -> ChoiceDelta {
    // Taken apart by name: `Message` may grow, and what it holds beyond these stays in `extra`.
    let Message {
        role,
        content,
        reasoning,
        refusal,
        tool_calls,
        extra,
        ..
    } = &choice.message;
    let mut delta = ChoiceDelta::default();
    delta.index = choice.index;
    delta.role = Some(role.clone());
    delta.content = content.as_ref().map(|content| match content {
        Content::Text(text) => text.clone(),
        Content::Parts(_) => choice.message.text().into(),
    });
    delta.reasoning.clone_from(reasoning);
    delta.refusal.clone_from(refusal);
    delta.tool_calls.clone_from(tool_calls);
    for (index, call) in (0..).zip(&mut delta.tool_calls) {
        call.index = Some(index);
    }
    delta.finish_reason.clone_from(&choice.finish_reason);
    delta.logprobs.clone_from(&choice.logprobs);
    delta.extra = extra.clone();
    delta
}
