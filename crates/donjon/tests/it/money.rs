//! Cache, budget, limits, retries and counted tokens together.

use std::time::Duration;

use donjon::{
    BoxLlmService, CommitLayer, ErrorKind, Estimate, Key, LlmError, LlmRequest, Message, NanoUsd,
    Origin, Preset, TimeoutClock, Usage,
    budget::{Budgets, Limit, Price, PriceTable},
    cache::{CacheLayer, Strategy},
    failover::Target,
    pool::PoolLayer,
    rate_limit::{Limit as Quota, RateLimitLayer},
    retry::RetryLayer,
    token_count::{Estimator, Model, Registry, Rules, TokenCountLayer},
};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, Service, ServiceExt};

/// $1 a million tokens of prompt, $10 of answer.
fn prices() -> PriceTable {
    let mut prices = PriceTable::empty();
    let price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(10));
    for model in ["m", "small", "large"] {
        prices.set("home", model, price.clone()).expect("sensible");
    }
    prices
}

fn budgets(dollars: i64) -> Budgets {
    let limit = Limit::hard(NanoUsd::from_dollars(dollars)).per_day();
    let budgets = Budgets::builder().prices(prices()).limit(limit).build();
    budgets.expect("sensible")
}

fn cost(input: i64, output: i64) -> NanoUsd {
    NanoUsd::from_nanos(input * 1_000 + output * 10_000)
}

fn request() -> LlmRequest {
    let mut request = LlmRequest::chat("m", [Message::user("What is a donjon?")]);
    request.call.estimate = Some(Estimate::new(100, 50));
    request
}

/// Every order of `things`.
fn orders<T: Copy>(things: &[T]) -> Vec<Vec<T>> {
    if things.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in things.iter().enumerate() {
        let rest = [&things[..at], &things[at + 1..]].concat();
        for mut order in orders(&rest) {
            order.insert(0, *first);
            all.push(order);
        }
    }
    all
}

