//! Shares under saturation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use donjon_core::{LlmRequest, Priority};
use donjon_pool::Pool;
use donjon_testkit::ScriptedLlm;
use tokio::time::{Instant, sleep_until};

use crate::{SECOND, around, of_tenant, send, sized, slow};

type Served = Arc<Mutex<HashMap<String, u32>>>;

/// Sends such requests one after the other, for so many seconds.
async fn ask(
    service: Pool<ScriptedLlm>,
    make: impl Fn() -> LlmRequest,
    name: String,
    until: Instant,
    served: Served,
) {
    while Instant::now() < until {
        send(&service, make()).await.expect("served");
        *served
            .lock()
            .expect("no panic")
            .entry(name.clone())
            .or_default() += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn no_tenant_gets_more_than_its_share() {
    let model = slow(SECOND);
    let (service, _) = around(&model, sized(8));
    let served = Served::default();
    let until = Instant::now() + 300 * SECOND;
    // One asks a hundred times as much as another.
    for (tenant, clients) in [("a", 400), ("b", 40), ("c", 10), ("d", 4)] {
        for _ in 0..clients {
            let make = move || of_tenant(tenant);
            let served = served.clone();
            let asks = ask(service.clone(), make, tenant.into(), until, served);
            tokio::spawn(asks);
        }
    }
    sleep_until(until).await;
    let served = served.lock().expect("no panic");
    let (most, least) = (served.values().max(), served.values().min());
    let (most, least) = (*most.expect("some"), *least.expect("some"));
    assert_eq!(served.len(), 4);
    assert!(f64::from(most) <= 1.2 * f64::from(least), "{served:?}");
    let all: u32 = served.values().sum();
    assert!(all >= 8 * 298, "no slot is idle: {all}");
}

#[tokio::test(start_paused = true)]
async fn weights_set_the_shares() {
    let model = slow(SECOND);
    let (service, _) = around(&model, sized(4).weight("a", 3));
    let served = Served::default();
    let until = Instant::now() + 300 * SECOND;
    for tenant in ["a", "b"] {
        for _ in 0..50 {
            let make = move || of_tenant(tenant);
            let asks = ask(service.clone(), make, tenant.into(), until, served.clone());
            tokio::spawn(asks);
        }
    }
    sleep_until(until).await;
    let served = served.lock().expect("no panic");
    let ratio = f64::from(served["a"]) / f64::from(served["b"]);
    assert!((ratio - 3.0).abs() < 0.2, "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lowest_priority_moves_under_a_saturating_highest_one() {
    let model = slow(SECOND);
    let (service, _) = around(&model, sized(4).ageing(10 * SECOND));
    let served = Served::default();
    let until = Instant::now() + 300 * SECOND;
    for (priority, clients) in [(255, 100), (128, 100), (0, 100)] {
        for _ in 0..clients {
            let make = move || of_tenant("a").with_priority(Priority(priority));
            let name = priority.to_string();
            tokio::spawn(ask(service.clone(), make, name, until, served.clone()));
        }
    }
    sleep_until(until).await;
    let served = served.lock().expect("no panic");
    // One in ten seconds each, and the rest of the 1,200 is for the highest.
    for starving in ["0", "128"] {
        let count = served[starving];
        assert!((25..=32).contains(&count), "{served:?}");
    }
    assert!(served["255"] >= 1_120, "{served:?}");
}
