//! What providers answer as a whole, and what they refuse with: the first two bytes are the status.
#![no_main]

use bytes::Bytes;
use donjon_core::{Completion, LlmRequest, Message};
use donjon_providers::{Anthropic, Asked, Codec, OpenAi, anthropic, openai};
use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((status, body)) = data.split_first_chunk::<2>() else {
        return;
    };
    let asked = Asked::of(&LlmRequest::chat("m", [Message::user("hi")]));
    let openai = OpenAi::builder().api_key("k").build().expect("complete");
    let claude = Anthropic::builder().api_key("k").build().expect("complete");
    answered(&openai, body, asked);
    answered(&claude, body, asked);
    if let Ok(status) = StatusCode::from_u16(u16::from_be_bytes(*status) % 1000) {
        for error in [
            openai.decode_error(status, &HeaderMap::new(), body),
            claude.decode_error(status, &HeaderMap::new(), body),
        ] {
            drop(openai::error_to_json(&error));
            drop(anthropic::error_to_json(&error));
        }
    }
});

/// What can be read can be written in both dialects.
fn answered(codec: &impl Codec, body: &[u8], asked: Asked) {
    let read = codec.decode(Bytes::copy_from_slice(body), asked);
    if let Ok(Completion::Chat(answer)) = read {
        let written = openai::completion_to_json(&answer);
        openai::completion_from_json(written).expect("what we write can be read");
        drop(anthropic::completion_to_json(&answer));
    }
}
