//! Answers, whole or as events (<https://ai.google.dev/api/generate-content#generatecontentresponse>).

use std::sync::Arc;

use donjon_core::{
    ChatCompletion, Choice, Content, ErrorKind, Extra, LlmError, Message, ToolCall, Usage,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error,
    words::{UsageIn, finish_reason, signed},
};
use crate::{openai::no_answer, prompt::call_id};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AnswerIn {
    #[serde(default)]
    pub(super) candidates: Option<Vec<Extra>>,
    #[serde(default)]
    prompt_feedback: Option<FeedbackIn>,
    #[serde(default)]
    pub(super) usage_metadata: Option<UsageIn>,
    #[serde(default)]
    pub(super) model_version: Option<Arc<str>>,
    #[serde(default)]
    pub(super) response_id: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeedbackIn {
    #[serde(default)]
    block_reason: Option<String>,
    #[serde(default)]
    block_reason_message: Option<String>,
}

#[derive(Default, Deserialize)]
struct ContentIn<'a> {
    #[serde(default, borrow)]
    parts: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartIn<'a> {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    #[serde(default)]
    thought_signature: Option<String>,
    #[serde(default, borrow)]
    function_call: Option<CallIn<'a>>,
}

#[derive(Deserialize)]
struct CallIn<'a> {
    #[serde(default)]
    id: Option<Box<str>>,
    #[serde(default)]
    name: Box<str>,
    #[serde(default, borrow)]
    args: Option<&'a RawValue>,
}

/// What a candidate, or an event of one, says.
#[derive(Default)]
pub(super) struct Said {
    pub(super) index: u32,
    pub(super) text: Option<String>,
    pub(super) reasoning: Option<String>,
    pub(super) calls: Vec<ToolCall>,
    /// Whether there is a part of a kind without a field: an image, code that was run.
    pub(super) unknown: Vec<Box<RawValue>>,
    pub(super) finish: Option<String>,
    /// Every other member of the candidate (grounding, citations), as it came.
    pub(super) beside: Extra,
}

impl AnswerIn {
    /// The refusal of the prompt, if it was refused.
    pub(super) fn refusal(&self) -> Option<LlmError> {
        let feedback = self.prompt_feedback.as_ref()?;
        let reason = feedback.block_reason.as_deref()?;
        let told = feedback.block_reason_message.clone();
        let message = told.unwrap_or_else(|| format!("the prompt was blocked ({reason})"));
        (reason != "BLOCK_REASON_UNSPECIFIED")
            .then(|| LlmError::new(ErrorKind::ContentPolicy, message).with_code(reason))
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage_metadata.map(Usage::from)
    }
}

impl Said {
    pub(super) fn of(mut candidate: Extra) -> Result<Self, serde_json::Error> {
        let mut said = Self {
            index: candidate.read("index").unwrap_or(0),
            finish: candidate
                .read("finishReason")
                .filter(|word: &String| word != "FINISH_REASON_UNSPECIFIED"),
            ..Self::default()
        };
        let content = candidate.remove("content");
        let content: ContentIn<'_> = match &content {
            Some(raw) if raw.get() != "null" => serde_json::from_str(raw.get())?,
            _ => ContentIn::default(),
        };
        for raw in content.parts.unwrap_or_default() {
            said.add(raw)?;
        }
        candidate.remove("index");
        candidate.remove("finishReason");
        // Repeated in every event, and of a shape that joins to nonsense.
        if said.finish.is_none() {
            candidate.remove("safetyRatings");
        }
        said.beside = candidate;
        Ok(said)
    }

    fn add(&mut self, raw: &RawValue) -> Result<(), serde_json::Error> {
        let part: PartIn<'_> = serde_json::from_str(raw.get())?;
        if let Some(call) = part.function_call {
            let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(call_id);
            let args = call.args.map(RawValue::get).filter(|args| *args != "null");
            let mut call = ToolCall::function(id, call.name, args.unwrap_or("{}"));
            if let Some(signature) = part.thought_signature {
                call.extra = signed(&signature);
            }
            self.calls.push(call);
        } else if let Some(text) = part.text {
            let to = if part.thought {
                &mut self.reasoning
            } else {
                &mut self.text
            };
            to.get_or_insert_default().push_str(&text);
        } else {
            self.unknown.push(raw.to_owned());
        }
        Ok(())
    }
}

/// The member under which parts without a field of their own are passed on.
pub(super) const PARTS: &str = "parts";

/// Reads a whole answer.
pub(super) fn completion(body: &[u8]) -> Result<ChatCompletion, LlmError> {
    let fail = |cause| error::decode_unannounced(body).unwrap_or_else(|| no_answer(cause));
    let answer: AnswerIn = serde_json::from_slice(body).map_err(fail)?;
    let usage = answer.usage();
    let candidates = match answer.candidates {
        Some(candidates) if !candidates.is_empty() => candidates,
        _ => {
            let none = || LlmError::new(ErrorKind::InvalidResponse, "the answer has no candidates");
            return Err(answer
                .refusal()
                .or_else(|| error::decode_unannounced(body))
                .unwrap_or_else(none));
        }
    };
    let mut completion = ChatCompletion::default();
    for candidate in candidates {
        let said = Said::of(candidate).map_err(fail)?;
        completion.choices.push(choice(said)?);
    }
    completion.id = answer.response_id;
    completion.model = answer.model_version;
    completion.usage = usage;
    Ok(completion)
}

fn choice(said: Said) -> Result<Choice, LlmError> {
    let Some(word) = &said.finish else {
        let missing = "a candidate has no finish reason";
        return Err(LlmError::new(ErrorKind::Incomplete, missing));
    };
    let called = !said.calls.is_empty();
    let reason = finish_reason(word, called)?;
    let mut message = Message::assistant("");
    let text = said.text.filter(|text| !(called && text.is_empty()));
    message.content = text.map(|text| Content::Text(text.into()));
    message.reasoning = said.reasoning.map(Into::into);
    message.tool_calls = said.calls;
    if !said.unknown.is_empty()
        && let Some(parts) = crate::json::raw(&said.unknown)
    {
        message.extra.insert(PARTS, parts);
    }
    let mut choice = Choice::new(said.index, message, reason);
    choice.extra = said.beside;
    Ok(choice)
}
