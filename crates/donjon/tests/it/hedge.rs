//! Hedges around failover, and what all the others make of them.

use std::time::Duration;

use donjon::{
    AttemptCause, BoxLlmService, CommitLayer, ErrorKind, Estimate, LlmError, LlmRequest,
    LlmResponse, Message, NanoUsd, Preset, Stack, Usage,
    budget::{Budgets, Limit, Price, PriceTable},
    circuit_breaker::BreakerLayer,
    failover::{Failover, FailoverBuilder, HealthPolicy, RoundRobin, Target, TargetStatus},
    hedge::{HedgeBuilder, HedgeDelay, HedgeLayer, Measured},
    rate_limit::{Limit as Quota, RateLimitLayer},
    retry::{Backoff, RetryBudget, RetryLayer},
};
use donjon_testkit::{
    Script, ScriptedLlm, contract,
    probe::{EndLog, collect_text},
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const NAMES: [&str; 3] = ["a", "b", "c"];

fn model(script: impl Into<Script>) -> ScriptedLlm {
    ScriptedLlm::new(script).commits()
}

fn slow(wait: Duration) -> Script {
    Script::answer("served")
        .first_token_after(wait)
        .usage(Usage::new(90, 10))
}

fn fails(after: Duration) -> Script {
    Script::fail(ErrorKind::Unavailable).head_after(after)
}

/// A hedge after a second, as often as one likes.
fn after_a_second() -> HedgeBuilder {
    HedgeLayer::builder().delay(SECOND).budget(1.0)
}

fn request() -> LlmRequest {
    let mut request = LlmRequest::chat("m", [Message::user("What is a donjon?")]).streamed();
    request.call.estimate = Some(Estimate::new(100, 50));
    request
}

fn builder<S: Clone>(services: &[S]) -> FailoverBuilder<S> {
    let targets = NAMES.iter().zip(services);
    Failover::builder().targets(targets.map(|(name, service)| Target::new(*name, service.clone())))
}

fn failover<S: Clone>(services: &[S]) -> Failover<S> {
    builder(services).build().expect("a good configuration")
}

fn built(hedge: HedgeBuilder) -> HedgeLayer {
    hedge.build().expect("sensible")
}

async fn ask<S>(service: &S, request: LlmRequest) -> Result<LlmResponse, LlmError>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let call = service.clone().oneshot(request);
    tokio::time::timeout(3600 * SECOND, call)
        .await
        .expect("it hangs")
}

fn counts(models: &[ScriptedLlm]) -> Vec<usize> {
    models.iter().map(ScriptedLlm::count).collect()
}

fn preset(models: &[ScriptedLlm], hedge: HedgeBuilder) -> Preset<ScriptedLlm> {
    let targets = NAMES.into_iter().zip(models);
    targets.fold(
        Preset::new().hedge(built(hedge)),
        |preset, (name, model)| preset.target(Target::new(name, model.clone())),
    )
}

