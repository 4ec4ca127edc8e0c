//! Ollama's own dialect: JSON texts, one a line.
//! Source: <https://docs.ollama.com/api/chat>, <https://docs.ollama.com/api/embed>.

use serde_json::{Value, json};

use super::answer::{Answer, Calls, Delta, KeepAlive, Part, Speak, UsageWhen, arguments_object};
use super::failure::Failure;
use super::framing::Event;
use super::openai::vectors;
use super::record::{Dialect, Request};

pub(super) struct Ollama<'a> {
    answer: &'a Answer,
    model: String,
}

impl<'a> Ollama<'a> {
    pub(super) fn new(answer: &'a Answer, request: &Request) -> Self {
        Self {
            answer,
            model: model(answer, request),
        }
    }

    fn body(&self, message: &Value) -> Value {
        json!({"model": self.model, "created_at": "2023-11-14T22:13:20.5Z", "message": message, "done": false})
    }

    fn line(&self, mut message: Value) -> Event {
        message["role"] = "assistant".into();
        if message["content"].is_null() {
            message["content"] = "".into();
        }
        Event::Line(self.body(&message).to_string())
    }

    /// The body of the last line, or of a whole answer, if it ever finishes.
    fn last(&self, message: &Value) -> Value {
        let mut body = self.body(message);
        let Some(reason) = self.answer.finish_reason() else {
            return body;
        };
        body["done"] = true.into();
        body["done_reason"] = match reason {
            "tool_calls" => "stop".into(),
            other => other.into(),
        };
        (body["total_duration"], body["load_duration"]) = (5_000_000.into(), 1_000_000.into());
        if self.answer.usage_when != UsageWhen::Never {
            let usage = self.answer.counts();
            body["prompt_eval_count"] = usage.input.into();
            body["eval_count"] = usage.output.into();
        }
        body
    }
}

fn model(answer: &Answer, request: &Request) -> String {
    let named = answer.model.as_deref().or(request.model());
    named.unwrap_or("unnamed").to_owned()
}

fn call(name: &str, arguments: &str) -> Value {
    json!({"function": {"name": name, "arguments": arguments_object(arguments)}})
}

/// A vector for each input.
pub(super) fn embeddings(answer: &Answer, request: &Request) -> Value {
    let mut body = json!({"model": model(answer, request), "embeddings": vectors(request),
        "total_duration": 5_000_000, "load_duration": 1_000_000});
    if answer.usage_when != UsageWhen::Never {
        body["prompt_eval_count"] = answer.counts().input.into();
    }
    body
}

impl Speak for Ollama<'_> {
    fn deltas(&self) -> Vec<Delta<'_>> {
        self.answer.deltas(1, Calls::Whole)
    }

    fn open(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn delta(&mut self, delta: &Delta<'_>) -> Vec<Event> {
        vec![self.line(match &delta.part {
            Part::Reasoning(text) => json!({"thinking": text}),
            Part::Unknown => json!({"hologram": {"frames": 3}}),
            Part::Text(text) | Part::Refusal(text) => json!({"content": text}),
            Part::ToolName {
                name, arguments, ..
            } => json!({"tool_calls": [call(name, arguments)]}),
            Part::ToolArguments { piece, .. } => json!({"content": piece}),
        })]
    }

    fn close(&mut self) -> Vec<Event> {
        if self.answer.finish_reason().is_none() {
            return Vec::new();
        }
        let last = self.last(&json!({"role": "assistant", "content": ""}));
        vec![Event::Line(last.to_string())]
    }

    fn whole(&self) -> Value {
        let answer = self.answer;
        let text = answer.text.concat() + &answer.refusal.concat();
        let mut message = json!({"role": "assistant", "content": text});
        if !answer.reasoning.is_empty() {
            message["thinking"] = answer.reasoning.concat().into();
        }
        if answer.unknown {
            message["hologram"] = json!({"frames": 3});
        }
        if !answer.tools.is_empty() {
            let calls = answer.tools.iter();
            let calls = calls.map(|(name, arguments)| call(name, arguments));
            message["tool_calls"] = calls.collect();
        }
        self.last(&message)
    }

    /// There are no comments between lines, so that all are deltas that carry nothing.
    fn keep_alive(&self, _: KeepAlive) -> Event {
        self.line(json!({}))
    }

    fn malformed(&self) -> Event {
        Event::Line(r#"{"model":"m","message":{"role":"assist"#.into())
    }

    fn error(&self, failure: &Failure) -> Event {
        Event::Line(failure.told(Dialect::Ollama))
    }
}
