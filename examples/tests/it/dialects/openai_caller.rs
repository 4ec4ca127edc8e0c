//! An OpenAI client, unmodified, before Anthropic.

use async_openai::types::chat::{
    ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls,
    ChatCompletionRequestAssistantMessageArgs, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestToolMessage, ChatCompletionRequestUserMessage,
    ChatCompletionStreamOptions, FinishReason, FunctionCall, Role,
};
use donjon_testkit::upstream::{Script, Usage};
use serde_json::{Value, json};

use crate::{
    client::{ask, calls_of, client, question, streamed, text_of, two_calls, with_tool},
    support::{ANTHROPIC, CHAT, Gate, OPENAI, always, chat, config, steady},
};

const CALLS: [(&str, &str); 2] = [
    ("toolu_0", r#"{"city":"Vincennes"}"#),
    ("toolu_1", r#"{"city":"Loches"}"#),
];

#[tokio::test]
async fn an_openai_client_before_anthropic() {
    let usage = Usage::new(20, 7).cached(5, 3);
    let claude = always(Script::words(4).usage(usage).model("claude-x")).await;
    let gate = Gate::before_one(ANTHROPIC, &claude).await;
    let client = client(&gate);

    let answer = client.chat().create(question()).await.expect("served");
    assert_eq!(answer.model, "claude-x");
    assert_eq!(answer.object, "chat.completion");
    let choice = &answer.choices[0];
    assert_eq!(choice.message.content.as_deref(), Some("w0 w1 w2 w3 "));
    assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
    let told = answer.usage.expect("usage");
    assert_eq!((told.prompt_tokens, told.completion_tokens), (20, 7));
    assert_eq!(told.total_tokens, 27);
    let cached = told
        .prompt_tokens_details
        .and_then(|details| details.cached_tokens);
    assert_eq!(cached, Some(5));

    let options = ChatCompletionStreamOptions {
        include_usage: Some(true),
        include_obfuscation: None,
    };
    let request = ask()
        .stream_options(options)
        .build()
        .expect("a good request");
    let chunks = streamed(&client, request).await;
    assert_eq!(text_of(&chunks, 0), "w0 w1 w2 w3 ");
    let (last, chunks) = chunks.split_last().expect("chunks");
    let told = last.usage.as_ref().expect("usage");
    assert_eq!((told.prompt_tokens, told.completion_tokens), (20, 7));
    assert!(last.choices.is_empty());
    let roles = chunks.iter().flat_map(|chunk| &chunk.choices);
    let roles: Vec<_> = roles.filter_map(|choice| choice.delta.role).collect();
    assert_eq!(roles, [Role::Assistant]);
    assert!(chunks.iter().all(|chunk| chunk.usage.is_none()));
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.id == last.id && chunk.model == "claude-x")
    );

    // Who did not ask is not told.
    let chunks = streamed(&client, question()).await;
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.usage.is_none() && !chunk.choices.is_empty())
    );

    let request = &claude.calls()[0].request;
    assert_eq!(request.header("x-api-key"), Some("sk-upstream"));
    assert_eq!(request.header("authorization"), None);
    assert!(request.json["max_tokens"].is_u64(), "{}", request.json);
    assert_eq!(claude.count(), 3);
}

#[tokio::test]
async fn tools_of_an_openai_client_before_anthropic() {
    let claude = always(two_calls()).await;
    let gate = Gate::before_one(ANTHROPIC, &claude).await;
    let client = client(&gate);

    let answer = client.chat().create(with_tool()).await.expect("served");
    let choice = &answer.choices[0];
    assert_eq!(choice.finish_reason, Some(FinishReason::ToolCalls));
    let calls = choice
        .message
        .tool_calls
        .iter()
        .flatten()
        .map(|call| match call {
            ChatCompletionMessageToolCalls::Function(call) => {
                assert_eq!(call.function.name, "weather");
                (call.id.as_str(), call.function.arguments.as_str())
            }
            other => panic!("{other:?}"),
        });
    assert_eq!(calls.collect::<Vec<_>>(), CALLS);

    let chunks = streamed(&client, with_tool()).await;
    let calls = calls_of(&chunks);
    let calls = calls.iter().map(|(name, id, arguments)| {
        assert_eq!(name, "weather");
        (id.as_str(), arguments.as_str())
    });
    assert_eq!(calls.collect::<Vec<_>>(), CALLS);
    let ends = chunks.iter().flat_map(|chunk| &chunk.choices);
    let ends: Vec<_> = ends.filter_map(|choice| choice.finish_reason).collect();
    assert_eq!(ends, [FinishReason::ToolCalls]);

    for call in claude.calls() {
        let tool = &call.request.json["tools"][0];
        assert_eq!(tool["name"], "weather", "{tool}");
        assert_eq!(tool["description"], "Tells the weather.", "{tool}");
        assert_eq!(tool["input_schema"]["type"], "object", "{tool}");
    }
}