fn stack(models: &[ScriptedLlm], hedge: HedgeBuilder) -> Stack<ScriptedLlm> {
    preset(models, hedge).build().expect("a good configuration")
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_another_target_and_its_loser_is_gone() {
    let models = [model(slow(9 * SECOND)), model(slow(SECOND)), model("c")];
    let layer = built(after_a_second());
    let service = layer.layer(failover(&models));
    let mut request = request();
    let ledger = request.call.begin().clone();
    let began = Instant::now();
    let answer = ask(&service, request).await.expect("b serves");
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(answer.head.target.as_deref(), Some("b"));
    assert_eq!(counts(&models), [1, 1, 0]);
    assert_eq!((models[0].in_progress(), models[0].cancelled()), (0, 1));
    assert_eq!(
        (ledger.targets(), ledger.untried(), ledger.sent()),
        (3, 1, 2)
    );
    assert_eq!(collect_text(answer).await.expect("whole"), "served");
    let hedge = ledger.attempts().find(|a| a.cause == AttemptCause::Hedge);
    let parent = hedge.expect("a hedge").parent.expect("what it is beside");
    let beside = ledger.attempts().nth(parent as usize).expect("there");
    assert_eq!(beside.target.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn what_all_targets_say_is_told_once() {
    let models = [
        model(fails(3 * SECOND)),
        model(fails(SECOND)),
        model(fails(SECOND)),
    ];
    let layer = built(after_a_second());
    let error = ask(&layer.layer(failover(&models)), request()).await;
    let error = error.expect_err("all fail");
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    let reasons: Vec<_> = error.attempts().iter().map(|a| &*a.target).collect();
    assert_eq!(reasons, ["a", "b", "c"]);
    assert_eq!(counts(&models), [1, 1, 1]);
}

/// Hedges always win against it, and it is found out all the same.
#[tokio::test(start_paused = true)]
async fn a_slow_target_is_taken_out_although_hedges_hide_it() {
    let models = [model(slow(60 * SECOND)), model(slow(SECOND / 10))];
    let policy = HealthPolicy::new()
        .slow_first_token(SECOND)
        .consecutive_failures(5);
    let failover = builder(&models).health(policy).build().expect("good");
    let handle = failover.handle();
    let service = built(after_a_second()).layer(failover);
    for call in 0..10 {
        let answer = ask(&service, request()).await.expect("b serves");
        assert_eq!(answer.head.target.as_deref(), Some("b"));
        collect_text(answer).await.expect("whole");
        let status = handle.target("a").expect("it is there").status;
        let out = matches!(status, TargetStatus::Out { .. });
        assert_eq!(out, call >= 4, "after {call}: {status:?}");
    }
    assert_eq!(counts(&models), [5, 10]);
}

#[tokio::test(start_paused = true)]
async fn so_it_is_by_its_circuit() {
    let models = [model(slow(60 * SECOND)), model(slow(SECOND / 10))];
    let breaker = BreakerLayer::builder()
        .slow_first_token(SECOND)
        .slow_rate(0.5)
        .minimum_calls(5);
    let stack = preset(&models, after_a_second()).breaker(breaker).build();
    let stack = stack.expect("a good configuration");
    for _ in 0..10 {
        let answer = stack.send(request()).await.expect("b serves");
        assert_eq!(answer.head.target.as_deref(), Some("b"));
        collect_text(answer).await.expect("whole");
    }
    assert_eq!(counts(&models), [5, 10]);
}

fn budgets() -> Budgets {
    let mut prices = PriceTable::empty();
    let price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(10));
    prices.set("home", "m", price).expect("sensible");
    let limit = Limit::hard(NanoUsd::from_dollars(10)).per_day();
    let budgets = Budgets::builder().prices(prices).limit(limit).build();
    budgets.expect("sensible")
}

/// The prompt of the loser, and all of the winner, wherever the account stands; and once each.
#[tokio::test(start_paused = true)]
async fn the_loser_is_paid_for() {
    for (first, second) in [(9 * SECOND, SECOND), (3 * SECOND / 2, 9 * SECOND)] {
        for outside in [false, true] {
            let models = [model(slow(first)), model(slow(second))];
            let budgets = budgets();
            let limit = RateLimitLayer::builder()
                .limit(Quota::tokens(1_000_000).per_day())
                .limit(Quota::requests(1_000).per_day());
            let limit = limit.build().expect("sensible");
            let accounts = |service: BoxLlmService| {
                let paid = budgets.layer().provider("home").layer(service);
                BoxLlmService::new(limit.layer(paid))
            };
            let inner = models.clone().map(|model| {
                let model = BoxLlmService::new(CommitLayer::new().layer(model));
                if outside { model } else { accounts(model) }
            });
            let hedged = built(after_a_second()).layer(failover(&inner));
            let service = match outside {
                true => accounts(BoxLlmService::new(hedged)),
                false => BoxLlmService::new(hedged),
            };
            let answer = ask(&service, request()).await.expect("served");
            collect_text(answer).await.expect("whole");
            assert_eq!(counts(&models), [1, 1]);
            let spent = budgets.handle().report().total().cost;
            assert_eq!(
                spent,
                NanoUsd::from_nanos(100_000 + 90_000 + 100_000),
                "{outside}"
            );
            assert_eq!(budgets.handle().admitted(), budgets.handle().settled());
            let left: Vec<_> = limit.handle().peek(&donjon::Key::Global);
            let left: Vec<_> = left.iter().map(|s| s.remaining()).collect();
            let requests = if outside { 999 } else { 998 };
            assert_eq!(left, [1_000_000 - 200, requests], "outside: {outside}");
        }
    }
}

/// A hundred calls a second, and a target of three that turns slow: the 99th percentile of the time to
/// first token, and how many attempts it took.
async fn simulate<S>(service: S, models: &[ScriptedLlm], calls: u32) -> (Duration, usize)
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let before: usize = counts(models).iter().sum();
    let mut took = join_all((0..calls).map(|n| {
        let service = service.clone();
        async move {
            sleep(n * 10 * MILLI).await;
            let began = Instant::now();
            let answer = ask(&service, request()).await.expect("served");
            let took = began.elapsed();
            collect_text(answer).await.expect("whole");
            took
        }
    }))
    .await;
    took.sort_unstable();
    let sent = counts(models).iter().sum::<usize>() - before;
    (took[took.len() * 99 / 100], sent)
}

fn random(from: u64, to: u64) -> ScriptedLlm {
    let random = std::sync::Mutex::new(fastrand_like(from));
    ScriptedLlm::from_fn(move |_| {
        let mut state = random.lock().expect("no panic");
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let millis = from + (*state >> 33) % (to - from);
        slow(Duration::from_millis(millis))
    })
    .commits()
}

fn fastrand_like(seed: u64) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[tokio::test(start_paused = true)]
async fn the_tail_of_the_latency_falls_fourfold() {
    let models = || [random(200, 400), random(201, 400), random(5_000, 10_000)];
    let routed = |models: &[ScriptedLlm]| {
        let built = builder(models).route(RoundRobin::new()).build();
        built.expect("a good configuration")
    };
    let alone = models();
    let (before, sent) = simulate(routed(&alone), &alone, 3000).await;
    assert_eq!(sent, 3000);
    // A third of all calls is slow, and so many hedges are allowed.
    let hedged = models();
    let layer = built(HedgeLayer::builder().delay(450 * MILLI).budget(0.4));
    let (after, sent) = simulate(layer.layer(routed(&hedged)), &hedged, 3000).await;
    assert!(
        after * 4 <= before,
        "{after:?} after {before:?} {:?}",
        layer.handle()
    );
    assert!(sent <= 3000 + 3000 * 40 / 100 + 10, "{sent}");
    assert_eq!(sent as u64, 3000 + layer.handle().hedges());
}

/// With the budget as it is by default, since the slow one is found out and left alone.
#[tokio::test(start_paused = true)]
async fn so_it_does_within_a_tenth_with_health() {
    let run = async |hedge: Option<HedgeLayer>| {
        let models = [random(200, 400), random(201, 400), random(202, 400)];
        let policy = HealthPolicy::new().slow_first_token(450 * MILLI);
        let failover = builder(&models).route(RoundRobin::new());
        let failover = match hedge {
            Some(_) => failover.health(policy),
            None => failover,
        };
        let failover = failover.build().expect("a good configuration");
        let service = match &hedge {
            Some(layer) => BoxLlmService::new(layer.layer(failover)),
            None => BoxLlmService::new(failover),
        };
        simulate(service.clone(), &models, 600).await;
        models[2].set_otherwise(slow(8 * SECOND));
        simulate(service, &models, 3000).await
    };
    let (before, _) = run(None).await;
    let delay = HedgeDelay::percentile(0.95).until_known(SECOND);
    let layer = built(HedgeLayer::builder().delay(delay));
    let (after, sent) = run(Some(layer.clone())).await;
    assert!(after * 4 <= before, "{after:?} after {before:?}");
    assert!(sent <= 3000 + 360 + 10, "{sent}");
    assert!(layer.handle().delay(Measured::Streams).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_stack_with_hedges_keeps_the_contract() {
    let delay = || after_a_second().delay(MILLI).burst(1000);
    contract::check(|leaf| {
        let models = [leaf.clone(), leaf];
        BoxLlmService::new(stack(&models, delay()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_handle_of_the_stack_shows_them() {
    let models = [model(slow(9 * SECOND)), model(slow(SECOND))];
    let hedged = stack(&models, after_a_second());
    let answer = hedged.send(request()).await.expect("served");
    collect_text(answer).await.expect("whole");
    assert_eq!(hedged.hedge().map(|hedge| hedge.won_by_hedge()), Some(1));
    let layers: Vec<_> = hedged.snapshots().iter().map(|s| s.layer()).collect();
    assert!(layers.contains(&"hedge"));
    let plain = Preset::new().target(Target::new("a", models[0].clone()));
    let plain = plain.build().expect("good");
    assert!(plain.hedge().is_none());
    assert!(!plain.snapshots().iter().any(|s| s.layer() == "hedge"));
}

/// Retries, failover and hedges over one ledger, against whatever targets do.
#[test]
fn never_more_attempts_than_the_call_may_make() {
    let mut seed = 7_u64;
    let mut next = move |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % bound
    };
    for round in 0..400 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let (count, cap) = (1 + next(3), next(6));
        let hedges = 1 + next(2);
        let mut script = || {
            let after = Duration::from_millis(next(4) * 500 + next(3));
            match next(4) {
                0 => slow(after),
                1 => Script::fail(ErrorKind::CircuitOpen).head_after(after),
                _ => fails(after),
            }
        };
        runtime.block_on(async {
            let log = EndLog::new();
            let models: Vec<_> = (0..count)
                .map(|_| {
                    let model = model(fails(SECOND / 2)).observed_by(&log);
                    (0..3).for_each(|_| model.push(script()));
                    model
                })
                .collect();
            let retry = RetryLayer::builder()
                .backoff(Backoff::fixed(100 * MILLI))
                .budget(RetryBudget::unlimited())
                .build()
                .expect("sensible");
            let layer = built(after_a_second().max_hedges(usize::try_from(hedges).expect("few")));
            let inner: Vec<_> = models.iter().map(|m| retry.layer(m.clone())).collect();
            let mut request = request();
            let ledger = request.call.begin().clone();
            if cap > 0 {
                ledger.limit_attempts(u32::try_from(cap).expect("few"));
            }
            let answer = ask(&layer.layer(failover(&inner)), request).await;
            let most = match cap {
                0 => 3 + count - 1 + layer.handle().hedges(),
                cap => cap,
            };
            let sent = u64::from(ledger.sent());
            assert!(sent <= most, "round {round}: {sent} of {most} {ledger:?}");
            // All that was kept for attempts is given back or used.
            drop(answer.map(drop));
            let again = ledger.reserve_hedge(0);
            assert!(again.is_some() || sent == cap, "round {round}: {ledger:?}");
            assert!(models.iter().all(|m| m.in_progress() == 0 && m.held() == 0));
            log.assert_one_each();
        });
    }
}

/// A hedge asked for costs one box; none costs nothing.
#[tokio::test]
async fn a_stack_with_hedges_allocates_one_box_more() {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };
    let count = |hedge: Option<HedgeLayer>| {
        let mut stack = Preset::new()
            .hedge(hedge)
            .target(Target::new("t", donjon_testkit::AtOnce::default()))
            .target(Target::new("u", donjon_testkit::AtOnce::default()))
            .build()
            .expect("good");
        let mut cx = Context::from_waker(Waker::noop());
        let mut once = || {
            let call = pin!(stack.call(LlmRequest::chat("m", []))).poll(&mut cx);
            assert!(matches!(call, Poll::Ready(Ok(_))));
        };
        once();
        let request = allocation_counter::measure(|| drop(LlmRequest::chat("m", [])));
        allocation_counter::measure(once).count_total - request.count_total
    };
    assert_eq!(count(None), 1, "the ledger");
    assert_eq!(count(Some(HedgeLayer::default())), 2, "and a box");
}
