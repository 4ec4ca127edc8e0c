//! What the caller of a stream was shown.

use std::sync::Arc;

use donjon_core::{ChoiceDelta, Chunk, Delta, Extra};

/// Longer than this, in bytes, an answer is not kept, and cannot be continued.
const MOST_KEPT: usize = 4 << 20;

/// What the caller of a stream was shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Something was shown that nobody can go on with: a tool call, a refusal, what is not known here.
    pub(crate) is_sealed: bool,
    role: bool,
    id: Option<Arc<str>>,
    model: Option<Arc<str>>,
    created: Option<u64>,
}

impl Shown {
    /// Takes in what is shown now.
    #[inline]
    pub(crate) fn note(&mut self, chunk: &Chunk) {
        if self.id.is_none() {
            self.id.clone_from(&chunk.id);
        }
        if self.model.is_none() {
            self.model.clone_from(&chunk.model);
        }
        self.created = self.created.or(chunk.created);
        self.is_sealed |= chunk.unknown;
        for choice in &chunk.choices {
            if let Some(text) = &choice.content {
                self.text.push_str(text);
            }
            if let Some(reasoning) = &choice.reasoning {
                self.reasoning.push_str(reasoning);
            }
            self.role |= choice.role.is_some();
            self.is_sealed |= seals(choice);
        }
        if self.text.len() + self.reasoning.len() > MOST_KEPT {
            self.is_sealed = true;
            (self.text, self.reasoning) = <_>::default();
        }
    }

    /// Makes what another target says a part of the one answer: its name, its model and when it was begun
    /// stay those that were told first, and its role is told once.
    pub(crate) fn join(&self, delta: &mut Delta) {
        delta.id.clone_from(&self.id);
        delta.model.clone_from(&self.model);
        delta.created = self.created;
        if self.role {
            for choice in &mut delta.choices {
                choice.role = None;
            }
        }
    }

    /// Bytes of text and reasoning.
    pub(crate) const fn bytes(&self) -> usize {
        self.text.len() + self.reasoning.len()
    }
}

/// Whether it shows what nobody can go on with.
#[inline]
pub(crate) fn seals(choice: &ChoiceDelta) -> bool {
    choice.index != 0
        || !choice.tool_calls.is_empty()
        || choice
            .refusal
            .as_deref()
            .is_some_and(|text| !text.is_empty())
        || !choice.extra.is_empty() && extra_seals(&choice.extra)
}

/// Reasoning in the words of one provider stands beside reasoning in everybody's.
pub(crate) const OF_REASONING: [&str; 2] = ["thinking_blocks", "reasoning_details"];

#[cold]
fn extra_seals(extra: &Extra) -> bool {
    let blank = ["null", "\"\"", "[]", "{}", "false"];
    let mut all = extra.iter();
    all.any(|(name, value)| !OF_REASONING.contains(&name) && !blank.contains(&value.get()))
}

#[cfg(test)]
mod tests {
    use donjon_core::{FinishReason, Role, ToolCall};

    use super::*;

    fn choice(change: impl FnOnce(&mut ChoiceDelta)) -> Chunk {
        let mut choice = ChoiceDelta::default();
        change(&mut choice);
        Chunk::new([choice])
    }

    #[test]
    fn text_and_reasoning_can_be_continued_and_nothing_else() {
        let raw = |json: &str| serde_json::value::RawValue::from_string(json.into()).expect("JSON");
        let sealed = |chunk: Chunk| {
            let mut shown = Shown::default();
            shown.note(&chunk);
            shown.is_sealed
        };
        assert!(!sealed(Chunk::role()));
        assert!(!sealed(Chunk::text("hi")));
        assert!(!sealed(Chunk::finish(FinishReason::Stop)));
        assert!(!sealed(choice(|c| c.reasoning = Some("so".into()))));
        assert!(!sealed(choice(|c| c.extra.insert("audio", raw("null")))));
        assert!(!sealed(choice(|c| c
            .extra
            .insert("thinking_blocks", raw("[1]")))));
        assert!(sealed(choice(|c| c
            .extra
            .insert("audio", raw("{\"id\":1}")))));
        assert!(sealed(choice(|c| c.refusal = Some("no".into()))));
        assert!(sealed(choice(
            |c| c.tool_calls = vec![ToolCall::piece(0, "{")]
        )));
        assert!(sealed(choice(|c| c.index = 1)));
        let mut unknown = Delta::default();
        unknown.unknown = true;
        assert!(sealed(unknown.into()));
        assert!(sealed(Chunk::text("x".repeat(MOST_KEPT + 1))));
    }

    #[test]
    fn another_target_speaks_under_the_first_ones_name_and_opens_nothing() {
        let mut shown = Shown::default();
        let mut first = Delta::default();
        first.id = Some("one".into());
        first.model = Some("m1".into());
        first.created = Some(7);
        first.choices.push(ChoiceDelta::role(0, Role::Assistant));
        shown.note(&first.into());
        let mut second = Delta::default();
        second.id = Some("two".into());
        second.model = Some("m2".into());
        second.choices.push(ChoiceDelta::role(0, Role::Assistant));
        shown.join(&mut second);
        assert_eq!(
            (second.id.as_deref(), second.model.as_deref()),
            (Some("one"), Some("m1"))
        );
        assert_eq!((second.created, &second.choices[0].role), (Some(7), &None));
    }
}