#[tokio::test]
async fn a_conversation_of_an_openai_client_in_anthropics_words() {
    let claude = always(Script::answer("It does.")).await;
    let gate = Gate::before_one(ANTHROPIC, &claude).await;
    let call = |id: &str, city: &str| {
        ChatCompletionMessageToolCalls::Function(ChatCompletionMessageToolCall {
            id: id.into(),
            function: FunctionCall {
                name: "weather".into(),
                arguments: json!({"city": city}).to_string(),
            },
        })
    };
    let result = |id: &str, text: &str| ChatCompletionRequestToolMessage {
        content: text.into(),
        tool_call_id: id.into(),
    };
    let assistant = ChatCompletionRequestAssistantMessageArgs::default()
        .content("Let me look.")
        .tool_calls(vec![call("c1", "Loches"), call("c2", "Vincennes")])
        .build()
        .expect("a good message");
    let mut request = ask();
    request
        .max_completion_tokens(77u32)
        .temperature(0.5)
        .messages(vec![
            ChatCompletionRequestSystemMessage::from("Be brief.").into(),
            ChatCompletionRequestUserMessage::from("Does it rain?").into(),
            assistant.into(),
            result("c1", "It pours.").into(),
            result("c2", "It does not.").into(),
        ]);
    let request = request.build().expect("a good request");
    client(&gate).chat().create(request).await.expect("served");

    let sent = &claude.calls()[0].request.json;
    assert!(sent["system"].to_string().contains("Be brief."), "{sent}");
    assert_eq!(sent["max_tokens"], 77);
    assert_eq!(sent["temperature"], 0.5);
    let turns = sent["messages"].as_array().expect("messages");
    let roles: Vec<_> = turns
        .iter()
        .filter_map(|turn| turn["role"].as_str())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"], "{sent}");
    let blocks = turns[1]["content"].as_array().expect("blocks");
    let kinds: Vec<_> = blocks
        .iter()
        .filter_map(|block| block["type"].as_str())
        .collect();
    assert_eq!(kinds, ["text", "tool_use", "tool_use"], "{sent}");
    assert_eq!(blocks[1]["id"], "c1");
    assert_eq!(blocks[1]["input"], json!({"city": "Loches"}));
    // The results of parallel calls belong into one turn.
    let results = turns[2]["content"].as_array().expect("blocks");
    let ids: Vec<_> = results
        .iter()
        .filter_map(|block| block["tool_use_id"].as_str())
        .collect();
    assert_eq!(ids, ["c1", "c2"], "{sent}");
    assert!(results[0].to_string().contains("It pours."), "{sent}");
}

#[tokio::test]
async fn what_anthropic_cannot_do_goes_to_who_can() {
    let claude = steady().await;
    let other = always(Script::words(2).choices(2)).await;
    let targets = [(ANTHROPIC, &claude), (OPENAI, &other)];
    let gate = Gate::open(&config(&targets, 3, "")).await;
    let request = ask().n(2).build().expect("a good request");
    let answer = client(&gate).chat().create(request).await.expect("served");
    assert_eq!(answer.choices.len(), 2);
    assert_eq!((claude.count(), other.count()), (0, 1));
}

#[tokio::test]
async fn images_and_schemas_in_anthropics_words() {
    let claude = steady().await;
    let gate = Gate::before_one(ANTHROPIC, &claude).await;
    let mut body: Value = serde_json::from_str(&chat(false)).expect("JSON");
    body["messages"][0]["content"] = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://h.example/a.png"}},
    ]);
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    body["response_format"] = json!({
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": true, "schema": schema},
    });
    let answer = gate.post(CHAT, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = &claude.calls()[0].request.json;
    let blocks = &sent["messages"][0]["content"];
    assert_eq!(blocks[0]["text"], "What is this?", "{sent}");
    let image = json!({"type": "base64", "media_type": "image/png", "data": "aGk="});
    assert_eq!(blocks[1]["source"], image, "{sent}");
    let image = json!({"type": "url", "url": "https://h.example/a.png"});
    assert_eq!(blocks[2]["source"], image, "{sent}");
    assert_eq!(sent["output_config"]["format"]["schema"], schema, "{sent}");
}
