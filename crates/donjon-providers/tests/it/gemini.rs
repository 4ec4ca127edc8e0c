//! Gemini: recorded streams, requests, and what goes wrong.

use donjon_core::{ErrorKind, FinishReason, LlmRequest, Message, ToolCall, Usage};
use donjon_providers::{Codec, Gemini, StreamDecoder, gemini::GeminiDecoder};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{End, any_json, ask, call, http, packeted, read_stream, sent, whole};

const EVENTS: &str = "text/event-stream";
const RECORDED: [&str; 3] = [
    include_str!("../data/gemini/google-text.chunks.txt"),
    include_str!("../data/gemini/google-reasoning.chunks.txt"),
    include_str!("../data/gemini/google-tool-call.chunks.txt"),
];

fn gemini() -> Gemini {
    Gemini::builder().api_key("k").build().expect("valid")
}

fn framed(recorded: &str) -> String {
    let lines = recorded.lines().filter(|line| !line.is_empty());
    lines.map(|line| format!("data: {line}\r\n\r\n")).collect()
}

fn read(
    text: String,
    cuts: Vec<usize>,
    end: End,
) -> (
    Vec<String>,
    Result<donjon_core::ChatCompletion, donjon_core::LlmError>,
) {
    read_stream(gemini(), move || packeted(&text, EVENTS, cuts.clone(), end))
}

#[test]
fn recorded_streams() {
    let (_, text) = read(framed(RECORDED[0]), vec![], End::Whole);
    let text = text.expect("whole");
    assert_eq!(
        text.first_text(),
        "There are **3** \"r\"s in strawberry.\n\nst**r**awbe**rr**y"
    );
    assert_eq!(text.choices[0].finish_reason, Some(FinishReason::Stop));
    assert_eq!(text.model.as_deref(), Some("gemini-3-pro-preview"));
    assert_eq!(text.id.as_deref(), Some("bH6LaZW8Fp_3nsEPqtaSwQ4"));
    let mut usage = Usage::new(9, 23 + 185);
    usage.reasoning = 185;
    assert_eq!(text.usage, Some(usage));

    let (_, tool) = read(framed(RECORDED[2]), vec![], End::Whole);
    let tool = tool.expect("whole");
    assert_eq!(tool.choices[0].finish_reason, Some(FinishReason::ToolCalls));
    let made = &tool.tool_calls()[0];
    assert_eq!(made.name(), Some("weather"));
    assert_eq!(made.arguments(), r#"{"location":"San Francisco"}"#);
    assert!(made.id.as_deref().is_some_and(|id| id.starts_with("call_")));
    assert!(made.extra.get("extra_content").is_some(), "it is signed");
}

#[test]
fn an_end_without_a_finish_reason_is_a_failure() {
    for recorded in RECORDED {
        let framed = framed(recorded);
        let last = framed.trim_end().rfind("data:").expect("an event");
        let cut = framed[..last].to_owned();
        let (_, result) = read(cut.clone(), vec![], End::Whole);
        assert_eq!(result.expect_err("cut").kind(), ErrorKind::Incomplete);
        let (_, result) = read(cut, vec![], End::Broken);
        assert_eq!(result.expect_err("cut").kind(), ErrorKind::StreamBroken);
        // Nothing after it is waited for.
        read(framed, vec![], End::Open).1.expect("whole");
    }
}

#[tokio::test]
async fn a_call_goes_back_signed_with_its_result_by_name() {
    let answer = r#"{"candidates":[{"content":{"role":"model","parts":[
        {"functionCall":{"name":"now","args":{"zone":"UTC"}},"thoughtSignature":"sig"},
        {"functionCall":{"id":"theirs","name":"then"}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3}}"#;
    let response = call(gemini(), http(move || whole(200, answer)), ask()).await;
    let (_, completion) = response.expect("an answer").collect().await.expect("whole");
    let chat = completion.as_chat().expect("a chat");
    let made = chat.choices[0].message.clone();
    assert_eq!(made.tool_calls[1].id.as_deref(), Some("theirs"));
    assert_eq!(made.tool_calls[1].arguments(), "{}");
    let id = made.tool_calls[0].id.clone().expect("made up");
    // OpenAI itself takes no member that it does not know.
    let elsewhere = LlmRequest::chat("gpt", [made.clone()]);
    let body = sent(&crate::support::openai(), &elsewhere).await;
    assert!(!String::from_utf8_lossy(&body).contains("extra_content"));
    let request = LlmRequest::chat(
        "gemini-3-pro",
        [
            Message::system("Be brief."),
            Message::user("When?"),
            made,
            Message::tool(id.clone(), r#"{"time":12}"#),
            Message::tool("theirs", "long ago"),
        ],
    );
    let body: Value = serde_json::from_slice(&sent(&gemini(), &request).await).expect("JSON");
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "When?"}]},
            {"role": "model", "parts": [
                {"functionCall": {"id": &*id, "name": "now", "args": {"zone": "UTC"}}, "thoughtSignature": "sig"},
                {"functionCall": {"id": "theirs", "name": "then", "args": {}}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": &*id, "name": "now", "response": {"time": 12}}},
                {"functionResponse": {"id": "theirs", "name": "then", "response": {"output": "long ago"}}},
            ]},
        ],
    });
    assert_eq!(body, expected);

    let mut other = Message::assistant("");
    other.tool_calls = vec![ToolCall::function("c", "f", "{}")];
    for (model, signature) in [
        ("gemini-2.5-pro", Value::Null),
        ("gemini-3-pro", "skip_thought_signature_validator".into()),
    ] {
        let request = LlmRequest::chat(model, [other.clone(), Message::tool("c", "x")]);
        let body: Value = serde_json::from_slice(&sent(&gemini(), &request).await).expect("JSON");
        let part = &body["contents"][0]["parts"][0];
        assert_eq!(part["thoughtSignature"], signature, "{model}");
    }
}

