//! Limits, keys, periods.

use std::time::Duration;

use donjon_budget::{BudgetEvent, Budgets, ConfigError, Limit, Period, Refusal, UnknownPrice};
use donjon_core::{Heard, Identity, Key, KeyBy, NanoUsd, Scope, Usage};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{
    Clock, around, builder, expecting, of_tenant, passes, refused, request, standing, tokens,
};

fn model() -> ScriptedLlm {
    ScriptedLlm::new(Script::answer("hi").usage(Usage::new(50, 50)))
}

#[tokio::test(start_paused = true)]
async fn a_hard_limit_refuses_and_says_when_it_resets() {
    let clock = Clock::new();
    let limit = Limit::hard(tokens(250)).per_day();
    let (service, handle) = around(&model(), builder().clock(clock.wall()).limit(limit.clone()));
    passes(&service, expecting(50, 50)).await;
    passes(&service, expecting(50, 50)).await;
    let error = refused(&service, expecting(50, 50)).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(12 * 3_600)));
    assert_eq!(error.scope(), Scope::Caller);
    let source = std::error::Error::source(&error).expect("a source");
    assert!(matches!(
        source.downcast_ref(),
        Some(Refusal::OverBudget { .. })
    ));
    clock.forward(12 * 3_600 - 1);
    refused(&service, expecting(50, 50)).await;
    clock.forward(1);
    passes(&service, expecting(50, 50)).await;
    assert_eq!(
        standing(&handle, &limit, &Key::Global),
        (tokens(100), tokens(0))
    );
    let never = refused(&service, expecting(200, 100)).await;
    assert_eq!(
        (never.retry_after(), never.should_retry()),
        (None, Some(false))
    );
}

#[tokio::test(start_paused = true)]
async fn a_rolling_limit_frees_itself_step_by_step() {
    let clock = Clock::new();
    let limit = Limit::hard(tokens(200)).rolling(Duration::from_secs(6_400));
    let (service, handle) = around(&model(), builder().clock(clock.wall()).limit(limit.clone()));
    passes(&service, expecting(50, 50)).await;
    clock.forward(3_200);
    passes(&service, expecting(50, 50)).await;
    let error = refused(&service, expecting(50, 50)).await;
    let after = error.retry_after().expect("it fits some time").as_secs();
    assert!((3_200..=3_300).contains(&after), "{after}");
    clock.forward(after - 1);
    refused(&service, expecting(50, 50)).await;
    clock.forward(1);
    passes(&service, expecting(50, 50)).await;
    assert_eq!(
        standing(&handle, &limit, &Key::Global),
        (tokens(200), tokens(0))
    );
}

