//! Budgets alone, around a service that is not HTTP: a model in this process, and calls of two tenants. It
//! ends by itself, at once.
//!
//! `cargo run -p donjon-budget --example budget_alone`
#![expect(clippy::print_stdout, reason = "an example that shows what happens")]

use donjon_budget::{Budgets, Limit, Price, PriceTable};
use donjon_core::{
    ChatCompletion, Estimate, Head, Identity, KeyBy, LlmError, LlmRequest, LlmResponse, Message,
    NanoUsd, Usage,
};
use tower::{Layer, Service, ServiceExt, service_fn};

/// Answers with few words, and says what it used.
async fn model(request: LlmRequest) -> Result<LlmResponse, LlmError> {
    let mut answer = ChatCompletion::text("parrot-1", "Hello!");
    answer.usage = Some(Usage::new(1_000, 200));
    Ok(LlmResponse::complete(
        Head::new(request.model().clone()),
        answer,
    ))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut prices = PriceTable::empty();
    let price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(5));
    prices.set("home", "parrot-1", price)?;
    let cent = NanoUsd::from_nanos(10_000_000);
    let budgets = Budgets::builder()
        .prices(prices)
        .limit(Limit::hard(cent).per_day().key_by(KeyBy::Tenant))
        .build()?;
    let handle = budgets.handle();
    let mut service = budgets.layer().provider("home").layer(service_fn(model));

    for number in 0..10 {
        let tenant = if number < 8 { "busy" } else { "calm" };
        let mut request = LlmRequest::chat("parrot-1", [Message::user("Hi")])
            .on_behalf_of(Identity::builder().tenant(tenant).build());
        // 1,000 tokens at $1 and at most 500 at $5 for a million: $0.0035 are held.
        request.call.estimate = Some(Estimate::new(1_000, 500));
        match service.ready().await?.call(request).await {
            Ok(_) => println!("{tenant} was answered"),
            Err(error) => println!("{tenant} was refused: {error}"),
        }
    }

    for (tenant, totals) in handle.report().by_tenant() {
        println!("{tenant}: {} calls, {}", totals.attempts, totals.cost);
    }
    for standing in handle.standings() {
        println!(
            "{}: {} of {} are left",
            standing.key,
            standing.remaining(),
            standing.amount
        );
    }
    Ok(())
}
