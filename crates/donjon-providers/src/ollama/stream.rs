//! Streamed answers (<https://docs.ollama.com/api/streaming>).

use donjon_core::{ChoiceDelta, Chunk, Delta, LlmError, Role};

use super::{
    answer::{AnswerIn, CallIn},
    error,
};
use crate::codec::{Step, StreamDecoder};

/// Reads the lines of one streamed answer.
#[derive(Debug, Default)]
pub struct OllamaDecoder {
    begun: bool,
    /// How many tools were called: calls come whole, in any line.
    calls: u32,
}

impl OllamaDecoder {
    /// Reads an answer from its first line.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StreamDecoder for OllamaDecoder {
    fn decode(&mut self, data: String) -> Result<Step, LlmError> {
        if data.trim_ascii().is_empty() {
            return Ok(Step::Nothing);
        }
        let event: AnswerIn<'_> = match serde_json::from_str(&data) {
            Ok(event) => event,
            Err(_) => {
                return match error::decode_unannounced(data.as_bytes()) {
                    Some(error) => Err(error),
                    None => Ok(Step::Malformed),
                };
            }
        };
        if event.error.is_some()
            && let Some(error) = error::decode_unannounced(data.as_bytes())
        {
            return Err(error);
        }
        if event.message.is_none() && !event.done {
            return Ok(Step::Malformed);
        }
        let mut delta = Delta::default();
        delta.created = event.created();
        delta.usage = event.usage();
        let mut choice = ChoiceDelta::default();
        if !std::mem::replace(&mut self.begun, true) {
            choice.role = Some(Role::Assistant);
        }
        let mut event = event;
        if let Some(said) = event.message.take() {
            choice.content = said.content.filter(|t| !t.is_empty()).map(Into::into);
            choice.reasoning = said.thinking.filter(|t| !t.is_empty()).map(Into::into);
            let calls = said.tool_calls.unwrap_or_default();
            for mut call in calls.into_iter().map(CallIn::into_call) {
                call.index = Some(self.calls);
                self.calls = self.calls.saturating_add(1);
                choice.tool_calls.push(call);
            }
        }
        if event.done {
            choice.finish_reason = Some(event.finish_reason(self.calls > 0));
        }
        delta.model = event.model;
        delta.choices.push(choice);
        Ok(if event.done {
            Step::Last(delta.into())
        } else {
            Step::Chunk(Chunk::from(delta))
        })
    }
}
