//! An unmodified client: async-openai, as its users set it up.
//!
//! What it does by itself, as of 0.43: up to three further requests on 429 (unless the error's type
//! is `insufficient_quota`), on every 5xx and on a refused connection, after `Retry-After` in whole
//! seconds or 100 ms, 200 ms, 400 ms. It does not know `x-should-retry`.

mod failures;

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::chat::{
        ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls,
        ChatCompletionRequestAssistantMessageArgs, ChatCompletionRequestMessage,
        ChatCompletionRequestSystemMessage, ChatCompletionRequestToolMessage,
        ChatCompletionRequestUserMessage, ChatCompletionTool, ChatCompletionTools,
        CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
        CreateChatCompletionStreamResponse, FinishReason, FunctionCall, FunctionObjectArgs, Role,
    },
};
use donjon_testkit::upstream::Script;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Gate, OPENAI, SOON, always, provider, steady};

/// The client as it is out of the box.
pub(crate) fn client(gate: &Gate) -> Client<OpenAIConfig> {
    let config = OpenAIConfig::new()
        .with_api_base(format!("http://{}/v1", gate.addr))
        .with_api_key("sk-caller");
    Client::with_config(config)
}

pub(crate) fn question() -> CreateChatCompletionRequest {
    ask().build().expect("a good request")
}

pub(crate) fn ask() -> CreateChatCompletionRequestArgs {
    let mut ask = CreateChatCompletionRequestArgs::default();
    let user: ChatCompletionRequestMessage =
        ChatCompletionRequestUserMessage::from("What is a donjon?").into();
    ask.model("gpt-4o").messages([user]);
    ask
}

/// A question that brings a tool along.
pub(crate) fn with_tool() -> CreateChatCompletionRequest {
    let function = FunctionObjectArgs::default()
        .name("weather")
        .description("Tells the weather.")
        .parameters(json!({"type": "object", "properties": {"city": {"type": "string"}}}))
        .build()
        .expect("a good function");
    let tool = ChatCompletionTools::Function(ChatCompletionTool { function });
    ask().tools(vec![tool]).build().expect("a good request")
}