/// L8: whatever the order, a hit is never billed and every attempt is that the provider bills.
#[tokio::test(start_paused = true)]
async fn in_whatever_order_layers_stand_a_hit_is_free_and_every_billed_attempt_is_paid() {
    for order in orders(&["cache", "budget", "limit", "retry"]) {
        for streamed in [false, true] {
            // The first is waited for in vain, and may have worked all the while; the second is
            // refused, and is not billed; the third answers.
            let vain = ErrorKind::Timeout(TimeoutClock::FirstToken);
            let model = ScriptedLlm::new(Script::answer("A keep.").usage(Usage::new(90, 10)))
                .then(Script::fail(vain))
                .then(Script::fail(ErrorKind::Overloaded));
            let again = |error: &LlmError| {
                let mut row = error.disposition();
                row.retry = true;
                row
            };
            let retry = RetryLayer::builder()
                .classify(again)
                .build()
                .expect("sensible");
            let budgets = budgets(1);
            let limit = RateLimitLayer::builder().limit(Quota::tokens(1_000_000).per_day());
            let limit = limit.build().expect("sensible");
            let cache = CacheLayer::builder().strategy(Strategy::Aggressive);
            let cache = cache.build().expect("sensible");
            let mut stack = BoxLlmService::new(CommitLayer::new().layer(model.clone()));
            for layer in order.iter().rev() {
                stack = match *layer {
                    "cache" => BoxLlmService::new(cache.layer(stack)),
                    "budget" => BoxLlmService::new(budgets.layer().provider("home").layer(stack)),
                    "limit" => BoxLlmService::new(limit.layer(stack)),
                    _ => BoxLlmService::new(retry.layer(stack)),
                };
            }
            let mut ask = async || {
                let request = if streamed {
                    request().streamed()
                } else {
                    request()
                };
                let answer = stack.ready().await.expect("ready").call(request).await;
                let answer = answer.expect("served");
                let origin = answer.head.origin;
                answer.collect().await.expect("whole");
                origin
            };
            let what = format!("{order:?}, streamed: {streamed}");
            assert_eq!(ask().await, Origin::Upstream, "{what}");
            // The prompt of the first attempt, and all of the third.
            let paid = cost(100, 0) + cost(90, 10);
            let spent = || budgets.handle().report().total().cost;
            assert_eq!(spent(), paid, "{what}");
            let used = || limit.handle().peek(&donjon::Key::Global)[0].used;
            assert_eq!(used(), 200, "{what}");
            for _ in 0..5 {
                assert_eq!(ask().await, Origin::Cache, "{what}");
            }
            assert_eq!((spent(), used()), (paid, 200), "{what}");
            assert_eq!(model.count(), 3, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_too_long_for_one_model_goes_to_a_larger_one_and_is_paid_there() {
    let counted = |context| Model::new(Estimator::new("words"), Rules::chatml()).context(context);
    let tokens = TokenCountLayer::builder()
        .model("small", counted(200))
        .model("large", counted(100_000))
        .build()
        .expect("sensible");
    let (small, large) = (ScriptedLlm::new("hi"), ScriptedLlm::new("hi"));
    let target = |name: &'static str, model: &ScriptedLlm| {
        Target::new(name, BoxLlmService::new(model.clone())).with_model(name)
    };
    let budgets = budgets(1);
    let mut stack = Preset::new()
        .target(target("small", &small))
        .target(target("large", &large))
        .token_count(tokens)
        .budget_of("small", budgets.layer().provider("home"))
        .budget_of("large", budgets.layer().provider("home"))
        .budgets(budgets.clone())
        .build()
        .expect("sensible");
    let mut ask = async |words: usize| {
        let mut request = LlmRequest::chat("m", [Message::user("word ".repeat(words))]);
        request.edit_chat().expect("a chat").max_tokens = Some(50);
        let answer = stack.ready().await.expect("ready").call(request).await;
        answer.expect("served").head.target.expect("a target")
    };
    assert_eq!(&*ask(10).await, "small");
    assert_eq!(&*ask(1_000).await, "large");
    assert_eq!((small.count(), large.count()), (1, 1));
    let report = budgets.handle().report();
    let models = report.by_model();
    let lines: Vec<_> = models.keys().map(ToString::to_string).collect();
    assert!(lines.iter().any(|name| name.contains("large")), "{lines:?}");
    let tokens = stack.tokens().expect("counted");
    assert!(tokens.models().len() >= 2);
}

/// A tenant's quota and the provider's see a hit as little as the budget does.
#[tokio::test(start_paused = true)]
async fn in_the_preset_a_hit_passes_nothing_that_costs() {
    let model = ScriptedLlm::new(Script::answer("A keep.").usage(Usage::new(90, 10)));
    let callers = RateLimitLayer::builder().limit(Quota::requests(1).per_day());
    let callers = callers
        .max_wait(Duration::from_millis(1))
        .for_callers()
        .build();
    let budgets = budgets(1);
    let cache = CacheLayer::builder().strategy(Strategy::Aggressive).build();
    let mut stack = Preset::new()
        .target(Target::new("home", BoxLlmService::new(model.clone())))
        .cache(cache.expect("sensible"))
        .caller_limit(callers.expect("sensible"))
        .budget_of("home", budgets.layer().provider("home"))
        .budgets(budgets)
        .build()
        .expect("sensible");
    for turn in 0..10 {
        let request = if turn % 2 == 0 {
            request()
        } else {
            request().streamed()
        };
        let answer = stack.ready().await.expect("ready").call(request).await;
        assert_eq!(
            answer.expect("served").text().await.expect("whole"),
            "A keep."
        );
    }
    assert_eq!(model.count(), 1);
    assert_eq!(stack.cache().expect("a cache").hits(), 9);
    assert_eq!(stack.budgets().expect("budgets").settled(), 1);
    let names: Vec<_> = stack.snapshots().iter().map(|of| of.layer()).collect();
    for layer in ["cache", "single_flight", "budget"] {
        assert!(names.contains(&layer), "{names:?}");
    }
}

/// A call that the budget has reserved for, and that waits in the pool while the circuit opens, is refused at
/// dispatch: it was never sent, and all is given back.
#[tokio::test(start_paused = true)]
async fn what_was_never_sent_costs_nothing() {
    let answer = Script::answer("A keep.").usage(Usage::new(90, 10));
    let model = ScriptedLlm::new(answer.head_after(Duration::from_secs(1)));
    let budgets = budgets(1);
    let stack = Preset::new()
        .target(Target::new("home", BoxLlmService::new(model.clone())))
        .retry(
            RetryLayer::builder()
                .max_attempts(1)
                .build()
                .expect("sensible"),
        )
        .pool(PoolLayer::builder().size(1))
        .budget_of("home", budgets.layer().provider("home"))
        .budgets(budgets)
        .build()
        .expect("sensible");
    let ask = || {
        let mut stack = stack.clone();
        async move {
            let answer = stack.ready().await?.call(request()).await?;
            answer.text().await
        }
    };
    let standing = || stack.budgets().expect("budgets").standings().remove(0);
    let one = cost(100, 50);
    let open = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((standing().reserved, model.count()), (one + one, 1));
        let breaker = stack.target("home").and_then(|of| of.breaker);
        let circuit = breaker.expect("a circuit").circuit_or_new(&Key::Global);
        circuit.expect("room").force_open();
    };
    let (served, refused, ()) = tokio::join!(ask(), ask(), open);
    assert_eq!(served.expect("served"), "A keep.");
    let refused = refused.expect_err("the circuit is open");
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
    assert_eq!(model.count(), 1);
    let now = standing();
    assert_eq!((now.spent, now.reserved), (cost(90, 10), NanoUsd::ZERO));
    let report = stack.budgets().expect("budgets").report();
    assert_eq!(report.total().cost, cost(90, 10));
}

/// A limit of callers' tokens stands outside of failover, and is charged what was counted all the same.
#[tokio::test(start_paused = true)]
async fn a_limit_of_callers_is_charged_what_was_counted() {
    let answer = Script::answer("A keep.").no_usage();
    let model = ScriptedLlm::new(answer.head_after(Duration::from_secs(1)));
    let counted = |context| Model::new(Estimator::new("words"), Rules::chatml()).context(context);
    let tokens = TokenCountLayer::builder()
        // Too small for the second call, which is the target's to say.
        .model("m", counted(200))
        .model("large", counted(100_000))
        .default_output(70)
        .build()
        .expect("sensible");
    let quota = Quota::tokens(1_000_000).per_day();
    let callers = RateLimitLayer::builder().limit(quota).for_callers().build();
    let mut stack = Preset::new()
        .target(Target::new("large", BoxLlmService::new(model.clone())).with_model("large"))
        .token_count(tokens.clone())
        .caller_limit(callers.expect("sensible"))
        .build()
        .expect("sensible");
    let mut before = 0;
    for words in [10, 2_000] {
        let request = LlmRequest::chat("m", [Message::user("word ".repeat(words))]);
        let counted = tokens.handle().count(&request).tokens();
        let limit = stack.caller_limit().expect("a limit").clone();
        let used = || limit.peek(&Key::Global)[0].used - before;
        let under_way = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            used()
        };
        let call = stack.ready().await.expect("ready").call(request);
        let (answer, reserved) = tokio::join!(call, under_way);
        assert_eq!(reserved, counted + 70, "{words}");
        answer.expect("served").collect().await.expect("whole");
        // Of the answer only what came is paid.
        let used = used();
        assert!((counted + 1..counted + 10).contains(&used), "{used}");
        before += used;
    }
    assert!(before > 2_000);
    // Nothing of it is in the figures, which are the targets'.
    let models = tokens.handle().models();
    let names: Vec<_> = models
        .iter()
        .map(|(name, figures)| (&**name, figures.calls))
        .collect();
    assert_eq!(names, [("large", 2)]);
}

/// What the list of prices says of a model is not denied by what is known of its window.
#[test]
fn prices_and_windows_agree() {
    let models = Registry::known();
    let mut apart = Vec::new();
    for (_, name, price) in PriceTable::embedded().iter() {
        let Some((_, model)) = models.get(name) else {
            apart.push(format!("{name}: no window"));
            continue;
        };
        let takes = model.max_input.or(model.context).unwrap_or(u64::MAX);
        let longest = price.max_output.filter(|most| *most > 0);
        if let (Some(priced), Some(known)) = (longest, model.max_output)
            && priced != known
        {
            apart.push(format!("{name}: answers of {priced} and of {known}"));
        }
        if longest.is_some_and(|most| most > model.context.unwrap_or(u64::MAX)) {
            apart.push(format!("{name}: an answer longer than its window"));
        }
        // These took longer prompts until April 2026, by a header of a trial, and that was their price.
        let trial = ["claude-sonnet-4", "claude-sonnet-4-5"].contains(&name);
        if !trial && price.long_context.iter().any(|long| long.above >= takes) {
            apart.push(format!("{name}: a price for prompts that it does not take"));
        }
    }
    assert!(apart.is_empty(), "{apart:#?}");
}
