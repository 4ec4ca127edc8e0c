//! What callers send: read in both dialects, and what was read is written and read again.
#![no_main]

use bytes::Bytes;
use donjon_core::LlmRequest;
use donjon_providers::{Codec, OpenAi, anthropic};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let json = Bytes::copy_from_slice(json);
    if let Ok(request) = LlmRequest::from_openai_chat(json.clone()) {
        written(&request);
        // Once more without what was kept of it as it came.
        let mut edited = request;
        edited.edit_chat();
        let again = edited.to_openai_chat().expect("it is a chat");
        LlmRequest::from_openai_chat(again).expect("what we write can be read");
    }
    if let Ok(request) = anthropic::request_from_json(json) {
        written(&request);
    }
});

/// Written for either provider: it may be refused, and never panics.
fn written(request: &LlmRequest) {
    let openai = OpenAi::builder().api_key("k").build().expect("complete");
    let claude = anthropic::Anthropic::builder().api_key("k").build();
    drop(openai.encode(request));
    drop(claude.expect("complete").encode(request));
}
