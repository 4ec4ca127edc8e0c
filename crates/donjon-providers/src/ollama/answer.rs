//! Whole answers (<https://docs.ollama.com/api/chat>).

use std::{sync::Arc, time::UNIX_EPOCH};

use donjon_core::{
    ChatCompletion, Choice, Content, ErrorKind, Extra, FinishReason, LlmError, Message, ToolCall,
    Usage,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error;
use crate::{hints, openai::no_answer, prompt::call_id};

/// A whole answer, or a line of a streamed one.
#[derive(Default, Deserialize)]
pub(super) struct AnswerIn<'a> {
    #[serde(default)]
    pub(super) model: Option<Arc<str>>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default, borrow)]
    pub(super) message: Option<MessageIn<'a>>,
    #[serde(default)]
    pub(super) done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
    #[serde(default)]
    eval_count: Option<u64>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
pub(super) struct MessageIn<'a> {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) thinking: Option<String>,
    #[serde(default, borrow)]
    pub(super) tool_calls: Option<Vec<CallIn<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct CallIn<'a> {
    #[serde(default)]
    id: Option<Box<str>>,
    #[serde(borrow)]
    function: FunctionIn<'a>,
}

#[derive(Deserialize)]
struct FunctionIn<'a> {
    #[serde(default)]
    name: Box<str>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

impl CallIn<'_> {
    /// The call, with a name of our own where it has none: results refer to calls by it.
    pub(super) fn into_call(self) -> ToolCall {
        let id = self.id.filter(|id| !id.is_empty()).unwrap_or_else(call_id);
        let arguments = self.function.arguments.map_or("{}", RawValue::get);
        ToolCall::function(id, self.function.name, arguments)
    }
}

impl AnswerIn<'_> {
    /// When it was made, in seconds since 1970.
    pub(super) fn created(&self) -> Option<u64> {
        let at = hints::rfc3339(self.created_at.as_deref()?)?;
        Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }

    /// What it used, if it says so. The server leaves out what it had in its cache of prompts.
    pub(super) fn usage(&self) -> Option<Usage> {
        let (input, output) = (self.prompt_eval_count, self.eval_count);
        (input.is_some() || output.is_some())
            .then(|| Usage::new(input.unwrap_or(0), output.unwrap_or(0)))
    }

    /// Why it ended. `called` says whether it calls tools, which the server has no reason for; servers
    /// before 0.1.38 gave none at all.
    pub(super) fn finish_reason(&self, called: bool) -> FinishReason {
        match self.done_reason.as_deref() {
            None | Some("" | "stop") if called => FinishReason::ToolCalls,
            None | Some("" | "stop") => FinishReason::Stop,
            Some("length") => FinishReason::Length,
            Some(other) => FinishReason::Other(other.into()),
        }
    }
}

/// Reads a whole answer. Members that have no field (the durations) are kept.
pub(super) fn completion(body: &[u8]) -> Result<ChatCompletion, LlmError> {
    let fail = |cause| error::decode_unannounced(body).unwrap_or_else(|| no_answer(cause));
    let mut answer: AnswerIn<'_> = serde_json::from_slice(body).map_err(fail)?;
    let Some(said) = answer.message.take().filter(|_| answer.error.is_none()) else {
        let none = || LlmError::new(ErrorKind::InvalidResponse, "the answer has no message");
        return Err(error::decode_unannounced(body).unwrap_or_else(none));
    };
    if !answer.done {
        let missing = "the answer does not say that it is done";
        return Err(LlmError::new(ErrorKind::Incomplete, missing));
    }
    let mut message = Message::assistant("");
    message.reasoning = said.thinking.filter(|t| !t.is_empty()).map(Into::into);
    let calls = said.tool_calls.unwrap_or_default();
    message.tool_calls = calls.into_iter().map(CallIn::into_call).collect();
    let called = !message.tool_calls.is_empty();
    let text = said.content.filter(|text| !(called && text.is_empty()));
    message.content = text.map(|text| Content::Text(text.into()));
    let mut completion = ChatCompletion::default();
    completion.created = answer.created();
    completion.usage = answer.usage();
    completion.choices = vec![Choice::new(0, message, answer.finish_reason(called))];
    completion.model = answer.model;
    completion.extra = rest(body);
    Ok(completion)
}

/// The members of an answer that have no field.
fn rest(body: &[u8]) -> Extra {
    let mut members: Extra = serde_json::from_slice(body).unwrap_or_default();
    for known in [
        "model",
        "created_at",
        "message",
        "done",
        "done_reason",
        "prompt_eval_count",
        "eval_count",
    ] {
        members.remove(known);
    }
    members
}
