//! What providers add to the texts.

use donjon_core::{Chat, Content, Function, LlmRequest, Message, Part, Prompt, Tool, ToolCall};
use donjon_token_count::{Count, OpenAi, TokenCountLayer, Tokenizer};
use serde_json::value::to_raw_value;

fn count(model: &str, chat: Chat) -> Count {
    let handle = TokenCountLayer::default().handle();
    handle.count(&LlmRequest::new(model, Prompt::Chat(chat)))
}

/// The example of OpenAI's cookbook, whose count the API confirmed: 129 tokens for gpt-4 and gpt-3.5,
/// 124 for gpt-4o and gpt-4o-mini.
#[test]
fn messages_and_names() {
    let system = |name: &str, text: &str| {
        let mut message = Message::system(text);
        message.name = Some(name.into());
        message
    };
    let messages = || {
        [
            Message::system(
                "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
            ),
            system(
                "example_user",
                "New synergies will help drive top-line growth.",
            ),
            system(
                "example_assistant",
                "Things working well together will increase revenue.",
            ),
            system(
                "example_user",
                "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
            ),
            system(
                "example_assistant",
                "Let's talk later when we're less busy about how to do better.",
            ),
            Message::user(
                "This late pivot means we don't have time to boil the ocean for the client deliverable.",
            ),
        ]
    };
    assert_eq!(
        count("gpt-4-0613", Chat::new(messages())),
        Count::Exact(129)
    );
    assert_eq!(
        count("gpt-3.5-turbo", Chat::new(messages())),
        Count::Exact(129)
    );
    assert_eq!(count("gpt-4o", Chat::new(messages())), Count::Exact(124));
    assert_eq!(
        count("gpt-4o-mini", Chat::new(messages())),
        Count::Exact(124)
    );
}

/// The cookbook's example of tools: 105 tokens for gpt-3.5 and gpt-4, 101 for gpt-4o.
#[test]
fn tools() {
    let chat = || {
        let mut chat = Chat::new([
            Message::system(
                "You are a helpful assistant that can answer to questions about the weather.",
            ),
            Message::user("What's the weather like in San Francisco?"),
        ]);
        let schema = serde_json::json!({
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        });
        let mut function = Function::new("get_current_weather");
        function.description = Some("Get the current weather in a given location".into());
        function.parameters = Some(to_raw_value(&schema).expect("JSON"));
        chat.tools = [Tool::function(function)].into();
        chat
    };
    assert_eq!(count("gpt-4", chat()), Count::Exact(105));
    assert_eq!(count("gpt-4o", chat()), Count::Exact(101));
    assert_eq!(count("gpt-4o-mini", chat()), Count::Exact(101));
    // Each comes with a prompt of its own.
    let auto = [
        ("claude-3-5-sonnet", 346),
        ("claude-sonnet-4", 313),
        ("claude-opus-4-8", 290),
    ];
    for (model, own) in auto {
        let claude = count(model, chat());
        assert!(
            claude.tokens() > own + 40 && claude.tokens() < own + 250,
            "{claude}"
        );
    }
}

#[test]
fn roles_are_one_token() {
    for role in ["system", "developer", "user", "assistant", "tool"] {
        for encoding in [OpenAi::O200k, OpenAi::Cl100k] {
            assert_eq!(encoding.count(role), Count::Exact(1), "{role}");
        }
    }
}

#[test]
fn tool_calls_and_what_is_unknown_make_it_an_estimate() {
    let mut calls = Message::assistant("");
    calls.tool_calls.push(ToolCall::function(
        "1",
        "get_weather",
        "{\"location\":\"Paris\"}",
    ));
    let count_of = |message| count("gpt-4o", Chat::new([message]));
    let called = count_of(calls);
    assert!(!called.is_exact() && called.error() < 0.5, "{called}");
    let file = Part::other("file", donjon_core::Extra::new());
    let with_file = count_of(Message::user(Content::Parts(vec![
        Part::text("Read this"),
        file,
    ])));
    assert!(!with_file.is_exact() && with_file.most() >= 2_000);
    let mut chat = Chat::new([Message::user("Hi")]);
    let plain = count("gpt-4o", chat.clone());
    let form = serde_json::json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
    chat.response_format = Some(to_raw_value(&form).expect("JSON"));
    let formed = count("gpt-4o", chat);
    assert!(formed.tokens() > plain.tokens() && !formed.is_exact());
}

