//! What the handle shows.

use donjon_core::{Heard, Key, Snapshot};
use donjon_pool::{Overflow, PoolEvent, RejectReason};

use crate::{SECOND, around, request, send, settle, sized, slow, spawn};

#[tokio::test(start_paused = true)]
async fn figures_tell_what_is_and_what_was() {
    let model = slow(4 * SECOND);
    let (service, handle) = around(&model, sized(2).max_queued(1));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(spawn(&service, request()).await);
    }
    send(&service, request())
        .await
        .expect_err("the queue is full");
    assert!(handle.health().is_err());
    let stats = handle.stats();
    assert_eq!((stats.size, stats.in_use, stats.available), (2, 2, 0));
    assert_eq!((stats.waiting, stats.admitted), (1, 2));
    assert_eq!(stats.rejected(RejectReason::QueueFull), 1);
    for task in tasks {
        task.await.expect("no panic").expect("served");
    }
    assert!(handle.health().is_ok());
    let stats = handle.stats();
    assert_eq!((stats.in_use, stats.available, stats.admitted), (0, 2, 3));
    assert_eq!(stats.wait_times.count(), 1);
    let wait = stats.wait_times.quantile(0.5).as_secs_f64();
    assert!((wait / 4.0 - 1.0).abs() < 0.125, "{wait}");

    let figures = handle.figures();
    let of = |name: &str| {
        let figure = figures.iter().find(|figure| figure.name == name);
        figure.expect(name).value
    };
    assert_eq!(handle.layer(), "pool");
    assert_eq!((of("size"), of("admitted"), of("waited")), (2.0, 3.0, 1.0));
    let rejected = figures.iter().filter(|figure| figure.name == "rejected");
    assert_eq!(rejected.count(), RejectReason::ALL.len());
}

#[tokio::test(start_paused = true)]
async fn events_are_told_to_those_who_listen() {
    let model = slow(SECOND);
    let (service, handle) = around(
        &model,
        sized(1).overflow(Overflow::Temporary(1)).max_queued(0),
    );
    let mut heard = handle.events().listen();
    let _tasks = [
        spawn(&service, request()).await,
        spawn(&service, request()).await,
    ];
    send(&service, request()).await.expect_err("full");
    handle.resize(5).expect("sensible");
    settle().await;
    let key = || Key::Global;
    let events = [
        PoolEvent::Temporary {
            key: key(),
            beyond: 1,
        },
        PoolEvent::Rejected {
            key: key(),
            reason: RejectReason::QueueFull,
        },
        PoolEvent::Resized {
            key: key(),
            from: 1,
            to: 5,
            by_hand: true,
        },
    ];
    for event in events {
        assert_eq!(heard.try_next(), Some(Heard::Event(event)));
    }
    assert_eq!(heard.try_next(), None);
}
