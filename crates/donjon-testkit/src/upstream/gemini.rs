//! Gemini's dialect.
//! Source: <https://ai.google.dev/api/generate-content>.
//!
//! Every event is an answer in itself with the usage so far; a stream has no event that ends it.

use serde_json::{Value, json};

use super::answer::{Answer, Calls, Delta, KeepAlive, Part, Speak, UsageWhen, arguments_object};
use super::failure::Failure;
use super::framing::Event;
use super::record::{Dialect, Request};

pub(super) struct Gemini<'a> {
    answer: &'a Answer,
    id: String,
    model: String,
    /// How many tokens were told.
    told: u64,
}

impl<'a> Gemini<'a> {
    pub(super) fn new(answer: &'a Answer, request: &Request) -> Self {
        Self {
            answer,
            id: format!("gemini-{}", request.number),
            model: answer
                .model
                .clone()
                .unwrap_or_else(|| request.model().unwrap_or("unnamed").to_owned()),
            told: 0,
        }
    }

    /// An answer of these candidates, with the usage up to `told` tokens.
    fn body(&self, candidates: Value, told: u64) -> Value {
        let mut body =
            json!({"candidates": candidates, "modelVersion": self.model, "responseId": self.id});
        if self.answer.usage_when != UsageWhen::Never {
            let usage = self.answer.counts();
            let output = usage.output.saturating_sub(usage.reasoning).min(told);
            let mut counts = json!({"promptTokenCount": usage.input, "candidatesTokenCount": output,
                "totalTokenCount": usage.input + output + usage.reasoning});
            if usage.reasoning > 0 {
                counts["thoughtsTokenCount"] = usage.reasoning.into();
            }
            if usage.cache_read > 0 {
                counts["cachedContentTokenCount"] = usage.cache_read.into();
            }
            body["usageMetadata"] = counts;
        }
        body
    }

    fn event(&self, choice: u32, part: &Value) -> Event {
        let candidate = json!({"content": {"parts": [part], "role": "model"}, "index": choice});
        Event::nameless(self.body(json!([candidate]), self.told))
    }

    fn finish_reason(&self) -> Option<&str> {
        Some(match self.answer.finish_reason()? {
            "stop" | "tool_calls" => "STOP",
            "length" => "MAX_TOKENS",
            "content_filter" => "SAFETY",
            other => other,
        })
    }
}

fn part(part: &Part<'_>) -> Value {
    match part {
        Part::Reasoning(text) => json!({"text": text, "thought": true}),
        Part::Unknown => json!({"hologram": {"frames": 3}}),
        Part::Text(text) | Part::Refusal(text) => json!({"text": text}),
        Part::ToolName {
            name, arguments, ..
        } => json!({"functionCall": {"name": name, "args": arguments_object(arguments)}}),
        Part::ToolArguments { piece, .. } => json!({"text": piece}),
    }
}

impl Speak for Gemini<'_> {
    fn deltas(&self) -> Vec<Delta<'_>> {
        self.answer.deltas(self.answer.choices, Calls::Whole)
    }

    fn open(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn delta(&mut self, delta: &Delta<'_>) -> Vec<Event> {
        self.told += 1;
        vec![self.event(delta.choice, &part(&delta.part))]
    }

    fn close(&mut self) -> Vec<Event> {
        let Some(reason) = self.finish_reason() else {
            return Vec::new();
        };
        let finish = |choice: u32| {
            let content = json!({"parts": [{"text": ""}], "role": "model"});
            let candidate = json!({"content": content, "finishReason": reason, "index": choice});
            Event::nameless(self.body(json!([candidate]), u64::MAX))
        };
        (0..self.answer.choices).map(finish).collect()
    }

    fn whole(&self) -> Value {
        let answer = self.answer;
        let mut parts = Vec::new();
        let mut text = |tokens: &[String], thought: bool| {
            if !tokens.is_empty() {
                let mut text = json!({"text": tokens.concat()});
                if thought {
                    text["thought"] = true.into();
                }
                parts.push(text);
            }
        };
        text(&answer.reasoning, true);
        text(&answer.text, false);
        text(&answer.refusal, false);
        if answer.unknown {
            parts.push(part(&Part::Unknown));
        }
        for (index, (name, arguments)) in answer.tools.iter().enumerate() {
            parts.push(part(&Part::ToolName {
                index,
                name,
                arguments,
            }));
        }
        let candidate = |choice: u32| {
            let mut candidate =
                json!({"content": {"parts": parts, "role": "model"}, "index": choice});
            if let Some(reason) = self.finish_reason() {
                candidate["finishReason"] = reason.into();
            }
            candidate
        };
        self.body((0..answer.choices).map(candidate).collect(), u64::MAX)
    }

    fn keep_alive(&self, kind: KeepAlive) -> Event {
        match kind {
            KeepAlive::Ping | KeepAlive::Comment => Event::Comment("keep-alive".into()),
            KeepAlive::EmptyDelta => self.event(0, &json!({"text": ""})),
        }
    }

    fn malformed(&self) -> Event {
        Event::nameless(r#"{"candidates":[{"content":{"par"#)
    }

    fn error(&self, failure: &Failure) -> Event {
        Event::nameless(failure.told(Dialect::Gemini))
    }
}
