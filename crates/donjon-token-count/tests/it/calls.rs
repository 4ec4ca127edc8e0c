//! What the layer does to calls.

use donjon_core::{
    Chat, Embed, ErrorKind, Heard, LlmRequest, LlmService, Message, Origin, Prompt, Scope,
    Snapshot, Usage,
};
use donjon_testkit::{Script, ScriptedLlm};
use donjon_token_count::{
    ConfigError, Count, Estimator, Fit, Model, OpenAi, Registry, Rules, Sampling,
    TokenCountBuilder, TokenCountLayer, TokenEvent, TokenHandle,
};
use tower::Layer;

use crate::{call, send};

fn build(builder: TokenCountBuilder) -> (TokenCountLayer, TokenHandle) {
    let layer = builder.build().expect("sensible");
    let handle = layer.handle();
    (layer, handle)
}

/// Of exactly one token a word, and three more for each message and the answer.
fn small() -> Model {
    let mut rules = Rules::openai();
    rules.per_message = 3;
    Model::new(OpenAi::O200k, rules).context(100).max_output(50)
}

fn words(n: usize) -> String {
    vec!["the"; n].join(" ")
}

fn request(model: &str, n: usize) -> LlmRequest {
    LlmRequest::chat(model, [Message::user(words(n))])
}

fn limited(model: &str, n: usize, output: u64) -> LlmRequest {
    let mut request = request(model, n);
    request.edit_chat().expect("a chat").max_tokens = Some(output);
    request
}

/// The last request that the model got.
async fn passed<S: LlmService + Clone>(
    service: &S,
    leaf: &ScriptedLlm,
    request: LlmRequest,
) -> LlmRequest {
    send(service, request).await.expect("an answer");
    leaf.calls().pop().expect("a call").request
}

#[tokio::test(start_paused = true)]
async fn the_figure_is_on_the_request() {
    let (layer, _) = build(TokenCountLayer::builder().model("small", small()));
    let leaf = ScriptedLlm::new(Script::answer("Hi"));
    let service = layer.layer(leaf.clone());
    let estimate = |request: LlmRequest| request.call.estimate.expect("it was counted");
    let plain = estimate(passed(&service, &leaf, request("small", 10)).await);
    assert_eq!(
        (plain.input, plain.output),
        (16, 50),
        "the model's longest answer"
    );
    let limited_to = estimate(passed(&service, &leaf, limited("small", 10, 7)).await);
    assert_eq!(limited_to.output, 7);
    let mut two = limited("small", 10, 7);
    two.edit_chat().expect("a chat").n = Some(2);
    assert_eq!(
        estimate(passed(&service, &leaf, two).await).output,
        14,
        "two choices"
    );
    let unknown = estimate(passed(&service, &leaf, request("nobody-knows", 10)).await);
    assert_eq!(unknown.output, 4_096);
    let texts = [words(8), words(9)];
    let embed = LlmRequest::embed("small", texts);
    let embed = estimate(call_leaf(&layer, embed).await);
    assert_eq!((embed.input, embed.output), (17, 0));
}

