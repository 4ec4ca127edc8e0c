//! Folding the chunks of a stream into a whole answer.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

use super::{
    chunk::{ChoiceDelta, Chunk, KNOWN},
    completion::{ChatCompletion, Choice},
    json::Extra,
    message::{Content, FunctionCall, Message, Role, ToolCall},
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
    tool_calls: Vec<(u32, ToolCall)>,
    finish_reason: Option<super::FinishReason>,
    logprobs: Logprobs,
    extra: Extra,
    beside: Extra,
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
            && let Some(json) = chunk.openai_wire()
        {
            let members: Extra = serde_json::from_slice(json).unwrap_or_default();
            for (name, value) in members.iter() {
                if !KNOWN.contains(&name) && name != "obfuscation" {
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
        for piece in &delta.tool_calls {
            self.push_call(piece);
        }
        if delta.finish_reason.is_some() {
            self.finish_reason.clone_from(&delta.finish_reason);
        }
        if let Some(logprobs) = &delta.logprobs {
            self.logprobs.push(logprobs);
        }
        for (name, value) in delta.extra.iter() {
            merge(&mut self.extra, name, value);
        }
        for (name, value) in delta.beside.iter() {
            merge(&mut self.beside, name, value);
        }
    }

    /// Adds a piece to the call that it belongs to. Some providers send calls whole and leave the
    /// index out, or give all of them the same one; then each new id is a new call.
    fn push_call(&mut self, piece: &ToolCall) {
        let at = match (piece.index, &piece.id) {
            (Some(index), None) => self.tool_calls.iter().rposition(|(i, _)| *i == index),
            (Some(index), Some(id)) => self
                .tool_calls
                .iter()
                .rposition(|(i, call)| *i == index && continues(call, id)),
            (None, None) => self.tool_calls.len().checked_sub(1),
            (None, Some(id)) => self
                .tool_calls
                .iter()
                .rposition(|(_, call)| call.id.as_ref() == Some(id)),
        };
        match at {
            Some(at) => extend(&mut self.tool_calls[at].1, piece),
            None => {
                let last = self.tool_calls.iter().map(|(index, _)| *index).max();
                let next = last.map_or(0, |last| last.saturating_add(1));
                let mut call = piece.clone();
                call.index = None;
                self.tool_calls.push((piece.index.unwrap_or(next), call));
            }
        }
    }

    fn finish(mut self, index: u32) -> Choice {
        let mut message = Message::new(self.role.unwrap_or(Role::Assistant), "");
        message.content = self.content.map(|text| Content::Text(text.into()));
        message.reasoning = self.reasoning.map(Into::into);
        message.refusal = self.refusal.map(Into::into);
        self.tool_calls.sort_by_key(|(index, _)| *index);
        message.tool_calls = self.tool_calls.into_iter().map(|(_, call)| call).collect();
        message.extra = self.extra;
        let mut choice = Choice::new(index, message, super::FinishReason::Stop);
        choice.finish_reason = self.finish_reason;
        choice.logprobs = self.logprobs.finish();
        choice.extra = self.beside;
        choice
    }
}

/// Whether a piece with `id` goes on with `call`.
fn continues(call: &ToolCall, id: &str) -> bool {
    id.is_empty()
        || call
            .id
            .as_deref()
            .is_none_or(|own| own.is_empty() || own == id)
}

/// Adds a piece of a member without a field: texts and lists are joined, objects member by member,
/// and of anything else the latest counts.
fn merge(into: &mut Extra, name: &str, piece: &RawValue) {
    let joined = into.get(name).and_then(|old| join(old, piece, 0));
    into.insert(name, joined.unwrap_or_else(|| piece.to_owned()));
}

fn join(old: &RawValue, piece: &RawValue, depth: u32) -> Option<Box<RawValue>> {
    let (old, piece) = (old.get(), piece.get());
    match (old.as_bytes().first()?, piece.as_bytes().first()?) {
        (b'"', b'"') => {
            let mut text: String = serde_json::from_str(old).ok()?;
            text.push_str(&serde_json::from_str::<String>(piece).ok()?);
            to_raw_value(&text).ok()
        }
        (b'[', b'[') => {
            let mut list: Vec<Box<RawValue>> = serde_json::from_str(old).ok()?;
            list.extend(serde_json::from_str::<Vec<Box<RawValue>>>(piece).ok()?);
            to_raw_value(&list).ok()
        }
        // Deeper than any provider nests, the latest counts.
        (b'{', b'{') if depth < 8 => {
            let mut all: Extra = serde_json::from_str(old).ok()?;
            let more: Extra = serde_json::from_str(piece).ok()?;
            for (name, piece) in more.iter() {
                let joined = all.get(name).and_then(|old| join(old, piece, depth + 1));
                all.insert(name, joined.unwrap_or_else(|| piece.to_owned()));
            }
            to_raw_value(&all).ok()
        }
        _ => None,
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
            all.insert(name, to_raw_value(&list).ok()?);
        }
        to_raw_value(&all).ok()
    }
}
