//! How much is counted in one call, and how: nobody waits for the counting of a long prompt.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use donjon_core::{Chat, Embed, Function, LlmRequest, Message, Prompt, Tool};
use donjon_token_count::{
    Count, Model, OpenAi, Rules, Sampling, TokenCountBuilder, TokenCountLayer, TokenHandle,
    Tokenizer,
};
use serde_json::value::to_raw_value;

use crate::corpus;

/// Notes the bytes that it is asked for.
#[derive(Debug, Default)]
struct Noted {
    bytes: AtomicUsize,
    quickly: AtomicUsize,
}

impl Tokenizer for Noted {
    fn name(&self) -> &str {
        "noted"
    }

    fn count(&self, text: &str) -> Count {
        self.bytes.fetch_add(text.len(), Relaxed);
        OpenAi::O200k.count(text)
    }

    fn count_quickly(&self, text: &str) -> Count {
        self.quickly.fetch_add(text.len(), Relaxed);
        OpenAi::O200k.count_quickly(text)
    }
}

impl Noted {
    /// The bytes counted since it was asked last, in full and quickly.
    fn take(&self) -> (usize, usize) {
        (self.bytes.swap(0, Relaxed), self.quickly.swap(0, Relaxed))
    }
}

fn noted(builder: TokenCountBuilder) -> (Arc<Noted>, TokenHandle) {
    let noted = Arc::new(Noted::default());
    let model = Model::shared(noted.clone(), Rules::openai());
    let layer = builder.model("m", model).build().expect("sensible");
    (noted, layer.handle())
}

fn chat(messages: impl IntoIterator<Item = String>) -> Chat {
    Chat::new(messages.into_iter().map(Message::user))
}

fn request(chat: Chat) -> LlmRequest {
    LlmRequest::new("m", Prompt::Chat(chat))
}

fn exactly(prompt: &LlmRequest) -> u64 {
    let (_, handle) = noted(TokenCountLayer::builder().sampling(None));
    let count = handle.count(prompt);
    assert!(count.is_exact(), "{count}");
    count.tokens()
}

fn texts(n: usize, bytes: usize) -> Vec<String> {
    (0..n)
        .map(|seed| corpus::long(bytes, seed as u64))
        .collect()
}

/// In full and by samples, and of what is too little for samples.
const MOST: usize = (64 << 10) + 16 * 2_048 + 16;

#[test]
fn by_default_no_call_counts_more_than_a_hundred_kilobytes() {
    let mut tools = chat(["Hi".to_owned()]);
    tools.tools = (0..200)
        .map(|n| {
            let mut function = Function::new(format!("tool_{n}"));
            function.description = Some(corpus::long(2_000, n).into());
            let schema =
                serde_json::json!({"type": "object", "properties": {"a": {"type": "string"}}});
            function.parameters = Some(to_raw_value(&schema).expect("JSON"));
            Tool::function(function)
        })
        .collect();
    let embed = LlmRequest::new("m", Prompt::Embed(Embed::new(texts(1_000, 1_000))));
    for (what, prompt) in [
        ("one long text", request(chat(texts(1, 1 << 20)))),
        ("some long texts", request(chat(texts(10, 100 << 10)))),
        ("many short ones", request(chat(texts(1_000, 1_000)))),
        ("a bit too much", request(chat(texts(66, 1_000)))),
        (
            "long and short",
            request(chat([texts(1, 500 << 10), texts(40, 1_000)].concat())),
        ),
        ("tools", request(tools)),
        ("texts to embed", embed),
    ] {
        let (noted, handle) = noted(TokenCountLayer::builder());
        let count = handle.count(&prompt);
        let (in_full, quickly) = noted.take();
        assert_eq!(in_full, 0, "{what}");
        assert!(quickly <= MOST, "{what}: {quickly}");
        let (again, truth) = (handle.count(&prompt).tokens(), exactly(&prompt));
        let remembered = (again, noted.take());
        assert_eq!(remembered, (count.tokens(), (0, 0)), "{what}");
        let bounds = count.least()..=count.most();
        assert!(bounds.contains(&truth), "{what}: {count}, not {truth}");
        assert!(count.error() < 0.5, "{what}: {count}");
    }
}

#[test]
fn what_is_not_long_is_counted_in_full() {
    let (noted, handle) = noted(TokenCountLayer::builder());
    let prompt = request(chat(texts(60, 1_000)));
    assert_eq!(handle.count(&prompt), Count::Exact(exactly(&prompt)));
    assert!(noted.take().1 >= 60_000);
}

/// A conversation that is met in its middle becomes known from turn to turn, and exact.
#[test]
fn each_turn_counts_some_more_of_a_long_conversation() {
    let (noted, handle) = noted(TokenCountLayer::builder());
    let conversation = texts(100, 4_000);
    let mut turns = 0;
    let last = loop {
        // Made anew, so that only its messages are remembered.
        let count = handle.count(&request(chat(conversation.clone())));
        assert!(noted.take().1 <= MOST);
        turns += 1;
        if count.is_exact() {
            break count;
        }
        assert!(turns < 20, "{count}");
    };
    assert_eq!(last.tokens(), exactly(&request(chat(conversation.clone()))));
    assert!((5..=8).contains(&turns), "{turns}");
    // Then a new turn costs its own message.
    let new = String::from("And what of the walls?");
    let more = [conversation, vec![new.clone()]].concat();
    assert!(handle.count(&request(chat(more))).is_exact());
    assert_eq!(noted.take().1, new.len());
}

#[test]
fn all_is_counted_in_full_where_that_is_asked_for() {
    let (noted, handle) = noted(TokenCountLayer::builder().sampling(None));
    assert!(handle.count(&request(chat(texts(1, 1 << 20)))).is_exact());
    let (in_full, quickly) = noted.take();
    assert!(in_full >= 1 << 20 && quickly == 0);
}

#[test]
fn the_bound_can_be_set() {
    let small = Sampling::above(1_000).samples(4);
    let (noted, handle) = noted(TokenCountLayer::builder().sampling(small));
    assert!(!handle.count(&request(chat(texts(30, 2_000)))).is_exact());
    assert!(noted.take().1 <= 1_000 + 4 * 2_048 + 16);
}

/// What was left to samples is shared among the messages, so that enough of them is left out.
#[test]
fn a_long_history_is_made_short_enough() {
    use donjon_core::shape::Check;
    let model = Model::new(OpenAi::O200k, Rules::openai()).context(40_000);
    let builder = TokenCountLayer::builder().model("m", model).trim(true);
    let layer = builder.default_output(1_000).build().expect("sensible");
    let mut conversation = vec![Message::system("Be brief.")];
    for text in texts(100, 3_000) {
        conversation.extend([Message::user(text), Message::assistant("Yes.")]);
    }
    conversation.push(Message::user("And now?"));
    let mut request = LlmRequest::new("m", Prompt::Chat(Chat::new(conversation)));
    layer.check().check(&mut request).expect("it fits");
    let (left, truth) = (
        request.as_chat().expect("a chat").messages.len(),
        exactly(&request),
    );
    assert!(truth <= 40_000, "{truth}");
    assert!(truth > 30_000, "{truth}: too much is gone");
    assert!(left > 50, "{left}");
}
