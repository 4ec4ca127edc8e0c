//! A wall clock that is set.

use std::time::Duration;

use donjon_budget::Limit;
use donjon_core::{Key, Usage};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{Clock, around, builder, expecting, passes, refused, send, standing, tokens};

const DAY: u64 = 24 * 3_600;

fn model() -> ScriptedLlm {
    ScriptedLlm::new(Script::answer("hi").usage(Usage::new(50, 50)))
}

fn limits() -> [Limit; 2] {
    let limit = || Limit::hard(tokens(250));
    [limit().per_day(), limit().rolling(Duration::from_secs(DAY))]
}

/// The period goes on: no limit is filled anew, and what was charged is charged once.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_opens_no_past_period() {
    for limit in limits() {
        let clock = Clock::new();
        let builder = builder().clock(clock.wall()).limit(limit.clone());
        let (service, handle) = around(&model(), builder);
        passes(&service, expecting(50, 50)).await;
        clock.back(3 * DAY);
        passes(&service, expecting(50, 50)).await;
        let error = refused(&service, expecting(50, 50)).await;
        let after = error.retry_after().expect("it fits some time");
        assert_eq!(
            standing(&handle, &limit, &Key::Global),
            (tokens(200), tokens(0)),
            "{limit}"
        );
        assert_eq!(handle.report().total().cost, tokens(200));
        // It is held until the period ends that it was, and no longer.
        clock.forward(after.as_secs() - 2);
        refused(&service, expecting(50, 50)).await;
        clock.forward(3);
        passes(&service, expecting(50, 50)).await;
        assert!(after > Duration::from_secs(3 * DAY), "{limit}: {after:?}");
    }
}

/// What is spent meanwhile counts in the period that goes on, under a soft limit as under a hard one.
#[tokio::test(start_paused = true)]
async fn a_soft_limit_counts_while_the_clock_is_behind() {
    let limit = || Limit::soft(tokens(250));
    for limit in [limit().per_day(), limit().rolling(Duration::from_secs(DAY))] {
        let clock = Clock::new();
        let builder = builder().clock(clock.wall()).limit(limit.clone());
        let (service, handle) = around(&model(), builder);
        let mut events = handle.events().listen();
        passes(&service, expecting(50, 50)).await;
        clock.back(3 * DAY);
        for _ in 0..3 {
            passes(&service, expecting(50, 50)).await;
        }
        let spent = standing(&handle, &limit, &Key::Global).0;
        assert_eq!(spent, tokens(400), "{limit}");
        let told = std::iter::from_fn(|| events.try_next()).count();
        assert_eq!(told, 1, "{limit}");
    }
}

/// A call is settled where it was charged, wherever the clock is by then.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_under_a_call_charges_it_once() {
    for limit in limits() {
        for set in [-3, 3] {
            let clock = Clock::new();
            let script = Script::answer("hi")
                .usage(Usage::new(50, 50))
                .head_after(Duration::from_secs(1));
            let builder = builder().clock(clock.wall()).limit(limit.clone());
            let (service, handle) = around(&ScriptedLlm::new(script), builder);
            let call = tokio::spawn({
                let service = service.clone();
                async move { send(&service, expecting(100, 50)).await?.collect().await }
            });
            tokio::task::yield_now().await;
            let reserved = standing(&handle, &limit, &Key::Global);
            assert_eq!(reserved, (tokens(0), tokens(150)), "{limit}");
            match set {
                3 => clock.forward(3 * DAY),
                _ => clock.back(3 * DAY),
            }
            call.await.expect("no panic").expect("an answer");
            // Its period is past, or is still the current one.
            let spent = if set == 3 { tokens(0) } else { tokens(100) };
            let (charged, reserved) = standing(&handle, &limit, &Key::Global);
            assert_eq!((charged, reserved), (spent, tokens(0)), "{limit}, {set}");
            assert_eq!(handle.report().total().cost, tokens(100));
        }
    }
}

/// One that was far ahead holds its period until then, unless it is reset.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_far_ahead_lifts_no_limit_and_can_be_reset() {
    for limit in limits() {
        let clock = Clock::new();
        let builder = builder().clock(clock.wall()).limit(limit.clone());
        let (service, handle) = around(&model(), builder);
        clock.forward(1_000 * DAY);
        passes(&service, expecting(50, 50)).await;
        clock.back(1_000 * DAY);
        passes(&service, expecting(50, 50)).await;
        refused(&service, expecting(50, 50)).await;
        clock.forward(500 * DAY);
        refused(&service, expecting(50, 50)).await;
        handle
            .reset(&limit.to_string(), &Key::Global)
            .expect("it is there");
        passes(&service, expecting(50, 50)).await;
        passes(&service, expecting(50, 50)).await;
        refused(&service, expecting(50, 50)).await;
        clock.forward(502 * DAY);
        passes(&service, expecting(50, 50)).await;
    }
}

/// Before 1970 it is 1970.
#[tokio::test(start_paused = true)]
async fn a_clock_before_all_periods_is_no_way_out() {
    for limit in limits() {
        let clock = Clock::new();
        let builder = builder().clock(clock.wall()).limit(limit.clone());
        let (service, _) = around(&model(), builder);
        clock.back(60 * 365 * DAY);
        passes(&service, expecting(50, 50)).await;
        passes(&service, expecting(50, 50)).await;
        refused(&service, expecting(50, 50)).await;
    }
}
