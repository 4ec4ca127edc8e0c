//! What each dialect says when nothing goes wrong.

use donjon_testkit::upstream::{Dialect, Script, Upstream, Usage};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{ask, call, client, path, payloads, request, streamed, text};

const OPENAI: Dialect = Dialect::OpenAi;
const ANTHROPIC: Dialect = Dialect::Anthropic;

async fn whole(dialect: Dialect, script: Script) -> Value {
    let upstream = Upstream::builder().script(script).in_memory();
    serde_json::from_str(&text(call(&upstream, path(dialect), &ask(false)).await).await).unwrap()
}

/// What each chunk of an OpenAI stream says of its first choice.
fn choices(stream: &str) -> Vec<Value> {
    payloads(stream)
        .iter()
        .map(|chunk| chunk["choices"][0].clone())
        .collect()
}

#[tokio::test]
async fn an_openai_stream_byte_for_byte() {
    let upstream = Upstream::builder()
        .script(Script::tokens(["Hel", "lo"]).model("served"))
        .in_memory();
    let mut body = ask(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = call(&upstream, "/v1/chat/completions", &body).await;
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert_eq!(response.headers()["x-request-id"], "req_0");
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "served", "system_fingerprint": "fp_testkit", "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let choice = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        chunk(json!([choice]), Value::Null)
    };
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}});
    let expected = choice(
        json!({"role": "assistant", "content": "", "refusal": null}),
        Value::Null,
    ) + &choice(json!({"content": "Hel"}), Value::Null)
        + &choice(json!({"content": "lo"}), Value::Null)
        + &choice(json!({}), json!("stop"))
        + &chunk(json!([]), usage)
        + "data: [DONE]\n\n";
    assert_eq!(text(response).await, expected);
}

