//! OpenAI's dialect.
//! Source: <https://platform.openai.com/docs/api-reference/chat>; `reasoning_content` is DeepSeek's, spoken by many.

use serde_json::{Map, Value, json};

use super::answer::{Answer, Calls, Delta, KeepAlive, Part, Speak, UsageWhen};
use super::failure::Failure;
use super::framing::Event;
use super::record::{Dialect, Request};

pub(super) struct OpenAi<'a> {
    answer: &'a Answer,
    id: String,
    model: String,
    wants_usage: bool,
}

impl<'a> OpenAi<'a> {
    pub(super) fn new(answer: &'a Answer, request: &Request) -> Self {
        Self {
            answer,
            id: format!("chatcmpl-{}", request.number),
            model: answer
                .model
                .clone()
                .unwrap_or_else(|| request.model().unwrap_or("unnamed").to_owned()),
            wants_usage: request.wants_usage(),
        }
    }

    fn body(&self, object: &str, choices: Value) -> Value {
        json!({"id": self.id, "object": object, "created": 1_700_000_000, "model": self.model,
            "system_fingerprint": "fp_testkit", "choices": choices})
    }

    fn chunk(&self, choice: u32, delta: &Value, finish: Option<&str>) -> Value {
        let choice =
            json!({"index": choice, "delta": delta, "logprobs": null, "finish_reason": finish});
        let mut chunk = self.body("chat.completion.chunk", json!([choice]));
        // Where usage was asked for, every chunk but the last has it as null.
        if self.wants_usage && self.answer.usage_when == UsageWhen::Asked {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn usage(&self) -> Value {
        let usage = self.answer.counts();
        json!({
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        })
    }

    fn message(&self) -> Value {
        let answer = self.answer;
        let text = answer.text.concat();
        let silent = text.is_empty() && (!answer.tools.is_empty() || !answer.refusal.is_empty());
        let refusal = (!answer.refusal.is_empty()).then(|| answer.refusal.concat());
        let content = (!silent).then_some(text);
        let mut message =
            json!({"role": "assistant", "content": content, "refusal": refusal, "annotations": []});
        if !answer.reasoning.is_empty() {
            message["reasoning_content"] = answer.reasoning.concat().into();
        }
        if answer.unknown {
            message["hologram"] = json!({"frames": 3});
        }
        if !answer.tools.is_empty() {
            let calls = answer
                .tools
                .iter()
                .enumerate()
                .map(|(index, (name, arguments))| {
                    json!({"id": format!("call_{index}"), "type": "function",
                    "function": {"name": name, "arguments": arguments}})
                });
            message["tool_calls"] = calls.collect();
        }
        message
    }
}

/// A vector for each input.
pub(super) fn embeddings(answer: &Answer, request: &Request) -> Value {
    let model = answer.model.as_deref().or(request.model());
    let data = vectors(request)
        .into_iter()
        .enumerate()
        .map(|(at, vector)| json!({"object": "embedding", "index": at, "embedding": vector}));
    let data: Vec<Value> = data.collect();
    let mut body = json!({"object": "list", "data": data, "model": model.unwrap_or("unnamed")});
    if answer.usage_when != UsageWhen::Never {
        let tokens = answer.counts().input;
        body["usage"] = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    }
    body
}

/// For each input how long it is in bytes (of its JSON, for tokens), and its place. The text of the script plays no part.
pub(super) fn vectors(request: &Request) -> Vec<Value> {
    let input = &request.json["input"];
    let one = std::slice::from_ref(input);
    let inputs = input.as_array().map_or(one, Vec::as_slice);
    let vector = |(at, input): (usize, &Value)| {
        let bytes = input
            .as_str()
            .map_or_else(|| input.to_string().len(), str::len);
        json!([bytes, at])
    };
    inputs.iter().enumerate().map(vector).collect()
}

impl Speak for OpenAi<'_> {
    fn deltas(&self) -> Vec<Delta<'_>> {
        self.answer.deltas(self.answer.choices, Calls::InPieces)
    }

    fn open(&mut self) -> Vec<Event> {
        let role = json!({"role": "assistant", "content": "", "refusal": null});
        (0..self.answer.choices)
            .map(|choice| Event::nameless(self.chunk(choice, &role, None)))
            .collect()
    }

    fn delta(&mut self, delta: &Delta<'_>) -> Vec<Event> {
        let tool = |index: usize, function: Value| json!({"tool_calls": [{"index": index, "function": function}]});
        let words = match &delta.part {
            Part::Reasoning(text) => json!({"reasoning_content": text}),
            Part::Unknown => json!({"hologram": {"frames": 3}}),
            Part::Text(text) => json!({"content": text}),
            Part::Refusal(text) => json!({"refusal": text}),
            Part::ToolName { index, name, .. } => {
                let mut call = tool(*index, json!({"name": name, "arguments": ""}));
                call["tool_calls"][0]["id"] = format!("call_{index}").into();
                call["tool_calls"][0]["type"] = "function".into();
                call
            }
            Part::ToolArguments { index, piece } => tool(*index, json!({"arguments": piece})),
        };
        vec![Event::nameless(self.chunk(delta.choice, &words, None))]
    }

    fn close(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(reason) = self.answer.finish_reason() {
            for choice in 0..self.answer.choices {
                let mut chunk = self.chunk(choice, &Value::Object(Map::new()), Some(reason));
                if self.answer.usage_when == UsageWhen::WithFinish
                    && choice + 1 == self.answer.choices
                {
                    chunk["usage"] = self.usage();
                }
                events.push(Event::nameless(chunk));
            }
        }
        let separate = match self.answer.usage_when {
            UsageWhen::Asked => self.wants_usage,
            UsageWhen::Always => true,
            UsageWhen::WithFinish | UsageWhen::Never => false,
        };
        if separate {
            let mut chunk = self.body("chat.completion.chunk", json!([]));
            chunk["usage"] = self.usage();
            events.push(Event::nameless(chunk));
        }
        if self.answer.done {
            events.push(Event::nameless("[DONE]"));
        }
        events
    }

    fn whole(&self) -> Value {
        let choice = |index: u32| {
            json!({"index": index, "message": self.message(), "logprobs": null,
                "finish_reason": self.answer.finish_reason()})
        };
        let mut body = self.body(
            "chat.completion",
            (0..self.answer.choices).map(choice).collect(),
        );
        if self.answer.usage_when != UsageWhen::Never {
            body["usage"] = self.usage();
        }
        body
    }

    fn keep_alive(&self, kind: KeepAlive) -> Event {
        match kind {
            KeepAlive::Ping => Event::Comment("keep-alive".into()),
            KeepAlive::Comment => Event::Comment("OPENROUTER PROCESSING".into()),
            KeepAlive::EmptyDelta => Event::nameless(self.chunk(0, &json!({"content": ""}), None)),
        }
    }

    fn malformed(&self) -> Event {
        Event::nameless(format!(
            r#"{{"id":"{}","object":"chat.completion.chunk","choices":[{{"index":0,"del"#,
            self.id
        ))
    }

    fn error(&self, failure: &Failure) -> Event {
        Event::nameless(failure.told(Dialect::OpenAi))
    }
}