#[tokio::test]
async fn parameters_and_parts() {
    let body = json!({"model": "gemini-2.5-flash", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "n": 2, "stop": "x",
        "seed": 5, "reasoning_effort": "low", "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "additionalProperties": false}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}, {"type": "google_search"}],
        "safetySettings": [{"category": "c"}], "extra_body": {"google": {"cached_content": "cachedContents/1"}},
        "generationConfig": {"mediaResolution": "LOW"}, "user": "u",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUI="}},
            {"type": "image_url", "image_url": {"url": "https://a.b/c.jpg?x"}},
            {"type": "input_audio", "input_audio": {"data": "QUI=", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUI="}}]}]});
    let request = LlmRequest::from_openai_chat(body.to_string()).expect("a request");
    let got: Value = serde_json::from_slice(&sent(&gemini(), &request).await).expect("JSON");
    let expected = json!({
        "contents": [{"role": "user", "parts": [{"text": "hi"},
            {"inlineData": {"mimeType": "image/png", "data": "QUI="}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.b/c.jpg?x"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "QUI="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "QUI="}}]}],
        "tools": [{"google_search": {}}, {"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {"maxOutputTokens": 7, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"], "seed": 5, "candidateCount": 2,
            "responseMimeType": "application/json", "responseJsonSchema": {"type": "object", "additionalProperties": false},
            "thinkingConfig": {"thinkingBudget": 1024}, "mediaResolution": "LOW"},
        "safetySettings": [{"category": "c"}], "cachedContent": "cachedContents/1",
    });
    assert_eq!(got, expected);
    let embed = gemini().encode(&LlmRequest::embed("m", ["a"]));
    assert_eq!(embed.expect_err("refused").kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn what_is_no_answer() {
    for (body, kind) in [
        (
            r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}"#,
            ErrorKind::ContentPolicy,
        ),
        (r#"{"candidates":[]}"#, ErrorKind::InvalidResponse),
        ("<html>", ErrorKind::InvalidResponse),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#,
            ErrorKind::Incomplete,
        ),
        (
            r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#,
            ErrorKind::InvalidResponse,
        ),
        (
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m"}}"#,
            ErrorKind::RateLimited,
        ),
    ] {
        let error = call(gemini(), http(move || whole(200, body)), ask()).await;
        assert_eq!(error.expect_err(body).kind(), kind, "{body}");
        let mut decoder = GeminiDecoder::new();
        if !matches!(kind, ErrorKind::Incomplete) && body.contains("r\":") {
            let step = decoder.decode(body.to_owned());
            assert_eq!(step.expect_err(body).kind(), kind, "{body}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_gives_the_same_events(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..60)) {
        for recorded in RECORDED {
            let text = framed(recorded);
            let cuts = cuts.iter().map(|cut| cut.index(text.len())).collect();
            let (expected, _) = read(text.clone(), vec![], End::Whole);
            let (got, result) = read(text, cuts, End::Whole);
            prop_assert_eq!(got, expected);
            prop_assert!(result.is_ok());
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics(value in any_json(), text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let codec = gemini();
        let asked = donjon_providers::Asked::of(&ask());
        let parts = json!({"candidates": [{"content": {"parts": [value.clone()]}, "finishReason": text}], "promptFeedback": value.clone()});
        for body in [value.to_string(), parts.to_string(), text] {
            let _ = GeminiDecoder::new().decode(body.clone());
            let _ = codec.decode(body.clone().into(), asked);
            let _ = codec.decode_error(http::StatusCode::BAD_REQUEST, &http::HeaderMap::new(), body.as_bytes());
        }
        let _ = codec.decode(bytes.into(), asked);
        if let Ok(request) = LlmRequest::from_openai_chat(value.to_string()) {
            let _ = codec.encode(&request);
        }
    }
}