#[tokio::test]
async fn an_anthropic_stream_byte_for_byte() {
    let upstream = Upstream::builder()
        .script(Script::tokens(["Hel", "lo"]).reasoning("hm"))
        .in_memory();
    let response = call(&upstream, "/v1/messages", &ask(true)).await;
    assert_eq!(response.headers()["request-id"], "req_0");
    let event = |name: &str, mut body: Value| {
        body["type"] = name.into();
        format!("event: {name}\ndata: {body}\n\n")
    };
    let delta = |index: u32, delta: Value| {
        event(
            "content_block_delta",
            json!({"index": index, "delta": delta}),
        )
    };
    let usage = json!({"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": 1, "service_tier": "standard"});
    let message = json!({"id": "msg_0", "type": "message", "role": "assistant", "model": "m-1", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    let thinking = json!({"type": "thinking", "thinking": "", "signature": ""});
    let expected = event("message_start", json!({"message": message}))
        + &event(
            "content_block_start",
            json!({"index": 0, "content_block": thinking}),
        )
        + &delta(0, json!({"type": "thinking_delta", "thinking": "hm"}))
        + &delta(
            0,
            json!({"type": "signature_delta", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA"}),
        )
        + &event("content_block_stop", json!({"index": 0}))
        + &event(
            "content_block_start",
            json!({"index": 1, "content_block": {"type": "text", "text": ""}}),
        )
        + &delta(1, json!({"type": "text_delta", "text": "Hel"}))
        + &delta(1, json!({"type": "text_delta", "text": "lo"}))
        + &event("content_block_stop", json!({"index": 1}))
        + &event(
            "message_delta",
            json!({"delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 3}}),
        )
        + &event("message_stop", json!({}));
    assert_eq!(text(response).await, expected);
}

#[tokio::test]
async fn unary_answers_have_every_part() {
    let script = || {
        Script::answer("It is noon.")
            .reasoning("Look up.")
            .tool_call("now", r#"{"zone":"UTC"}"#)
            .unknown_delta()
    };
    let openai = whole(OPENAI, script()).await;
    assert_eq!(
        (&openai["object"], &openai["model"]),
        (&json!("chat.completion"), &json!("m-1"))
    );
    assert_eq!(
        openai["choices"],
        json!([{"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "It is noon.", "refusal": null, "annotations": [],
            "reasoning_content": "Look up.", "hologram": {"frames": 3},
            "tool_calls": [{"id": "call_0", "type": "function",
                "function": {"name": "now", "arguments": "{\"zone\":\"UTC\"}"}}],
        }}])
    );
    let anthropic = whole(ANTHROPIC, script()).await;
    assert_eq!(
        anthropic["content"],
        json!([
            {"type": "thinking", "thinking": "Look up.", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA"},
            {"type": "hologram", "frames": 3},
            {"type": "text", "text": "It is noon."},
            {"type": "tool_use", "id": "toolu_0", "name": "now", "input": {"zone": "UTC"}},
        ])
    );
    assert_eq!(anthropic["stop_reason"], "tool_use");
}

#[tokio::test]
async fn streamed_tool_arguments_add_up() {
    let arguments = r#"{"city":"Zürich","days":[1,2,3]}"#;
    let script = || {
        Script::empty_answer()
            .tool_call("first", "{}")
            .tool_call("second", arguments)
    };
    let stream = streamed(OPENAI, script()).await;
    let (mut heads, mut joined) = (Vec::new(), String::new());
    for choice in choices(&stream) {
        let call = &choice["delta"]["tool_calls"][0];
        if let Some(id) = call["id"].as_str() {
            heads.push(format!(
                "{} {id} {} {}",
                call["index"], call["type"], call["function"]["name"]
            ));
        }
        if call["index"] == 1 {
            joined += call["function"]["arguments"].as_str().unwrap();
        }
    }
    assert_eq!(
        heads,
        [
            r#"0 call_0 "function" "first""#,
            r#"1 call_1 "function" "second""#
        ]
    );
    assert_eq!(joined, arguments);

    let events = payloads(&streamed(ANTHROPIC, script()).await);
    let of_second = events
        .iter()
        .filter(|event| event["index"] == 1 && event["type"] == "content_block_delta");
    let joined: String = of_second
        .map(|event| event["delta"]["partial_json"].as_str().unwrap())
        .collect();
    assert_eq!(joined, arguments);
    let mut starts = events
        .iter()
        .filter(|event| event["type"] == "content_block_start");
    let second = json!({"type": "tool_use", "id": "toolu_1", "name": "second", "input": {}});
    assert_eq!(starts.nth(1).unwrap()["content_block"], second);
}

#[tokio::test]
async fn finish_reasons_in_both_vocabularies() {
    let scripts = [
        (Script::words(1), "stop", "end_turn"),
        (Script::words(1).finish("length"), "length", "max_tokens"),
        (
            Script::empty_answer().content_filter(),
            "content_filter",
            "refusal",
        ),
        (Script::empty_answer().refusal("No."), "stop", "refusal"),
        (
            Script::empty_answer().tool_call("f", "{}"),
            "tool_calls",
            "tool_use",
        ),
        (
            Script::words(1).finish("pause_turn"),
            "pause_turn",
            "pause_turn",
        ),
    ];
    for (script, openai, anthropic) in scripts {
        assert_eq!(
            whole(OPENAI, script.clone()).await["choices"][0]["finish_reason"],
            openai
        );
        assert_eq!(
            choices(&streamed(OPENAI, script.clone()).await)
                .last()
                .unwrap()["finish_reason"],
            openai
        );
        assert_eq!(
            whole(ANTHROPIC, script.clone()).await["stop_reason"],
            anthropic
        );
        let events = payloads(&streamed(ANTHROPIC, script).await);
        assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], anthropic);
    }
}

#[tokio::test]
async fn odd_but_legal_answers() {
    let empty = choices(&streamed(OPENAI, Script::empty_answer()).await);
    assert_eq!(empty.len(), 2, "role and finish");
    assert_eq!(empty[1]["finish_reason"], "stop");

    let two = payloads(&streamed(OPENAI, Script::tokens(["a"]).choices(2)).await);
    let said = two.iter().map(|chunk| &chunk["choices"][0]);
    let said: Vec<_> = said
        .map(|c| (c["index"].as_u64().unwrap(), c["finish_reason"] == "stop"))
        .collect();
    assert_eq!(
        said,
        [
            (0, false),
            (1, false),
            (0, false),
            (1, false),
            (0, true),
            (1, true)
        ]
    );

    let unknown = choices(&streamed(OPENAI, Script::words(1).unknown_delta()).await);
    assert_eq!(unknown[1]["delta"], json!({"hologram": {"frames": 3}}));
    let refusal = choices(&streamed(OPENAI, Script::empty_answer().refusal("I can not.")).await);
    assert_eq!(refusal[1]["delta"], json!({"refusal": "I "}));
    let bare = choices(&streamed(OPENAI, Script::words(1).no_role()).await);
    assert_eq!(bare[0]["delta"], json!({"content": "w0 "}));
}

#[tokio::test]
async fn usage_is_reported_as_the_script_says() {
    let usage = Usage::new(100, 20).cached(60, 10).reasoned(5);
    let chunk_with_usage = |stream: &str| {
        let chunks = payloads(stream);
        let at = chunks.iter().position(|chunk| chunk["usage"].is_object())?;
        Some((
            chunks.len() - at,
            chunks[at]["choices"].as_array().unwrap().len(),
            chunks[at]["usage"].clone(),
        ))
    };
    let script = || Script::words(2).usage(usage);
    assert_eq!(
        chunk_with_usage(&streamed(OPENAI, script()).await),
        None,
        "nobody asked"
    );
    assert_eq!(
        chunk_with_usage(&streamed(OPENAI, script().no_usage()).await),
        None
    );
    let (from_end, choices, forced) =
        chunk_with_usage(&streamed(OPENAI, script().forced_usage()).await).unwrap();
    assert_eq!((from_end, choices), (1, 0));
    assert_eq!(
        (&forced["prompt_tokens"], &forced["total_tokens"]),
        (&json!(100), &json!(120))
    );
    assert_eq!(forced["prompt_tokens_details"]["cached_tokens"], 60);
    assert_eq!(forced["completion_tokens_details"]["reasoning_tokens"], 5);
    let (from_end, choices, _) =
        chunk_with_usage(&streamed(OPENAI, script().usage_with_finish()).await).unwrap();
    assert_eq!((from_end, choices), (1, 1));

    let anthropic = whole(ANTHROPIC, script()).await["usage"].clone();
    let counts = [
        "input_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
    ];
    assert_eq!(
        counts.map(|count| anthropic[count].as_u64().unwrap()),
        [30, 60, 10, 20]
    );
    assert!(whole(ANTHROPIC, script().no_usage()).await["usage"].is_null());
    assert!(whole(OPENAI, script().no_usage()).await["usage"].is_null());
}

#[tokio::test]
async fn any_base_path_and_azure() {
    let upstream = Upstream::builder().models(["a", "b"]).in_memory();
    let mut body = ask(false);
    body.as_object_mut().unwrap().remove("model");
    let azure = "/openai/deployments/d-1/chat/completions?api-version=2024-10-21";
    let answer: Value =
        serde_json::from_str(&text(call(&upstream, azure, &body).await).await).unwrap();
    assert_eq!(answer["model"], "d-1");
    assert_eq!(
        call(&upstream, "/api/v1/chat/completions", &ask(false))
            .await
            .status(),
        200
    );
    assert_eq!(
        call(&upstream, "/proxy/anthropic/v1/messages", &ask(false))
            .await
            .status(),
        200
    );
    assert_eq!(
        call(&upstream, "/v1/completions", &ask(false))
            .await
            .status(),
        404
    );

    let list = Request::get("/v1/models")
        .header("host", "upstream")
        .body(Full::default())
        .unwrap();
    let list = text(
        client(upstream.connect())
            .await
            .send_request(list)
            .await
            .unwrap(),
    )
    .await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (&list["data"][0]["id"], &list["data"][1]["id"]),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(
        upstream.count(),
        3,
        "neither the listing nor the unknown path is a call"
    );
}

#[tokio::test]
async fn a_request_no_provider_would_take_is_refused() {
    let upstream = Upstream::builder().api_key("k-1").in_memory();
    let send = async |path: &str, key: (&'static str, &'static str), body: Value| {
        let mut request = request(path, &body);
        request
            .headers_mut()
            .insert(key.0, http::HeaderValue::from_static(key.1));
        client(upstream.connect())
            .await
            .send_request(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let without = |field: &str| {
        let mut body = ask(false);
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let bearer = ("authorization", "Bearer k-1");
    assert_eq!(send("/v1/chat/completions", bearer, ask(false)).await, 200);
    assert_eq!(
        send("/v1/messages", ("x-api-key", "k-1"), ask(false)).await,
        200
    );
    assert_eq!(
        send("/v1/chat/completions", ("api-key", "k-1"), ask(false)).await,
        200
    );
    assert_eq!(
        send(
            "/v1/chat/completions",
            ("authorization", "Bearer k-2"),
            ask(false)
        )
        .await,
        401
    );
    assert_eq!(
        send("/v1/chat/completions", bearer, without("messages")).await,
        400
    );
    assert_eq!(
        send("/v1/chat/completions", bearer, without("max_tokens")).await,
        200
    );
    assert_eq!(
        send("/v1/messages", bearer, without("max_tokens")).await,
        400
    );
    assert_eq!(
        send("/v1/chat/completions", bearer, json!("not an object")).await,
        400
    );

    let lenient = Upstream::builder().lenient().in_memory();
    assert_eq!(
        call(&lenient, "/v1/messages", &json!({})).await.status(),
        200
    );
}