async fn call_leaf(layer: &TokenCountLayer, mut request: LlmRequest) -> LlmRequest {
    use donjon_core::shape::Check;
    layer.check().check(&mut request).expect("it passes");
    request
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_tokens_are_counted_as_such() {
    let embed = donjon_core::EmbedInput::Tokens(vec![vec![1, 2, 3], vec![4]]);
    let mut prompt = Embed::new([""]);
    prompt.input = embed;
    let request = LlmRequest::new("text-embedding-3-small", Prompt::Embed(prompt));
    assert_eq!(
        TokenCountLayer::default().handle().count(&request),
        Count::Exact(4)
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_fit_is_refused_before_it_is_sent() {
    let (layer, handle) = build(TokenCountLayer::builder().model("small", small()));
    let mut events = handle.events().listen();
    let leaf = ScriptedLlm::new(Script::answer("Hi"));
    let service = layer.layer(leaf.clone());
    // 93 words, 3 for the message, 3 for the answer's beginning, and one for the answer.
    send(&service, request("small", 93))
        .await
        .expect("it just fits");
    for (request, why) in [
        (request("small", 94), "no room for a word"),
        (
            limited("small", 50, 45),
            "no room for the answer that is asked for",
        ),
    ] {
        let error = send(&service, request).await.expect_err(why);
        assert_eq!(error.kind(), ErrorKind::ContextLength);
        assert_eq!(error.scope(), Scope::Target, "another model may serve");
        assert_eq!(error.field(), Some("messages"));
        assert!(
            error.message().contains("`small` has room for 100"),
            "{error}"
        );
    }
    assert_eq!(leaf.count(), 1);
    assert_eq!(handle.figures_of("small").refused, 2);
    let refused = |heard| matches!(heard, Some(Heard::Event(TokenEvent::Refused { .. })));
    assert!(refused(events.try_next()) && refused(events.try_next()));
    assert_eq!(events.try_next(), None);
}

#[tokio::test(start_paused = true)]
async fn the_same_prompt_is_counted_for_the_model_that_will_serve() {
    let large = small().context(10_000);
    let builder = TokenCountLayer::builder()
        .model("small", small())
        .model("large", large);
    let (layer, _) = build(builder);
    let service = layer.layer(ScriptedLlm::new(Script::answer("Hi")));
    let long = request("small", 500);
    send(&service, long.clone())
        .await
        .expect_err("it is too long");
    send(&service, long.with_model("large"))
        .await
        .expect("it fits");
}

#[tokio::test(start_paused = true)]
async fn an_estimate_refuses_only_what_is_certain() {
    // A hundred words, give or take.
    let about = Model::new(Estimator::new("about").doubt(0.3), Rules::plain()).context(100);
    let builder = || TokenCountLayer::builder().model("about", about.clone());
    let certain = build(builder())
        .0
        .layer(ScriptedLlm::new(Script::answer("Hi")));
    send(&certain, request("about", 110))
        .await
        .expect("it may fit");
    send(&certain, request("about", 300))
        .await
        .expect_err("it cannot");
    let likely = build(builder().fit(Fit::Likely)).0;
    let likely = likely.layer(ScriptedLlm::new(Script::answer("Hi")));
    send(&likely, request("about", 110))
        .await
        .expect_err("it most likely does not fit");
    let off = build(builder().fit(Fit::Off))
        .0
        .layer(ScriptedLlm::new(Script::answer("Hi")));
    send(&off, request("about", 300))
        .await
        .expect("nobody asks");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_prompt_alone_is_kept_too() {
    let model = small().context(None).max_output(None).max_input(20);
    let (layer, _) = build(TokenCountLayer::builder().model("short", model));
    let service = layer.layer(ScriptedLlm::new(Script::answer("Hi")));
    send(&service, limited("short", 14, 5_000))
        .await
        .expect("it fits");
    let error = send(&service, request("short", 15))
        .await
        .expect_err("too long");
    assert!(error.message().contains("takes 20 of prompt"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_is_left_out_where_that_is_asked_for() {
    let builder = TokenCountLayer::builder()
        .model("small", small())
        .trim(true);
    let (layer, handle) = build(builder.default_output(10));
    let leaf = ScriptedLlm::new(Script::answer("Hi"));
    let service = layer.layer(leaf.clone());
    let conversation = [
        Message::system(words(5)),
        Message::user(words(40)),
        Message::assistant(words(40)),
        Message::user(words(30)),
        Message::assistant(words(20)),
        Message::user(words(10)),
    ];
    let whole = LlmRequest::chat("small", conversation);
    let sent = passed(&service, &leaf, whole.clone()).await;
    let kept: Vec<_> = sent
        .as_chat()
        .expect("a chat")
        .messages
        .iter()
        .map(|m| m.text().len())
        .collect();
    assert_eq!(kept, [5, 30, 20, 10].map(|n| 4 * n - 1));
    // 65 words in four messages.
    assert_eq!(sent.call.estimate.expect("it was counted").input, 80);
    assert_eq!(
        whole.as_chat().expect("a chat").messages.len(),
        6,
        "the caller's is whole"
    );
    assert_eq!(handle.figures_of("small").trimmed, 1);
    // What must stay is too much.
    let error = send(&service, request("small", 200))
        .await
        .expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::ContextLength);
}

#[tokio::test(start_paused = true)]
async fn usage_corrects_estimates() {
    let model = Model::new(Estimator::new("about").doubt(0.5), Rules::plain()).context(100_000);
    let (layer, handle) = build(TokenCountLayer::builder().model("about", model));
    let request = request("about", 200);
    let before = handle.count(&request);
    let actual = before.tokens() * 13 / 10;
    let leaf = ScriptedLlm::new(Script::answer("Hi").usage(Usage::new(actual, 1)));
    let service = layer.layer(leaf);
    for n in 0..100 {
        let request = if n % 2 == 0 {
            request.clone()
        } else {
            request.clone().streamed()
        };
        send(&service, request).await.expect("an answer");
    }
    let after = handle.count(&request);
    assert!(
        after.tokens().abs_diff(actual) <= actual / 50,
        "{after}, not {actual}"
    );
    assert!(after.error() < before.error(), "{before}, then {after}");
    let figures = handle.figures_of("about");
    assert_eq!(
        (figures.calls, figures.reports, figures.actual),
        (100, 100, 100 * actual)
    );
    assert_eq!(figures.within, 100);
    assert!(figures.mean_error().expect("reports") < 0.1);
    let shown = handle.figures();
    let shows = |name: &str| shown.iter().any(|figure| figure.name == name);
    assert!(shows("actual_tokens") && shows("correction"));
}

/// Counted and reported, call by call, by model.
#[tokio::test(start_paused = true)]
async fn figures_compare_what_was_counted_with_what_was_reported() {
    let builder = TokenCountLayer::builder()
        .model("one", small().context(1_000))
        .model("two", small().context(1_000));
    let (layer, handle) = build(builder);
    let leaf = ScriptedLlm::new("Hi");
    let service = layer.layer(leaf.clone());
    // Words counted, tokens reported: the count is the words and six.
    let calls = [
        ("one", 10, 16),
        ("one", 20, 30),
        ("two", 30, 36),
        ("one", 40, 40),
    ];
    for (model, words, reported) in calls {
        leaf.push(Script::answer("Hi").usage(Usage::new(reported, 1)));
        send(&service, request(model, words))
            .await
            .expect("an answer");
    }
    let of = |model: &str| {
        let figures = handle.figures_of(model);
        [
            figures.calls,
            figures.reports,
            figures.estimated,
            figures.actual,
            figures.off,
            figures.within,
        ]
    };
    // 16, 26 and 46 counted; 16, 30 and 40 reported.
    assert_eq!(of("one"), [3, 3, 88, 86, 4 + 6, 1]);
    assert_eq!(of("two"), [1, 1, 36, 36, 0, 1]);
    assert_eq!(of("three"), [0; 6]);
    let error = handle.figures_of("one").mean_error().expect("reports");
    assert!((error - 10.0 / 86.0).abs() < 1e-9);
    assert_eq!(handle.figures_of("three").mean_error(), None);
    let shown = handle.figures();
    let value = |name: &str, model: &str| {
        let labelled = |figure: &&donjon_core::Figure| {
            let mut labels = figure.labels.iter();
            figure.name == name && labels.any(|(key, value)| *key == "model" && *value == model)
        };
        format!(
            "{:?}",
            shown.iter().find(labelled).map(|figure| &figure.value)
        )
    };
    for (name, model, number) in [
        ("estimated_tokens", "one", "88"),
        ("actual_tokens", "one", "86"),
        ("off_tokens", "one", "10"),
        ("within_error", "one", "1"),
        ("actual_tokens", "two", "36"),
    ] {
        assert!(
            value(name, model).contains(&format!("({number}")),
            "{name}: {}",
            value(name, model)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_did_not_count_is_not_learned() {
    let (layer, handle) = build(TokenCountLayer::builder());
    let usage = Usage::new(5_000, 1);
    for origin in [Origin::Cache, Origin::Coalesced] {
        let answer = move |request: LlmRequest| async move {
            let mut head = donjon_core::Head::new(request.model().clone());
            head.origin = origin;
            let mut answer = donjon_core::ChatCompletion::text("m", "Hi");
            answer.usage = Some(usage);
            Ok::<_, donjon_core::LlmError>(donjon_core::LlmResponse::complete(head, answer))
        };
        let service = layer.layer(tower::service_fn(answer));
        send(&service, request("claude-3-haiku", 5_000))
            .await
            .expect("an answer");
    }
    let broken = ScriptedLlm::new(
        Script::words(5)
            .usage(usage)
            .fail_after(2, ErrorKind::StreamBroken),
    );
    let service = layer.layer(broken);
    send(&service, request("claude-3-haiku", 5_000).streamed())
        .await
        .expect_err("it breaks");
    let dropped = layer.layer(ScriptedLlm::new(Script::words(5).usage(usage)));
    drop(
        call(&dropped, request("claude-3-haiku", 5_000).streamed())
            .await
            .expect("a stream"),
    );
    let figures = handle.figures_of("claude-3-haiku");
    assert_eq!((figures.calls, figures.reports), (4, 0));
    assert!(
        handle
            .corrections()
            .iter()
            .all(|correction| correction.reports == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_tokenizer_is_asked_once_for_each_text() {
    #[derive(Debug, Default)]
    struct Asked(std::sync::Mutex<Vec<String>>);
    impl donjon_token_count::Tokenizer for Asked {
        fn name(&self) -> &str {
            "asked"
        }
        fn count(&self, text: &str) -> Count {
            self.0.lock().expect("no panic").push(text.to_owned());
            Count::Exact(1)
        }
    }
    let asked = std::sync::Arc::new(Asked::default());
    let model = Model::shared(asked.clone(), Rules::plain());
    let builder = TokenCountLayer::builder().model("one", model.clone());
    let (layer, _) = build(builder.model("two", model));
    let service = layer.layer(ScriptedLlm::new(Script::answer("Hi")));
    let mut conversation = vec![Message::system("s"), Message::user("first")];
    let turn = |conversation: &[Message]| {
        LlmRequest::new("one", Prompt::Chat(Chat::new(conversation.to_vec())))
    };
    // Several attempts, a target of the same tokenizer, the same texts once more in another request.
    let first = turn(&conversation);
    for request in [
        first.clone(),
        first.clone(),
        first.with_model("two"),
        turn(&conversation),
    ] {
        send(&service, request).await.expect("an answer");
    }
    conversation.extend([Message::assistant("answer"), Message::user("second")]);
    send(&service, turn(&conversation))
        .await
        .expect("an answer");
    let texts = asked.0.lock().expect("no panic").clone();
    assert_eq!(texts, ["s", "first", "answer", "second"]);
}

#[tokio::test(start_paused = true)]
async fn names_that_callers_make_up_do_not_grow_it() {
    let (layer, handle) = build(TokenCountLayer::builder().max_models(10));
    let service = layer.layer(ScriptedLlm::new(Script::answer("Hi")));
    for n in 0..100 {
        send(&service, request(&format!("model-{n}"), 3))
            .await
            .expect("an answer");
    }
    let models = handle.models();
    assert_eq!(models.len(), 11);
    assert_eq!((&*models[10].0, models[10].1.calls), ("", 90));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let builder = TokenCountLayer::builder;
    let error = |builder: TokenCountBuilder| builder.build().expect_err("no sense");
    assert_eq!(
        error(builder().default_output(0)),
        ConfigError::ZeroDefaultOutput
    );
    assert_eq!(error(builder().remember(0)), ConfigError::ZeroRemember);
    assert_eq!(error(builder().max_models(0)), ConfigError::ZeroMaxModels);
    assert_eq!(
        error(builder().sampling(Sampling::above(1).samples(0))),
        ConfigError::ZeroSamples
    );
    let zero = error(builder().model("m", small().max_input(0)));
    assert_eq!(
        zero.to_string(),
        "max_input of the model `m` must be at least 1"
    );
    let above = error(builder().unknown(small().max_output(101)));
    assert_eq!(
        above.to_string(),
        "max_output of the model `unknown` is above its context"
    );
    builder()
        .registry(Registry::empty())
        .warm("any")
        .build()
        .expect("sensible");
}
