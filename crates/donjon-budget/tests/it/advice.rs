//! Forecasts and advice, beside figures that were worked out by hand.

use std::sync::Arc;

use donjon_budget::{Advice, BudgetHandle, Budgets, BudgetsBuilder, Limit, Price, PriceTable};
use donjon_core::{FinishReason, Key, KeyBy, LlmRequest, Message, NanoUsd, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use tower::Layer;

use crate::{Clock, around, builder, passes, tokens};

/// Uses as many tokens as the request expects.
fn as_expected() -> ScriptedLlm {
    ScriptedLlm::from_fn(|request: &LlmRequest| {
        let estimate = request.call.estimate.unwrap_or_default();
        Script::answer("hi").usage(Usage::new(estimate.input, estimate.output))
    })
}

fn forecast(handle: &BudgetHandle, limit: &Limit) -> NanoUsd {
    let standing = handle.standing(&limit.to_string(), &Key::Global);
    standing.expect("there is such a limit").forecast
}

/// The rate is that of the last quarter to half of an hour, or of the period where that is younger.
#[tokio::test(start_paused = true)]
async fn the_forecast_goes_on_as_of_late() {
    const MINUTE: u64 = 60;
    for limit in [
        Limit::hard(tokens(1_000_000)),
        Limit::soft(tokens(1_000_000)),
    ] {
        // It is noon.
        let clock = Clock::new();
        let limit = limit.per_day();
        let builder = builder().clock(clock.wall()).limit(limit.clone());
        let (service, handle) = around(&as_expected(), builder);
        let spend = |tokens| passes(&service, crate::expecting(tokens, 0));
        assert_eq!(forecast(&handle, &limit), tokens(0));
        spend(1_200).await;
        // 1,200 in twelve hours, and twelve are left.
        assert_eq!(forecast(&handle, &limit), tokens(2_400));
        clock.forward(15 * MINUTE);
        spend(300).await;
        // 300 in a quarter of an hour, and 47 quarters are left.
        assert_eq!(forecast(&handle, &limit), tokens(1_500 + 300 * 47));
        clock.forward(10 * MINUTE);
        // The same 300 in 25 minutes, and 695 are left.
        assert_eq!(forecast(&handle, &limit), tokens(1_500 + 300 * 695 / 25));
        clock.forward(5 * MINUTE);
        spend(60).await;
        // 60 in the last quarter of an hour, and 46 quarters are left.
        assert_eq!(forecast(&handle, &limit), tokens(1_560 + 60 * 46));
        // Six in the morning: 100 in six hours, and eighteen are left. What was yesterday is no measure.
        clock.forward(17 * 60 * MINUTE + 30 * MINUTE);
        spend(100).await;
        assert_eq!(forecast(&handle, &limit), tokens(400));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_period_ends_as_it_stands() {
    let limit = Limit::hard(tokens(1_000_000)).rolling(std::time::Duration::from_secs(6_400));
    let clock = Clock::new();
    let builder = builder().clock(clock.wall()).limit(limit.clone());
    let (service, handle) = around(&as_expected(), builder);
    passes(&service, crate::expecting(700, 0)).await;
    clock.forward(1_000);
    passes(&service, crate::expecting(50, 0)).await;
    assert_eq!(forecast(&handle, &limit), tokens(750));
}

/// Dollars for a million tokens.
fn price(input: i64, output: i64) -> Price {
    Price::new(NanoUsd::from_dollars(input), NanoUsd::from_dollars(output))
}

/// Looks at every prompt.
fn looking(prices: PriceTable) -> BudgetsBuilder {
    Budgets::builder()
        .prices(prices)
        .sample_one_in(1)
        .limit(Limit::hard(NanoUsd::from_dollars(1_000)).key_by(KeyBy::Model))
}

fn table(entries: &[(&str, &str, Price)]) -> PriceTable {
    let mut prices = PriceTable::empty();
    for (provider, model, price) in entries {
        prices
            .set(provider, model, price.clone())
            .expect("a good price");
    }
    prices
}

fn asking(model: &str, text: &str) -> LlmRequest {
    LlmRequest::chat(model, [Message::user(text)])
}

#[tokio::test(start_paused = true)]
async fn the_next_cheaper_model_of_the_provider() {
    let prices = table(&[
        ("p", "big", price(10, 30)),
        ("p", "mid", price(2, 8)),
        ("p", "small", price(1, 2)),
        // It gives no answers.
        ("p", "embedding", price(1, 0)),
        // Somebody else's.
        ("q", "other", price(9, 29)),
    ]);
    let script = Script::answer("hi").usage(Usage::new(1_000, 500));
    let (service, handle) = around(&ScriptedLlm::new(script), looking(prices));
    for text in ["one", "two", "three"] {
        passes(&service, asking("big", text)).await;
    }
    passes(&service, asking("small", "four")).await;
    // 3 · (1,000 · $10 + 500 · $30) and 3 · (1,000 · $2 + 500 · $8) for a million.
    let expected = Advice::CheaperModel {
        model: "big".into(),
        instead: "mid".into(),
        attempts: 3,
        cost: NanoUsd::from_nanos(75_000_000),
        would_cost: NanoUsd::from_nanos(18_000_000),
    };
    let saves = expected.saves();
    assert_eq!(handle.advice(), [expected]);
    assert_eq!(saves, NanoUsd::from_nanos(57_000_000));
}

#[tokio::test(start_paused = true)]
async fn prompts_that_come_again_could_be_cached() {
    let prices = table(&[("p", "m", price(1, 2))]);
    let script = Script::answer("hi").usage(Usage::new(1_000, 500));
    let (service, handle) = around(&ScriptedLlm::new(script), looking(prices));
    for text in ["same", "other", "same", "same"] {
        passes(&service, asking("m", text)).await;
    }
    // Each costs 1,000 · $1 + 500 · $2 for a million, and two are repetitions.
    let expected = Advice::CacheAnswers {
        model: "m".into(),
        sampled: 4,
        repeated: 2,
        cost: NanoUsd::from_nanos(4_000_000),
    };
    assert_eq!(handle.advice(), [expected]);
}

/// The sample stands for all in the measure of its cost.
#[tokio::test(start_paused = true)]
async fn what_a_sample_shows_is_scaled() {
    let prices = table(&[("p", "m", price(1, 2))]);
    let script = Script::answer("hi").usage(Usage::new(1_000, 500));
    let builder = looking(prices).sample_one_in(16);
    let (service, handle) = around(&ScriptedLlm::new(script), builder);
    for number in 0..200 {
        // Each is asked twice.
        passes(&service, asking("m", &format!("question {}", number / 2))).await;
    }
    let advice = handle.advice();
    let [
        Advice::CacheAnswers {
            sampled,
            repeated,
            cost,
            ..
        },
    ] = &*advice
    else {
        panic!("{advice:?}");
    };
    assert!((2..=60).contains(sampled), "{sampled} of 200");
    assert_eq!(*repeated * 2, *sampled);
    assert_eq!(*cost, NanoUsd::from_nanos(200 * 2_000_000 / 2));
}

#[tokio::test(start_paused = true)]
async fn prefixes_that_come_again_could_be_read_from_the_providers_cache() {
    let cached = price(1, 2).cache(NanoUsd::from_nanos(100_000_000), NanoUsd::from_dollars(1));
    let instruction: Arc<str> = "word ".repeat(1_600).into();
    let ask = |text: &str| {
        let messages = [Message::system(&*instruction), Message::user(text)];
        LlmRequest::chat("m", messages)
    };
    for read in [0, 1_500] {
        let prices = table(&[("p", "m", cached.clone())]);
        let mut usage = Usage::new(2_010, 10);
        usage.cache_read = read;
        let script = Script::answer("hi").usage(usage);
        let (service, handle) = around(&ScriptedLlm::new(script), looking(prices));
        for text in ["one", "two", "three"] {
            passes(&service, ask(text)).await;
        }
        // 8,000 bytes are some 2,000 tokens; two prompts of three repeat them, and each could cost $0.9 less
        // for a million.
        let expected = Advice::CachePrefixes {
            model: "m".into(),
            sampled: 3,
            tokens: 4_000,
            saves: NanoUsd::from_nanos(3_600_000),
        };
        match read {
            0 => assert_eq!(handle.advice(), [expected]),
            // They are read from it already.
            _ => assert_eq!(handle.advice(), []),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_cut_are_paid_for() {
    let prices = table(&[("p", "m", price(1, 2))]);
    let model = ScriptedLlm::from_fn(|request: &LlmRequest| {
        let script = Script::answer("hi").usage(Usage::new(1_000, 500));
        let asked = request.as_chat().and_then(|chat| chat.messages.last());
        match asked.is_some_and(|asked| asked.text().contains("long")) {
            true => script.finish(FinishReason::Length),
            false => script,
        }
    });
    for streamed in [false, true] {
        let budgets = looking(prices.clone()).build().expect("sensible");
        let service = budgets.layer().provider("p").layer(model.clone());
        for text in ["long 1", "short", "long 2", "short too", "shorter"] {
            let request = asking("m", text);
            let request = if streamed {
                request.streamed()
            } else {
                request
            };
            passes(&service, request).await;
        }
        let expected = Advice::CutAnswers {
            model: "m".into(),
            cut: 2,
            of: 5,
            cost: NanoUsd::from_nanos(4_000_000),
        };
        assert_eq!(budgets.handle().advice(), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_dearest_advice_comes_first() {
    let prices = table(&[("p", "big", price(10, 10)), ("p", "small", price(9, 10))]);
    let script = Script::answer("hi").usage(Usage::new(1_000, 0));
    let (service, handle) = around(&ScriptedLlm::new(script), looking(prices));
    for _ in 0..3 {
        passes(&service, asking("big", "same")).await;
    }
    let saves: Vec<i64> = handle
        .advice()
        .iter()
        .map(|one| one.saves().nanos())
        .collect();
    // Two answers of three from a cache; three at a tenth less.
    assert_eq!(saves, [20_000_000, 3_000_000]);
}
