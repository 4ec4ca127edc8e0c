//! The token count: of a prompt that is counted for the first time in this process, whose messages are known, or that is asked
//! once more. No peer has a layer that counts; what the counting itself costs is in the bench `tokens`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use donjon::{Preset, Stack, failover::Target};
use donjon_benches::meter::Row;
use donjon_budget::{Budgets, Limit};
use donjon_cache::CacheLayer;
use donjon_core::{
    CacheDirective, Chat, LlmError, LlmRequest, LlmResponse, Message, NanoUsd, Prompt,
};
use donjon_rate_limit::{Limit as Quota, RateLimitLayer};
use donjon_token_count::TokenCountLayer;
use tower::{Layer, Service};

use crate::leaf::{LEAF, Model, model, open, request, streamed_request};

const NEW_TURN_LEAF: &str = "leaf, a turn of 1 KB made for each call";
const SAME_TEXTS_LEAF: &str = "leaf, a prompt made for each call";

pub(crate) fn rows() -> Vec<Row> {
    let counted = |pending| layer().layer(model(pending));
    vec![
        Row::above(LEAF, "donjon token count, exact")
            .unary(counted, request)
            .streamed(move || counted(false), streamed_request, open),
        Row::above(LEAF, "donjon token count, estimated")
            .unary(counted, || request().with_model("claude-sonnet-4")),
        Row::above(LEAF, "donjon stack, tokens counted").unary(
            |pending| stack(pending, |preset| preset.token_count(layer())),
            request,
        ),
        Row::above(LEAF, "donjon stack, tokens counted for callers too").unary(
            |pending| {
                stack(pending, |preset| {
                    preset.token_count(layer()).caller_limit(callers())
                })
            },
            request,
        ),
        Row::above(LEAF, "donjon stack, tokens and budget")
            .unary(|pending| stack(pending, counted_and_paid), request),
        Row::above(
            LEAF,
            "donjon stack, tokens, budget and a cache that is written",
        )
        .unary(
            |pending| stack(pending, |preset| counted_and_paid(preset).cache(cache())),
            asked_anew,
        ),
        Row::above(
            LEAF,
            "donjon stack, tokens, budget and a cache that answers",
        )
        .unary(
            |pending| stack(pending, |preset| counted_and_paid(preset).cache(cache())),
            request,
        ),
        Row::leaf(SAME_TEXTS_LEAF).unary(|pending| MakePrompt(same_texts, model(pending)), request),
        Row::above(
            SAME_TEXTS_LEAF,
            "donjon token count, a new prompt of known messages",
        )
        .unary(
            |pending| MakePrompt(same_texts, layer().layer(model(pending))),
            request,
        ),
        Row::leaf(NEW_TURN_LEAF).unary(|pending| MakePrompt(new_turn, model(pending)), request),
        Row::above(NEW_TURN_LEAF, "donjon token count, a new turn of 1 KB").unary(
            |pending| MakePrompt(new_turn, layer().layer(model(pending))),
            request,
        ),
    ]
}

fn layer() -> TokenCountLayer {
    let layer = TokenCountLayer::builder().warm("gpt-4o").build();
    layer.expect("a good configuration")
}

/// Two targets and what else `with` asks for.
fn stack(pending: bool, with: fn(Preset<Model>) -> Preset<Model>) -> Stack<Model> {
    let target = |name| Target::new(name, model(pending));
    let preset = Preset::new().target(target("main")).target(target("spare"));
    with(preset).build().expect("a good configuration")
}

fn counted_and_paid(preset: Preset<Model>) -> Preset<Model> {
    let limit = Limit::hard(NanoUsd::from_dollars(72_000_000));
    let budgets = Budgets::builder().limit(limit).build();
    let budgets = budgets.expect("a good configuration");
    let of_target = || budgets.layer().provider("openai");
    let preset = preset.token_count(layer()).budgets(budgets.clone());
    preset
        .budget_of("main", of_target())
        .budget_of("spare", of_target())
}

fn callers() -> RateLimitLayer {
    let quota = Quota::tokens(1_000_000_000_000).per_minute();
    let limit = RateLimitLayer::builder().limit(quota).for_callers();
    limit.build().expect("a good configuration")
}

fn cache() -> CacheLayer {
    let cache = CacheLayer::builder().strategy(donjon_cache::Strategy::Aggressive);
    cache.build().expect("a good configuration")
}

/// A request whose answer is kept and not looked for.
fn asked_anew() -> LlmRequest {
    let mut request = request();
    let mut directive = CacheDirective::default();
    directive.no_cache = true;
    request.set_cache(directive);
    request
}

/// Gives each call a prompt of its own.
#[derive(Clone)]
struct MakePrompt<S>(fn(&LlmRequest) -> Chat, S);

impl<S: Service<LlmRequest, Response = LlmResponse, Error = LlmError>> Service<LlmRequest>
    for MakePrompt<S>
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.1.poll_ready(cx)
    }

    fn call(&mut self, mut request: LlmRequest) -> S::Future {
        request.set_prompt(Prompt::Chat(self.0(&request)));
        self.1.call(request)
    }
}

fn same_texts(request: &LlmRequest) -> Chat {
    request.as_chat().expect("a chat").clone()
}

/// Two messages that are known and one of 1 KB that nobody has seen.
fn new_turn(request: &LlmRequest) -> Chat {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut text = format!("{} ", NUMBER.fetch_add(1, Relaxed));
    while text.len() < 1_024 {
        text.push_str("The donjon is the strongest tower of a castle, and holds out when the walls have fallen. ");
    }
    let mut chat = same_texts(request);
    let more = [Message::user(text).into()];
    chat.messages = chat.messages.iter().cloned().chain(more).collect();
    chat
}
