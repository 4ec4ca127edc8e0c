//! The token count: of a prompt that is counted for the first time in this process, whose messages are known, or that is asked
//! once more. No peer has a layer that counts; what the counting itself costs is in the bench `tokens`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use donjon_benches::meter::Row;
use donjon_core::{Chat, LlmError, LlmRequest, LlmResponse, Message, Prompt};
use donjon_token_count::TokenCountLayer;
use tower::{Layer, Service};

use crate::leaf::{LEAF, model, open, request, streamed_request};

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