pub(crate) fn two_calls() -> Script {
    Script::words(0)
        .tool_call("weather", r#"{"city":"Vincennes"}"#)
        .tool_call("weather", r#"{"city":"Loches"}"#)
}

/// The name, id and arguments of each call that a stream makes.
pub(crate) fn calls_of(
    chunks: &[CreateChatCompletionStreamResponse],
) -> Vec<(String, String, String)> {
    let mut calls = Vec::<(String, String, String)>::new();
    let deltas = chunks.iter().flat_map(|chunk| &chunk.choices);
    for piece in deltas.flat_map(|choice| choice.delta.tool_calls.iter().flatten()) {
        let at = piece.index as usize;
        if at == calls.len() {
            calls.push(Default::default());
        }
        let (name, id, arguments) = &mut calls[at];
        id.extend(piece.id.as_deref());
        if let Some(function) = &piece.function {
            name.extend(function.name.as_deref());
            arguments.extend(function.arguments.as_deref());
        }
    }
    calls
}

/// What a stream says, to its end.
pub(crate) async fn streamed(
    client: &Client<OpenAIConfig>,
    request: CreateChatCompletionRequest,
) -> Vec<CreateChatCompletionStreamResponse> {
    let stream = client.chat().create_stream(request).await.expect("served");
    let items: Vec<_> = timeout(SOON, stream.collect()).await.expect("it ends");
    let chunks = items.into_iter().map(|item| item.expect("a chunk"));
    chunks.collect()
}

pub(crate) fn text_of(chunks: &[CreateChatCompletionStreamResponse], index: u32) -> String {
    let choices = chunks.iter().flat_map(|chunk| &chunk.choices);
    choices
        .filter(|choice| choice.index == index)
        .filter_map(|choice| choice.delta.content.as_deref())
        .collect()
}

#[tokio::test]
async fn a_whole_answer() {
    let only = always(Script::answer("A great tower.")).await;
    let gate = Gate::before(&[&only]).await;
    let answer = client(&gate)
        .chat()
        .create(question())
        .await
        .expect("served");
    assert_eq!(answer.object, "chat.completion");
    assert_eq!(answer.model, "gpt-4o");
    assert_eq!(answer.id, "chatcmpl-0");
    let choice = &answer.choices[0];
    assert_eq!(choice.message.content.as_deref(), Some("A great tower."));
    assert_eq!(choice.message.role, Role::Assistant);
    assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
    let usage = answer.usage.expect("usage");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (12, 3));
    assert_eq!(only.count(), 1);
    // The gateway's own key goes to the provider, not the caller's.
    let request = &only.calls()[0].request;
    assert_eq!(request.header("authorization"), Some("Bearer sk-upstream"));
}

#[tokio::test]
async fn a_streamed_answer() {
    let only = always(Script::words(20)).await;
    let gate = Gate::before(&[&only]).await;
    let chunks = streamed(&client(&gate), question()).await;
    let words: String = (0..20).map(|n| format!("w{n} ")).collect();
    assert_eq!(text_of(&chunks, 0), words);
    let deltas = || chunks.iter().flat_map(|chunk| &chunk.choices);
    assert_eq!(
        deltas()
            .filter(|choice| choice.delta.role.is_some())
            .count(),
        1
    );
    let finish: Vec<_> = deltas().filter_map(|choice| choice.finish_reason).collect();
    assert_eq!(finish, [FinishReason::Stop]);
    assert!(chunks.iter().all(|chunk| chunk.id == "chatcmpl-0"));
    assert_eq!(only.count(), 1);
}

#[tokio::test]
async fn tool_calls_whole_and_streamed() {
    let only = always(two_calls()).await;
    let gate = Gate::before(&[&only]).await;
    let client = client(&gate);

    let answer = client.chat().create(with_tool()).await.expect("served");
    let choice = &answer.choices[0];
    assert_eq!(choice.finish_reason, Some(FinishReason::ToolCalls));
    let calls = choice.message.tool_calls.as_deref().expect("calls");
    let cities: Vec<_> = calls
        .iter()
        .map(|call| match call {
            ChatCompletionMessageToolCalls::Function(call) => {
                assert_eq!(call.function.name, "weather");
                (call.id.as_str(), call.function.arguments.as_str())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("call_0", r#"{"city":"Vincennes"}"#),
        ("call_1", r#"{"city":"Loches"}"#),
    ];
    assert_eq!(cities, expected);

    let chunks = streamed(&client, with_tool()).await;
    let calls = calls_of(&chunks);
    let calls = calls.iter().map(|(name, id, arguments)| {
        assert_eq!(name, "weather");
        (id.as_str(), arguments.as_str())
    });
    assert_eq!(calls.collect::<Vec<_>>(), expected);
    assert_eq!(only.count(), 2);
    let tools = &only.calls()[0].request.json["tools"];
    assert_eq!(tools[0]["function"]["name"], "weather");
    assert_eq!(tools[0]["function"]["parameters"]["type"], "object");
}

#[tokio::test]
async fn a_conversation_with_the_result_of_a_tool_goes_up_as_it_was_sent() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    let call = ChatCompletionMessageToolCall {
        id: "call_7".into(),
        function: FunctionCall {
            name: "weather".into(),
            arguments: r#"{"city": "Loches"}"#.into(),
        },
    };
    let assistant = ChatCompletionRequestAssistantMessageArgs::default()
        .tool_calls(vec![ChatCompletionMessageToolCalls::Function(call)])
        .build()
        .expect("a good message");
    let request = ask()
        .messages(vec![
            ChatCompletionRequestSystemMessage::from("Be brief.").into(),
            ChatCompletionRequestUserMessage::from("Does it rain?").into(),
            assistant.into(),
            ChatCompletionRequestToolMessage {
                content: "It pours.".into(),
                tool_call_id: "call_7".into(),
            }
            .into(),
        ])
        .build()
        .expect("a good request");
    let sent = serde_json::to_value(&request).expect("JSON");
    client(&gate).chat().create(request).await.expect("served");
    assert_eq!(only.calls()[0].request.json, sent);
}

#[tokio::test]
async fn several_choices() {
    let only = always(Script::words(3).choices(2)).await;
    let gate = Gate::before(&[&only]).await;
    let client = client(&gate);
    let request = || ask().n(2).build().expect("a good request");

    let answer = client.chat().create(request()).await.expect("served");
    let texts = answer
        .choices
        .iter()
        .map(|choice| choice.message.content.as_deref());
    assert_eq!(texts.collect::<Vec<_>>(), [Some("w0 w1 w2 "); 2]);

    let chunks = streamed(&client, request()).await;
    for index in [0, 1] {
        assert_eq!(text_of(&chunks, index), "w0 w1 w2 ");
    }
    let finished = chunks.iter().flat_map(|chunk| &chunk.choices);
    let finished = finished.filter(|choice| choice.finish_reason.is_some());
    assert_eq!(finished.count(), 2);
    assert_eq!(only.count(), 2);
}

#[tokio::test]
async fn the_list_of_models() {
    let only = steady().await;
    let target = "targets = [{ provider = \"main\" }]";
    let config = format!(
        "{}[[routes]]\nmodel = \"gpt-4o\"\n{target}\n[[routes]]\nmodel = \"org/keep-1\"\n{target}\n\
         [[routes]]\nmodel = \"other-*\"\n{target}\n",
        provider("main", OPENAI, &only)
    );
    let gate = Gate::open(&config).await;
    let client = client(&gate);
    let list = client.models().list().await.expect("a list");
    let names: Vec<_> = list.data.iter().map(|model| model.id.as_str()).collect();
    // A glob names no model.
    assert_eq!(names, ["gpt-4o", "org/keep-1"]);
    let one = client.models().retrieve("gpt-4o").await.expect("a model");
    assert_eq!((one.id.as_str(), one.object.as_str()), ("gpt-4o", "model"));
    let error = failures::refused(client.models().retrieve("gpt-9").await);
    assert_eq!(error.status_code, 404);
    assert_eq!(error.api_error.code.as_deref(), Some("model_not_found"));
    assert_eq!(only.count(), 0);
}
