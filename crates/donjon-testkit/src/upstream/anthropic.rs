//! Anthropic's dialect.
//! Source: <https://docs.anthropic.com/en/api/messages> and <https://docs.anthropic.com/en/docs/build-with-claude/streaming>.

use serde_json::{Value, json};

use super::answer::{Answer, Calls, Delta, KeepAlive, Part, Speak, UsageWhen, arguments_object};
use super::failure::Failure;
use super::framing::Event;
use super::record::{Dialect, Request};

pub(super) struct Anthropic<'a> {
    answer: &'a Answer,
    id: String,
    model: String,
    /// The content block that is open, and how many came before it.
    block: Option<Block>,
    blocks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Unknown,
    Text,
    Tool(usize),
}

impl<'a> Anthropic<'a> {
    pub(super) fn new(answer: &'a Answer, request: &Request) -> Self {
        Self {
            answer,
            id: format!("msg_{}", request.number),
            model: answer
                .model
                .clone()
                .unwrap_or_else(|| request.model().unwrap_or("unnamed").to_owned()),
            block: None,
            blocks: 0,
        }
    }

    fn message(&self, content: Value, stop_reason: Option<&str>, output: u64) -> Value {
        let mut message = json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null});
        if self.answer.usage_when != UsageWhen::Never {
            let usage = self.answer.counts();
            let uncached = usage
                .input
                .saturating_sub(usage.cache_read + usage.cache_write);
            message["usage"] = json!({"input_tokens": uncached, "cache_creation_input_tokens": usage.cache_write,
                "cache_read_input_tokens": usage.cache_read, "output_tokens": output, "service_tier": "standard"});
        }
        message
    }

    fn stop_reason(&self) -> Option<&str> {
        match self.answer.finish_reason()? {
            "stop" if !self.answer.refusal.is_empty() => Some("refusal"),
            "stop" => Some("end_turn"),
            "length" => Some("max_tokens"),
            "tool_calls" => Some("tool_use"),
            "content_filter" => Some("refusal"),
            other => Some(other),
        }
    }

    /// Ends the open block, if there is one.
    fn stop_block(&mut self) -> Vec<Event> {
        let Some(block) = self.block.take() else {
            return Vec::new();
        };
        let mut events = Vec::new();
        if block == Block::Thinking {
            events.push(
                self.block_delta(&json!({"type": "signature_delta", "signature": SIGNATURE})),
            );
        }
        events.push(event("content_block_stop", json!({"index": self.blocks})));
        self.blocks += 1;
        events
    }

    fn block_delta(&self, delta: &Value) -> Event {
        event(
            "content_block_delta",
            json!({"index": self.blocks, "delta": delta}),
        )
    }
}

const SIGNATURE: &str = "EqQBCgIYAhIM1gbcDa9GJwZA";

fn event(name: &'static str, mut body: Value) -> Event {
    body["type"] = name.into();
    Event::named(name, body)
}

impl Speak for Anthropic<'_> {
    fn deltas(&self) -> Vec<Delta<'_>> {
        self.answer.deltas(1, Calls::InPieces)
    }

    fn open(&mut self) -> Vec<Event> {
        vec![event(
            "message_start",
            json!({"message": self.message(json!([]), None, 1)}),
        )]
    }

    fn delta(&mut self, delta: &Delta<'_>) -> Vec<Event> {
        let (block, start, words) = match &delta.part {
            Part::Reasoning(text) => (
                Block::Thinking,
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                json!({"type": "thinking_delta", "thinking": text}),
            ),
            Part::Unknown => (
                Block::Unknown,
                json!({"type": "hologram", "frames": 0}),
                json!({"type": "hologram_delta", "frames": 3}),
            ),
            Part::Text(text) | Part::Refusal(text) => (
                Block::Text,
                json!({"type": "text", "text": ""}),
                json!({"type": "text_delta", "text": text}),
            ),
            Part::ToolName { index, name, .. } => (
                Block::Tool(*index),
                json!({"type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": {}}),
                json!({"type": "input_json_delta", "partial_json": ""}),
            ),
            Part::ToolArguments { index, piece } => (
                Block::Tool(*index),
                Value::Null,
                json!({"type": "input_json_delta", "partial_json": piece}),
            ),
        };
        let mut events = Vec::new();
        if self.block != Some(block) {
            events = self.stop_block();
            self.block = Some(block);
            events.push(event(
                "content_block_start",
                json!({"index": self.blocks, "content_block": start}),
            ));
        }
        events.push(self.block_delta(&words));
        events
    }

    fn close(&mut self) -> Vec<Event> {
        let mut events = self.stop_block();
        if let Some(reason) = self.stop_reason() {
            let mut body = json!({"delta": {"stop_reason": reason, "stop_sequence": null}});
            if self.answer.usage_when != UsageWhen::Never {
                body["usage"] = json!({"output_tokens": self.answer.counts().output});
            }
            events.push(event("message_delta", body));
        }
        if self.answer.done {
            events.push(event("message_stop", json!({})));
        }
        events
    }

    fn whole(&self) -> Value {
        let answer = self.answer;
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": answer.reasoning.concat(), "signature": SIGNATURE}));
        }
        if answer.unknown {
            content.push(json!({"type": "hologram", "frames": 3}));
        }
        if !answer.text.is_empty() || !answer.refusal.is_empty() {
            let text = answer.text.concat() + &answer.refusal.concat();
            content.push(json!({"type": "text", "text": text}));
        }
        for (index, (name, text)) in answer.tools.iter().enumerate() {
            let (id, input) = (format!("toolu_{index}"), arguments_object(text));
            content.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
        }
        self.message(content.into(), self.stop_reason(), answer.counts().output)
    }

    fn keep_alive(&self, kind: KeepAlive) -> Event {
        match kind {
            KeepAlive::Ping => event("ping", json!({})),
            KeepAlive::Comment => Event::Comment("OPENROUTER PROCESSING".into()),
            KeepAlive::EmptyDelta => self.block_delta(&json!({"type": "text_delta", "text": ""})),
        }
    }

    fn malformed(&self) -> Event {
        let data = format!(
            r#"{{"type":"content_block_delta","index":{},"delta":{{"type":"text_del"#,
            self.blocks
        );
        Event::named("content_block_delta", data)
    }

    fn error(&self, failure: &Failure) -> Event {
        Event::named("error", failure.told(Dialect::Anthropic))
    }
}
