//! The laws of every layer.

use donjon_core::Message;
use donjon_core::{LlmRequest, Usage};
use donjon_testkit::{Script, contract};
use donjon_token_count::{Fit, TokenCountLayer};
use tower::Layer;

use crate::send;

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| TokenCountLayer::default().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn so_it_does_with_everything_on() {
    let build = || {
        TokenCountLayer::builder()
            .trim(true)
            .fit(Fit::Likely)
            .cautious(true)
            .build()
    };
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_learn_together() {
    let layer = TokenCountLayer::default();
    let handle = layer.handle();
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, leaf| {
            leaf.set_otherwise(Script::answer("Hi").usage(Usage::new(300, 1)));
            let request = LlmRequest::chat("claude-sonnet-4", [Message::user("word ".repeat(200))]);
            send(&service, request.clone()).await.expect("an answer");
            handle.count(&request).tokens()
        },
    )
    .await;
}
