//! How late is late.

use std::time::Duration;

use donjon_core::{LlmRequest, shape::ReadyCall};
use donjon_hedge::{HedgeDelay, Measured};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::{Instant, sleep};
use tower::{Layer, service_fn};

use crate::{MILLI, SECOND, after_a_second, ask, layer, plays, request, slow, streamed};

fn live() -> HedgeDelay {
    HedgeDelay::percentile(0.9).minimum_calls(20)
}

fn near(found: Option<Duration>, exact: Duration) {
    let found = found.expect("it is known");
    assert!(
        found.abs_diff(exact) <= exact / 8,
        "{found:?}, not {exact:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_percentile_follows_the_times_of_each_kind_of_call() {
    let model = ScriptedLlm::new("fast").commits();
    let built = layer(after_a_second().delay(live()));
    let service = built.layer(model.clone());
    let handle = built.handle();
    for n in 1..=20 {
        assert_eq!(handle.delay(Measured::Streams), None, "too few are known");
        model.push(slow("x", n * 10 * MILLI));
        ask(&service, streamed()).await.expect("an answer");
    }
    near(handle.delay(Measured::Streams), 180 * MILLI);
    assert_eq!(handle.delay(Measured::Answers), None);
    for n in 1..=20 {
        model.push(slow("x", n * SECOND));
        ask(&service, request()).await.expect("an answer");
    }
    near(handle.delay(Measured::Answers), 18 * SECOND);
    near(handle.delay(Measured::Streams), 180 * MILLI);
    assert_eq!(handle.delay(Measured::Embeddings), None);
    // A call that is later than nine of ten is hedged then.
    model.push(slow("late", 2 * SECOND));
    let begun = Instant::now();
    ask(&service, streamed()).await.expect("an answer");
    assert_eq!(handle.won_by_hedge(), 1);
    near(Some(begun.elapsed()), 180 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn until_it_is_known_there_is_a_fixed_one_or_none() {
    for (delay, calls) in [(live(), 1), (live().until_known(2 * SECOND), 2)] {
        let model = plays([slow("late", 60 * SECOND)]);
        let service = layer(after_a_second().delay(delay)).layer(model.clone());
        ask(&service, request()).await.expect("an answer");
        assert_eq!(model.count(), calls);
        if calls == 2 {
            assert_eq!(model.calls()[1].at - model.calls()[0].at, 2 * SECOND);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_stays_within_its_bounds() {
    let model = ScriptedLlm::new(slow("x", SECOND)).commits();
    for (delay, exact) in [
        (live().at_least(3 * SECOND), 3 * SECOND),
        (live().at_most(SECOND / 10), SECOND / 10),
    ] {
        let built = layer(after_a_second().delay(delay));
        built.handle().set_enabled(true);
        for _ in 0..20 {
            ask(&built.layer(model.clone()), request())
                .await
                .expect("an answer");
        }
        assert_eq!(built.handle().delay(Measured::Answers), Some(exact));
    }
}

/// Who loses is known to have taken longer, so that hedges do not make slowness look like haste.
#[tokio::test(start_paused = true)]
async fn hedges_do_not_hide_how_slow_first_attempts_are() {
    let built = layer(
        after_a_second()
            .delay(live().until_known(SECOND))
            .burst(1000),
    );
    let model = ScriptedLlm::new("").commits();
    let service = built.layer(model.clone());
    for _ in 0..20 {
        model.push(slow("late", 9 * SECOND));
        model.push(slow("fast", SECOND));
        ask(&service, streamed()).await.expect("an answer");
    }
    assert_eq!(built.handle().won_by_hedge(), 20);
    near(built.handle().delay(Measured::Streams), 2 * SECOND);
}

/// The time in queues of ours is not the provider's.
#[tokio::test(start_paused = true)]
async fn the_delay_counts_from_when_the_first_was_sent() {
    let queued = |model: &ScriptedLlm, wait: Duration| {
        let model = model.clone();
        service_fn(move |request: LlmRequest| {
            let model = model.clone();
            async move {
                sleep(wait).await;
                ReadyCall::new(model, request).await
            }
        })
    };
    // Sent in time, it has its delay from then on.
    let model = plays([slow("first", 900 * MILLI)]);
    let built = layer(after_a_second());
    let service = built.layer(queued(&model, 800 * MILLI));
    let service = tower::util::BoxCloneService::new(tower::ServiceExt::map_err(service, |e| e));
    ask(&service, request()).await.expect("an answer");
    assert_eq!(model.count(), 1);
    // One of which nothing is known counts from its begin, or not at all.
    for (only, hedges) in [(false, 1), (true, 0)] {
        let model = plays([slow("first", 900 * MILLI)]);
        let built = layer(after_a_second().sent_only(only));
        let service = built.layer(queued(&model, 5 * SECOND));
        let service = tower::util::BoxCloneService::new(tower::ServiceExt::map_err(service, |e| e));
        ask(&service, request()).await.expect("an answer");
        assert_eq!(built.handle().hedges(), hedges);
    }
    let model = plays([Script::hang()]);
    let built = layer(after_a_second().sent_only(true));
    let service = built.layer(queued(&model, 5 * SECOND));
    let begun = Instant::now();
    let service = tower::util::BoxCloneService::new(tower::ServiceExt::map_err(service, |e| e));
    ask(&service, request()).await.expect("an answer");
    // Sent at 5 s, late at 6 s; the second waits, too.
    assert_eq!(begun.elapsed(), 11 * SECOND);
}
