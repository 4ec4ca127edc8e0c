//! Over real HTTP: connections are kept, and given up where that ends something.

use std::time::Duration;

use donjon_core::{
    Body, BoxLlmService, ChatCompletion, ErrorKind, FinishReason, LlmError, LlmRequest,
    LlmResponse, Operation, TimeoutClock,
};
use donjon_providers::{
    Anthropic, Codec, Gemini, Ollama, OpenAi, Provider,
    transport::{HttpClient, Proxy},
};
use donjon_testkit::upstream::{Failure, Script, Upstream, Usage};
use futures_util::{StreamExt, future::BoxFuture};
use tower::ServiceExt;

use crate::support::ask;

fn client() -> HttpClient {
    HttpClient::builder()
        .proxy(Proxy::none())
        .build()
        .expect("valid")
}

async fn start(script: Script) -> Upstream {
    Upstream::builder()
        .otherwise(script)
        .start()
        .await
        .expect("a port")
}

async fn call(
    upstream: &Upstream,
    client: &HttpClient,
    request: LlmRequest,
) -> Result<LlmResponse, LlmError> {
    let codec = OpenAi::compatible(upstream.base_url())
        .build()
        .expect("valid");
    Provider::new(codec, client.clone()).oneshot(request).await
}

#[tokio::test]
async fn streams_one_after_the_other_share_a_connection() {
    let upstream = start(Script::answer("one two three")).await;
    let client = client();
    for _ in 0..5 {
        let response = call(&upstream, &client, ask().streamed())
            .await
            .expect("a stream");
        let (_, completion) = response.collect().await.expect("whole");
        assert_eq!(
            completion
                .as_chat()
                .map(|c| c.first_text().into_owned())
                .as_deref(),
            Some("one two three")
        );
        // The rest of the body is read beside; it is there by the time the upstream has written it.
        while client.stats().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(upstream.accepted_connections(), 1);
}

/// A provider in each dialect, with its probe.
struct Each {
    name: &'static str,
    service: BoxLlmService,
    probe: Box<dyn Fn() -> BoxFuture<'static, Result<(), LlmError>>>,
}

impl Each {
    fn of<C>(name: &'static str, codec: C) -> Self
    where
        C: Codec + Send + Sync + 'static,
        C::Decoder: Send + 'static,
    {
        let provider = Provider::new(codec, client());
        Self {
            name,
            service: BoxLlmService::new(provider.clone()),
            probe: Box::new(move || Box::pin(provider.probe())),
        }
    }

    async fn ask(&self, request: LlmRequest) -> Result<ChatCompletion, LlmError> {
        let response = self.service.clone().oneshot(request).await?;
        let (_, completion) = response.collect().await?;
        Ok(completion.as_chat().expect("a chat").clone())
    }
}

fn all(upstream: &Upstream) -> [Each; 4] {
    let (origin, base) = (upstream.origin(), upstream.base_url());
    let openai = OpenAi::compatible(base).api_key("k").build();
    let anthropic = Anthropic::builder().base_url(&origin).api_key("k").build();
    let gemini = Gemini::builder().base_url(format!("{origin}/v1beta"));
    let ollama = Ollama::builder().base_url(&origin).api_key("k").build();
    [
        Each::of("openai", openai.expect("valid")),
        Each::of("anthropic", anthropic.expect("valid")),
        Each::of("gemini", gemini.api_key("k").build().expect("valid")),
        Each::of("ollama", ollama.expect("valid")),
    ]
}

#[tokio::test]
async fn all_dialects_say_the_same() {
    let script = Script::answer("one two three")
        .reasoning("let me count")
        .tool_call("now", r#"{"zone":"UTC"}"#)
        .usage(Usage::new(9, 7));
    let upstream = start(script).await;
    for each in all(&upstream) {
        for request in [ask(), ask().streamed()] {
            let chat = each.ask(request).await.expect(each.name);
            assert_eq!(chat.first_text(), "one two three", "{}", each.name);
            let choice = &chat.choices[0];
            let reasoning = choice.message.reasoning.as_deref();
            assert_eq!(reasoning, Some("let me count"), "{}", each.name);
            let call = &chat.tool_calls()[0];
            assert_eq!(call.name(), Some("now"));
            assert_eq!(call.arguments(), r#"{"zone":"UTC"}"#);
            assert_eq!(choice.finish_reason, Some(FinishReason::ToolCalls));
            let usage = chat.usage.expect("it was told");
            assert_eq!((usage.input, usage.output), (9, 7), "{}", each.name);
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_never_whole_in_any_dialect() {
    let words = || Script::words(6);
    for (script, kinds) in [
        (words().cut_after(3), &[ErrorKind::StreamBroken][..]),
        (words().cut_inside_event(3), &[ErrorKind::StreamBroken]),
        (words().cut_inside_chunk(3), &[ErrorKind::StreamBroken]),
        (words().reset_after(3), &[ErrorKind::StreamBroken]),
        (
            words().no_finish_reason().no_done(),
            &[ErrorKind::Incomplete],
        ),
        // Those whose event has no status of its own tell an error of the server.
        (
            words().error_event_at(3, Failure::overloaded()),
            &[ErrorKind::Overloaded, ErrorKind::ServerError],
        ),
    ] {
        let upstream = start(script.clone()).await;
        for each in all(&upstream) {
            let error = each.ask(ask().streamed()).await.expect_err(each.name);
            let kind = error.kind();
            assert!(kinds.contains(&kind), "{}: {kind:?} {script:?}", each.name);
        }
    }
    let upstream = start(words().cut_after(3)).await;
    for each in all(&upstream) {
        let error = each.ask(ask()).await.expect_err(each.name);
        assert_eq!(error.kind(), ErrorKind::Transport, "{}", each.name);
    }
}

#[tokio::test]
async fn odd_streams_are_whole_in_every_dialect() {
    let script = || Script::answer("one two three");
    let pause = Duration::from_millis(1);
    for script in [
        script().bad_event_at(1),
        script().packets(7),
        script().crlf(),
        script().pings(3, pause).empty_deltas_at(2, 2, pause),
        script().stall_after(2, pause),
        script().unknown_delta(),
    ] {
        let upstream = start(script.clone()).await;
        for each in all(&upstream) {
            let chat = each.ask(ask().streamed()).await;
            let chat = chat.unwrap_or_else(|error| panic!("{}: {error} {script:?}", each.name));
            assert_eq!(chat.first_text(), "one two three", "{}", each.name);
        }
    }
}

#[tokio::test]
async fn refusals_have_their_kind_in_every_dialect() {
    use ErrorKind as K;
    for (failure, kinds) in [
        (Failure::rate_limited(), [K::RateLimited; 4]),
        (
            Failure::insufficient_quota(),
            [
                K::QuotaExhausted,
                K::QuotaExhausted,
                K::QuotaExhausted,
                K::RateLimited,
            ],
        ),
        (Failure::invalid_api_key(), [K::Authentication; 4]),
        (Failure::permission_denied(), [K::PermissionDenied; 4]),
        (Failure::model_not_found(), [K::ModelNotFound; 4]),
        (Failure::context_length_exceeded(), [K::ContextLength; 4]),
        (
            Failure::content_policy(),
            [
                K::ContentPolicy,
                K::ContentPolicy,
                K::ContentPolicy,
                K::InvalidRequest,
            ],
        ),
        (Failure::server_error(), [K::ServerError; 4]),
        (Failure::bad_gateway(), [K::Unavailable; 4]),
        (Failure::overloaded(), [K::Overloaded; 4]),
    ] {
        let upstream = start(Script::fail(failure.clone())).await;
        for (each, kind) in all(&upstream).iter().zip(kinds) {
            for request in [ask(), ask().streamed()] {
                let streamed = request.is_stream();
                let error = each.ask(request).await.expect_err(each.name);
                let name = each.name;
                assert_eq!(error.kind(), kind, "{name} {streamed}: {error} {failure:?}");
            }
        }
    }
}

#[tokio::test]
async fn embeddings_are_the_same_from_openai_and_ollama() {
    let upstream = start(Script::words(1)).await;
    let [openai, _, gemini, ollama] = all(&upstream);
    for each in [openai, ollama] {
        let request = LlmRequest::embed("e-1", ["a", "keep"]);
        let response = each.service.oneshot(request).await.expect(each.name);
        let (_, completion) = response.collect().await.expect("whole");
        assert_eq!(completion.operation(), Operation::Embed);
        let vectors = completion.as_embed().expect("vectors");
        assert_eq!(&vectors.data[1].vector[..], &[4.0, 1.0]);
        assert_eq!(vectors.usage.map(|usage| usage.input), Some(12));
    }
    let none = gemini
        .service
        .oneshot(LlmRequest::embed("e-1", ["a"]))
        .await;
    assert_eq!(
        none.expect_err("it has none").kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_probe_lists_models_and_says_what_is_wrong() {
    let builder = Upstream::builder().api_key("k");
    let upstream = builder.start().await.expect("a port");
    for each in all(&upstream) {
        (each.probe)().await.expect(each.name);
        upstream.refuse_listings(Failure::service_unavailable());
        let error = (each.probe)().await.expect_err(each.name);
        let known = [ErrorKind::Overloaded, ErrorKind::Unavailable];
        assert!(known.contains(&error.kind()), "{}: {error}", each.name);
        assert_eq!(error.status(), Some(503));
        upstream.refuse_listings(None);
    }
    assert_eq!((upstream.count(), upstream.seen().listings), (0, 8));
    let closed = upstream.clone();
    let all = all(&closed);
    drop((upstream, closed));
    for each in all {
        let error = (each.probe)().await.expect_err(each.name);
        assert_eq!(error.kind(), ErrorKind::Connect, "{}", each.name);
    }
}

#[tokio::test]
async fn leaving_a_stream_ends_it_upstream() {
    let upstream = start(Script::words(1000).gap(Duration::from_millis(5))).await;
    let client = client();
    let response = call(&upstream, &client, ask().streamed())
        .await
        .expect("a stream");
    let Body::Stream(mut stream) = response.body else {
        panic!("a stream was asked for")
    };
    stream.next().await.expect("an item").expect("a chunk");
    drop(stream);
    let seen = tokio::time::timeout(
        Duration::from_secs(5),
        upstream.wait_for(|seen| seen.cancelled() == 1),
    );
    seen.await.expect("the upstream hears of it");
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test]
async fn failures_have_their_kind() {
    let unused =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let codec = OpenAi::compatible(format!("http://{}/v1", unused.expect("a port"))).build();
    let error = Provider::new(codec.expect("valid"), client())
        .oneshot(ask())
        .await;
    assert_eq!(error.expect_err("an error").kind(), ErrorKind::Connect);

    let reset = start(Script::reset()).await;
    let error = call(&reset, &client(), ask()).await.expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert_ne!(error.kind(), ErrorKind::Timeout(TimeoutClock::Connect));
}
