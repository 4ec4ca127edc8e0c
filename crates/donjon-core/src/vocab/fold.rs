//! Folding the chunks of a stream into a whole answer.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{
    chunk::{ChoiceDelta, Chunk},
    completion::{ChatCompletion, Choice},
    json::Extra,
    message::{Content, FunctionCall, Message, Role, ToolCall},
    wire::Dialect,
};

/// Folds chunks, pushed in their order, into the completion that they add up to.
#[derive(Debug, Default)]
pub struct Fold {
    completion: ChatCompletion,
    choices: BTreeMap<u32, Building>,
}

#[derive(Debug, Default)]
struct Building {
    role: Option<Role>,
    content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: BTreeMap<u32, ToolCall>,
    finish_reason: Option<super::FinishReason>,
    logprobs: Logprobs,
    extra: Extra,
}

impl Fold {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next chunk.
    pub fn push(&mut self, chunk: &Chunk) {
        let whole = &mut self.completion;
        let first = whole.id.is_none();
        whole.id = whole.id.take().or_else(|| chunk.id.clone());
        whole.model = whole.model.take().or_else(|| chunk.model.clone());
        whole.created = whole.created.or(chunk.created);
        whole.usage = chunk.usage.or(whole.usage);
        // What has no field is alike in all chunks of a stream, and told once more at its end.
        if (first || chunk.finishes())
            && let Some(json) = chunk.wire(Dialect::OpenAi)
        {
            let members: Extra = serde_json::from_slice(json).unwrap_or_default();
            for (name, value) in members.iter() {
                let known = ["id", "object", "created", "model", "choices", "usage"];
                if !known.contains(&name) && name != "obfuscation" {
                    whole.extra.insert(name, value.to_owned());
                }
            }
        }
        for choice in &chunk.choices {
            self.choices.entry(choice.index).or_default().push(choice);
        }
    }

    /// The text of choice 0 so far.
    pub fn text(&self) -> &str {
        self.choices
            .get(&0)
            .and_then(|choice| choice.content.as_deref())
            .unwrap_or_default()
    }

    /// The completion that the chunks add up to.
    pub fn finish(mut self) -> ChatCompletion {
        self.completion.choices = self
            .choices
            .into_iter()
            .map(|(index, building)| building.finish(index))
            .collect();
        self.completion
    }
}

impl Building {
    fn push(&mut self, delta: &ChoiceDelta) {
        if self.role.is_none() {
            self.role = delta.role.clone();
        }
        append(&mut self.content, delta.content.as_deref());
        append(&mut self.reasoning, delta.reasoning.as_deref());
        append(&mut self.refusal, delta.refusal.as_deref());
        for (position, piece) in (0..).zip(&delta.tool_calls) {
            // A provider that sends calls whole may leave the index out; then each is a new one.
            let index = piece.index.unwrap_or_else(|| {
                let seen = self
                    .tool_calls
                    .keys()
                    .next_back()
                    .map_or(0, |last| last + 1);
                if piece.id.is_some() {
                    seen
                } else {
                    seen.saturating_sub(1).max(position)
                }
            });
            match self.tool_calls.get_mut(&index) {
                Some(call) => extend(call, piece),
                None => {
                    let mut call = piece.clone();
                    call.index = None;
                    self.tool_calls.insert(index, call);
                }
            }
        }
        if delta.finish_reason.is_some() {
            self.finish_reason.clone_from(&delta.finish_reason);
        }
        if let Some(logprobs) = &delta.logprobs {
            self.logprobs.push(logprobs);
        }
        for (name, value) in delta.extra.iter() {
            self.extra.insert(name, value.to_owned());
        }
    }

    fn finish(self, index: u32) -> Choice {
        let mut message = Message::new(self.role.unwrap_or(Role::Assistant), "");
        message.content = self.content.map(|text| Content::Text(text.into()));
        message.reasoning = self.reasoning.map(Into::into);
        message.refusal = self.refusal.map(Into::into);
        message.tool_calls = self.tool_calls.into_values().collect();
        message.extra = self.extra;
        let mut choice = Choice::new(index, message, super::FinishReason::Stop);
        choice.finish_reason = self.finish_reason;
        choice.logprobs = self.logprobs.finish();
        choice
    }
}

fn append(to: &mut Option<String>, piece: Option<&str>) {
    if let Some(piece) = piece {
        to.get_or_insert_default().push_str(piece);
    }
}

fn extend(call: &mut ToolCall, piece: &ToolCall) {
    call.id = call.id.take().or_else(|| piece.id.clone());
    call.kind = call.kind.take().or_else(|| piece.kind.clone());
    if let Some(more) = &piece.function {
        let function = call.function.get_or_insert_with(|| FunctionCall {
            name: None,
            arguments: None,
            extra: Extra::new(),
        });
        function.name = function.name.take().or_else(|| more.name.clone());
        append(&mut function.arguments, more.arguments.as_deref());
        for (name, value) in more.extra.iter() {
            function.extra.insert(name, value.to_owned());
        }
    }
    for (name, value) in piece.extra.iter() {
        call.extra.insert(name, value.to_owned());
    }
}

/// The lists of token probabilities, each joined over the chunks.
#[derive(Debug, Default)]
struct Logprobs {
    lists: Vec<(Box<str>, Vec<Box<RawValue>>)>,
}

impl Logprobs {
    fn push(&mut self, logprobs: &RawValue) {
        let members: Extra = serde_json::from_str(logprobs.get()).unwrap_or_default();
        for (name, value) in members.iter() {
            let Ok(more) = serde_json::from_str::<Vec<Box<RawValue>>>(value.get()) else {
                continue;
            };
            match self.lists.iter_mut().find(|(key, _)| &**key == name) {
                Some((_, list)) => list.extend(more),
                None => self.lists.push((name.into(), more)),
            }
        }
    }

    fn finish(self) -> Option<Box<RawValue>> {
        if self.lists.is_empty() {
            return None;
        }
        let mut all = Extra::new();
        for (name, list) in self.lists {
            all.insert(name, serde_json::value::to_raw_value(&list).ok()?);
        }
        serde_json::value::to_raw_value(&all).ok()
    }
}