#[tokio::test(start_paused = true)]
async fn all_limits_or_none() {
    let narrow = Limit::hard(tokens(100)).key_by(KeyBy::Tenant);
    let wide = Limit::hard(tokens(1_000));
    let pair = Limit::hard(tokens(900)).by_both(KeyBy::Tenant, KeyBy::Model);
    let builder = builder()
        .limit(wide.clone())
        .limit(pair)
        .limit(narrow.clone());
    let (service, handle) = around(&model(), builder);
    let of = |tenant: &str| expecting(50, 50).on_behalf_of(of_tenant(tenant));
    passes(&service, of("a")).await;
    refused(&service, of("a")).await;
    passes(&service, of("b")).await;
    assert_eq!(
        standing(&handle, &wide, &Key::Global),
        (tokens(200), tokens(0))
    );
    assert_eq!(
        standing(&handle, &narrow, &Key::name("a")),
        (tokens(100), tokens(0))
    );
    assert!(
        handle
            .standings()
            .iter()
            .all(|one| one.reserved == NanoUsd::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn a_soft_limit_is_told_once_a_period() {
    let clock = Clock::new();
    let limit = Limit::soft(tokens(150)).per_day();
    let (service, handle) = around(&model(), builder().clock(clock.wall()).limit(limit));
    let mut events = handle.events().listen();
    let mut told = || std::iter::from_fn(|| events.try_next()).count();
    passes(&service, expecting(50, 50)).await;
    assert_eq!(told(), 0);
    for _ in 0..5 {
        passes(&service, expecting(50, 50)).await;
    }
    assert_eq!(told(), 1);
    clock.forward(24 * 3_600);
    for _ in 0..5 {
        passes(&service, expecting(50, 50)).await;
    }
    assert_eq!(told(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_price_is_refused_allowed_or_told() {
    let unknown = || request().with_model("nobody-knows");
    let (service, _) = around(&model(), builder());
    assert_eq!(refused(&service, unknown()).await.scope(), Scope::Target);
    for (choice, told) in [(UnknownPrice::Allow, false), (UnknownPrice::Alert, true)] {
        let (service, handle) = around(&model(), builder().unknown_price(choice));
        let mut events = handle.events().listen();
        passes(&service, unknown()).await;
        let event = events.try_next();
        assert_eq!(
            matches!(event, Some(Heard::Event(BudgetEvent::Unpriced { .. }))),
            told
        );
        let total = handle.report().total();
        assert_eq!((total.attempts, total.cost), (1, NanoUsd::ZERO));
    }
}

/// A model whose price is known, but not at the tier that is asked for.
#[tokio::test(start_paused = true)]
async fn a_tier_without_a_price_is_an_unknown_price() {
    let asking = || {
        let mut request = expecting(50, 50);
        let chat = request.edit_chat().expect("a chat");
        let tier = serde_json::value::to_raw_value("priority").expect("JSON");
        chat.extra.insert("service_tier", tier);
        request
    };
    let (service, _) = around(&model(), builder());
    refused(&service, asking()).await;
    let (service, handle) = around(&model(), builder().unknown_price(UnknownPrice::Allow));
    passes(&service, asking()).await;
    let total = handle.report().total();
    assert_eq!((total.attempts, total.unpriced), (1, 1));
    assert_eq!(total.cost, tokens(0));
}

#[tokio::test(start_paused = true)]
async fn tags_have_limits_and_reports() {
    let limit = Limit::hard(tokens(100)).by_tag("team");
    let (service, handle) = around(&model(), builder().limit(limit).report_tag("team"));
    let of = |team: &str| {
        expecting(50, 50).on_behalf_of(Identity::builder().tag("team", team).user("u").build())
    };
    passes(&service, of("red")).await;
    refused(&service, of("red")).await;
    passes(&service, of("blue")).await;
    let report = handle.report();
    assert_eq!(report.by_tag("team")["red"].cost, tokens(100));
    assert_eq!(report.by_user()["u"].cost, tokens(200));
}

/// L6: with a store or without, a key whose period is past makes room.
#[tokio::test(start_paused = true)]
async fn keys_of_past_periods_are_forgotten() {
    let clock = Clock::new();
    let limit = Limit::hard(tokens(100)).per_day().key_by(KeyBy::Tenant);
    let builder = builder().clock(clock.wall()).limit(limit).max_keys(1);
    let (service, _) = around(&model(), builder);
    let of = |tenant: &str| expecting(50, 50).on_behalf_of(of_tenant(tenant));
    for tenant in ["a", "b", "c"] {
        passes(&service, of(tenant)).await;
        let error = refused(&service, of("another")).await;
        let source = std::error::Error::source(&error).expect("a source");
        assert!(matches!(source.downcast_ref(), Some(Refusal::Keys { .. })));
        clock.forward(24 * 3_600);
    }
}

#[tokio::test(start_paused = true)]
async fn limits_are_set_and_reset_while_they_are_in_use() {
    let limit = Limit::hard(tokens(100));
    let (service, handle) = around(&model(), builder().limit(limit.clone()));
    let name = limit.to_string();
    passes(&service, expecting(50, 50)).await;
    refused(&service, expecting(50, 50)).await;
    handle.set_limit(&name, tokens(200)).expect("it is there");
    passes(&service, expecting(50, 50)).await;
    handle.reset(&name, &Key::Global).expect("it is there");
    assert_eq!(
        standing(&handle, &limit, &Key::Global),
        (tokens(0), tokens(0))
    );
    assert!(matches!(
        handle.set_limit("x", tokens(1)),
        Err(ConfigError::UnknownLimit(_))
    ));
    assert_eq!(
        handle.set_limit(&name, tokens(0)),
        Err(ConfigError::Amount(tokens(0)))
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let error = |builder: donjon_budget::BudgetsBuilder| builder.build().expect_err("nonsense");
    let dollar = NanoUsd::from_dollars(1);
    let limit = || Limit::hard(dollar);
    assert_eq!(
        error(Budgets::builder().limit(Limit::hard(NanoUsd::ZERO))),
        ConfigError::Amount(NanoUsd::ZERO)
    );
    let twice = error(Budgets::builder().limit(limit()).limit(limit()));
    assert!(matches!(twice, ConfigError::Twice(_)));
    let short = Duration::from_secs(1);
    assert_eq!(
        error(Budgets::builder().limit(limit().per(Period::Rolling(short)))),
        ConfigError::Rolling(short)
    );
    assert_eq!(
        error(Budgets::builder().time_zone("Mars")),
        ConfigError::TimeZone("Mars".into())
    );
    assert_eq!(
        error(Budgets::builder().max_keys(0)),
        ConfigError::ZeroMaxKeys
    );
    assert_eq!(
        error(Budgets::builder().max_lines(0)),
        ConfigError::ZeroMaxLines
    );
}
