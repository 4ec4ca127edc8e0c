//! What the upstream answers: an OpenAI chat completion of 200 words, whole or in chunks; and what is asked of it.

use bytes::Bytes;
use serde_json::{Value, json};

/// Chunks that carry text in a streamed answer; a role chunk, a finish chunk, a usage chunk and `[DONE]` come on top.
pub const TEXT_CHUNKS: usize = 50;

const WORDS: usize = 200;

/// The unary answer, a little more than 1 KB of JSON.
#[must_use]
pub fn complete() -> Bytes {
    let answer = json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text(0, WORDS), "refusal": null },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(),
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
    });
    Bytes::from(answer.to_string())
}

/// The streamed answer, one server-sent event an item, the last of them `[DONE]`.
#[must_use]
pub fn events() -> Vec<Bytes> {
    let each = WORDS / TEXT_CHUNKS;
    let role = [choice(
        &json!({ "role": "assistant", "content": "", "refusal": null }),
        &Value::Null,
    )];
    let words = (0..TEXT_CHUNKS).map(|index| {
        choice(
            &json!({ "content": text(index * each, each) }),
            &Value::Null,
        )
    });
    let end = [
        choice(&json!({}), &json!("stop")),
        chunk(&json!([]), &usage()),
    ];
    let chunks = role
        .into_iter()
        .chain(words)
        .chain(end)
        .map(|chunk| chunk.to_string());
    chunks
        .chain(["[DONE]".to_owned()])
        .map(|data| Bytes::from(format!("data: {data}\n\n")))
        .collect()
}

/// A request of about 1 KB; a streamed one asks for its usage.
#[must_use]
pub fn request(stream: bool) -> Bytes {
    let mut request = json!({
        "model": "gpt-4o-mini",
        "messages": [
            { "role": "system", "content": "You answer questions about castles, briefly and to the point." },
            { "role": "user", "content": text(0, 120) },
        ],
        "temperature": 0.2,
        "max_tokens": 400,
    });
    if stream {
        request["stream"] = json!(true);
        request["stream_options"] = json!({ "include_usage": true });
    }
    Bytes::from(request.to_string())
}

fn choice(delta: &Value, finish_reason: &Value) -> Value {
    chunk(
        &json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]),
        &Value::Null,
    )
}

fn chunk(choices: &Value, usage: &Value) -> Value {
    json!({
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "gpt-4o-mini",
        "service_tier": "default", "system_fingerprint": "fp_bench", "choices": choices, "usage": usage,
    })
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 140, "completion_tokens": 200, "total_tokens": 340,
        "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0 },
    })
}

/// `count` words from the `first` on, each followed by a space.
fn text(first: usize, count: usize) -> String {
    const LEXICON: [&str; 8] = [
        "keep", "wall", "gate", "tower", "moat", "well", "stair", "hall",
    ];
    (first..first + count)
        .flat_map(|index| [LEXICON[index % LEXICON.len()], " "])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_carry_the_same_text() {
        let whole: Value = serde_json::from_slice(&complete()).expect("the answer is JSON");
        let chunks = events();
        assert_eq!(chunks.len(), TEXT_CHUNKS + 4);
        let streamed: String = chunks[..chunks.len() - 1]
            .iter()
            .map(|event| serde_json::from_slice::<Value>(&event[6..]).expect("an event is JSON"))
            .filter_map(|chunk| {
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(whole["choices"][0]["message"]["content"], streamed);
    }
}
