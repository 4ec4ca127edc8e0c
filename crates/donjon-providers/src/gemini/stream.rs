//! Streamed answers: each event is an answer in itself, and adds to those before it.

use donjon_core::{ChoiceDelta, Chunk, Delta, LlmError, Role};
use smallvec::SmallVec;

use super::{
    answer::{AnswerIn, PARTS, Said},
    error,
    words::finish_reason,
};
use crate::{
    codec::{Step, StreamDecoder},
    json,
};

/// Reads the events of one streamed answer.
#[derive(Debug, Default)]
pub struct GeminiDecoder {
    /// The candidates that have begun, and how many calls each has made: calls come whole.
    begun: SmallVec<[(u32, u32); 2]>,
}

impl GeminiDecoder {
    /// Reads an answer from its first event.
    pub fn new() -> Self {
        Self::default()
    }

    fn choice(&mut self, said: Said) -> Result<ChoiceDelta, LlmError> {
        let mut choice = ChoiceDelta::default();
        choice.index = said.index;
        let at = self
            .begun
            .iter()
            .position(|(index, _)| *index == said.index);
        let at = at.unwrap_or_else(|| {
            choice.role = Some(Role::Assistant);
            self.begun.push((said.index, 0));
            self.begun.len() - 1
        });
        let calls = &mut self.begun[at].1;
        choice.content = said.text.filter(|text| !text.is_empty()).map(Into::into);
        choice.reasoning = said.reasoning.filter(|t| !t.is_empty()).map(Into::into);
        for mut call in said.calls {
            call.index = Some(*calls);
            *calls = calls.saturating_add(1);
            choice.tool_calls.push(call);
        }
        if let Some(word) = &said.finish {
            choice.finish_reason = Some(finish_reason(word, *calls > 0)?);
        }
        if !said.unknown.is_empty()
            && let Some(parts) = json::raw(&said.unknown)
        {
            choice.extra.insert(PARTS, parts);
        }
        choice.beside = said.beside;
        Ok(choice)
    }
}

impl StreamDecoder for GeminiDecoder {
    fn decode(&mut self, data: String) -> Result<Step, LlmError> {
        // Google's front never says `[DONE]`; some that stand in for it do.
        match data.trim_ascii() {
            "" => return Ok(Step::Nothing),
            "[DONE]" => return Ok(Step::Done),
            _ => {}
        }
        let or_error = || match error::decode_unannounced(data.as_bytes()) {
            Some(error) => Err(error),
            None => Ok(Step::Malformed),
        };
        let Ok(mut event) = serde_json::from_str::<AnswerIn>(&data) else {
            return or_error();
        };
        let mut delta = Delta::default();
        for candidate in event.candidates.take().unwrap_or_default() {
            let Ok(said) = Said::of(candidate) else {
                return Ok(Step::Malformed);
            };
            let choice = self.choice(said)?;
            delta.choices.push(choice);
        }
        delta.usage = event.usage();
        if delta.choices.is_empty() {
            if let Some(refusal) = event.refusal() {
                return Err(refusal);
            }
            if delta.usage.is_none() {
                return or_error();
            }
        }
        delta.id = event.response_id;
        delta.model = event.model_version;
        Ok(Step::Chunk(Chunk::from(delta)))
    }
}