#[test]
fn images_are_counted_by_their_size() {
    // A PNG of 512 × 512 pixels, as far as its head goes.
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAgAAAAIACAYAAAD0eNT6AAAAAElFTkSuQmCC";
    let count_of = |model: &str, url: &str| {
        let parts = vec![Part::text("What is this?"), Part::image_url(url)];
        let with = count(model, Chat::new([Message::user(Content::Parts(parts))]));
        let without = vec![Part::text("What is this?")];
        let without = count(model, Chat::new([Message::user(Content::Parts(without))]));
        (with.tokens() - without.tokens(), with.is_exact())
    };
    assert_eq!(count_of("gpt-4o", png), (255, true));
    assert_eq!(count_of("gpt-4o-mini", png), (2_833 + 5_667, true));
    assert_eq!(count_of("gpt-4.1-mini", png), (415, true));
    assert_eq!(count_of("claude-sonnet-4", png).0, 361);
    assert_eq!(count_of("gemini-2.5-pro", png).0, 4 * 258);
    assert_eq!(
        count_of("gpt-4o", "https://example.com/a.png"),
        (765, false)
    );
}

/// The examples of Anthropic's guide of counting, which its API answers with 14 and 403 tokens for
/// Claude Opus 5 (<https://platform.claude.com/docs/en/build-with-claude/token-counting>).
#[test]
fn what_anthropic_counts_is_within_the_stated_error() {
    let within = |count: Count, truth: u64| {
        assert!(
            (count.least()..=count.most()).contains(&truth),
            "{count}, not {truth}"
        );
    };
    let hello = Chat::new([
        Message::system("You are a scientist"),
        Message::user("Hello, Claude"),
    ]);
    within(count("claude-opus-5", hello), 14);
    let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        },
        "required": ["location"],
    });
    let mut function = Function::new("get_weather");
    function.description = Some("Get the current weather in a given location".into());
    function.parameters = Some(to_raw_value(&schema).expect("JSON"));
    let mut chat = Chat::new([Message::user("What's the weather like in San Francisco?")]);
    chat.tools = [Tool::function(function)].into();
    within(count("claude-opus-5", chat), 403);
}

/// The examples of Google's guide of counting (<https://ai.google.dev/gemini-api/docs/tokens>): ten each.
#[test]
fn what_google_counts_is_within_the_stated_error() {
    for chat in [
        Chat::new([Message::user(
            "The quick brown fox jumps over the lazy dog.",
        )]),
        Chat::new([
            Message::user("Hi my name is Bob"),
            Message::assistant("Hi Bob!"),
        ]),
    ] {
        let count = count("gemini-2.5-flash", chat);
        assert!((count.least()..=count.most()).contains(&10), "{count}");
    }
}

/// A limit outside of failover gets a figure, and everything passes.
#[test]
fn the_figure_alone_refuses_nothing_and_counts_nothing() {
    use donjon_core::shape::Check;
    let layer = TokenCountLayer::builder()
        .default_output(100)
        .build()
        .expect("sensible");
    let figure = |model: &str, limit: Option<u64>| {
        let mut request = LlmRequest::chat(model, [Message::user("word ".repeat(20_000))]);
        request.edit_chat().expect("a chat").max_tokens = limit;
        let permit = layer.figure().check(&mut request).expect("all pass");
        assert!(permit.is_none(), "it is not watched");
        request.call.estimate.expect("a figure")
    };
    // Too long for GPT-4, which is for the target to say.
    let gpt_4 = figure("gpt-4", None);
    assert!(gpt_4.input > 20_000 && gpt_4.output == 100);
    assert_eq!(figure("gpt-4o", Some(7)).output, 7);
    assert_eq!(figure("gpt-4o", Some(1_000_000)).output, 16_384);
    assert!(layer.handle().models().is_empty());
}
