//! Pooled clients.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use donjon_core::{ErrorKind, LlmError, Snapshot, TimeoutClock};
use donjon_pool::{ClientPool, ClientPoolBuilder, ConfigError};
use donjon_testkit::{Script, ScriptedLlm, contract, probe::poll_once};
use tokio::time::{Instant, sleep};
use tower::{Service, service_fn};

use crate::{SECOND, request, send, settle};

/// A client that is counted while it lives.
#[derive(Debug)]
struct Counted {
    number: usize,
    living: Arc<AtomicUsize>,
    is_broken: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.living.fetch_sub(1, SeqCst);
    }
}

/// Makes clients in a second each, for a target that does not matter.
#[derive(Clone, Default)]
struct Made {
    living: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl Made {
    fn maker(
        &self,
    ) -> impl Service<(), Response = Counted, Error = Infallible, Future: Send> + Clone + Send + use<>
    {
        let made = self.clone();
        service_fn(move |()| {
            let made = made.clone();
            async move {
                sleep(SECOND).await;
                made.living.fetch_add(1, SeqCst);
                Ok(Counted {
                    number: made.all.fetch_add(1, SeqCst),
                    living: made.living,
                    is_broken: false,
                })
            }
        })
    }

    fn living(&self) -> usize {
        self.living.load(SeqCst)
    }
}

fn good<M: Service<(), Response = Counted, Future: Send> + Clone + Send + 'static>(
    builder: ClientPoolBuilder<M, ()>,
) -> ClientPool<M, ()> {
    builder.build().expect("sensible")
}

#[tokio::test(start_paused = true)]
async fn a_client_goes_back_and_is_used_again() {
    let made = Made::default();
    let pool = good(ClientPool::builder(made.maker(), ()).max(2));
    for _ in 0..5 {
        let client = pool.checkout().await.expect("never fails");
        assert_eq!(client.number, 0);
    }
    let first = pool.checkout().await.expect("never fails");
    let second = pool.checkout().await.expect("never fails");
    assert_eq!((first.number, second.number), (0, 1));
    let stats = pool.handle().stats();
    assert_eq!(
        (stats.total, stats.idle, stats.in_use, stats.made),
        (2, 0, 2, 2)
    );
    // The last used first, so that others can become idle for long.
    drop(second);
    drop(first);
    assert_eq!(pool.checkout().await.expect("never fails").number, 0);
    let figures = pool.handle().figures();
    assert!(figures.iter().any(|f| f.name == "idle" && f.value == 2.0));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order_and_who_left_is_passed_over() {
    let made = Made::default();
    let pool = good(ClientPool::builder(made.maker(), ()).max(1));
    let held = pool.checkout().await.expect("never fails");
    let mut waits: Vec<_> = (0..4).map(|_| Box::pin(pool.checkout())).collect();
    for wait in &mut waits {
        assert!(poll_once(wait).is_pending());
    }
    assert_eq!(pool.handle().stats().waiting, 4);
    drop(waits.remove(0));
    assert_eq!(pool.handle().stats().waiting, 3);
    drop(held);
    // It is the next one's, and nobody comes before them.
    let mut late = Box::pin(pool.checkout());
    assert!(poll_once(&mut late).is_pending());
    // Gone without having taken it: the one after has it.
    drop(waits.remove(0));
    assert!(poll_once(&mut waits[1]).is_pending());
    let client = waits.remove(0).await.expect("never fails");
    drop(client);
    drop(waits.remove(0).await.expect("never fails"));
    drop(late.await.expect("never fails"));
    let stats = pool.handle().stats();
    assert_eq!((stats.made, stats.idle, stats.waiting), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broken_one_is_discarded_and_its_place_goes_to_the_next() {
    let made = Made::default();
    let pool = good(ClientPool::builder(made.maker(), ()).max(1));
    let held = pool.checkout().await.expect("never fails");
    let mut wait = Box::pin(pool.checkout());
    assert!(poll_once(&mut wait).is_pending());
    held.discard();
    assert_eq!(made.living(), 0);
    let client = wait.await.expect("never fails");
    assert_eq!((client.number, pool.handle().stats().discarded), (1, 1));
    drop(client);
    // So is one whose user panicked.
    let again = pool.clone();
    let task = tokio::spawn(async move {
        let _client = again.checkout().await.expect("never fails");
        std::panic::resume_unwind(Box::new("as it was told"));
    });
    task.await.expect_err("it panics");
    assert_eq!(pool.handle().stats().discarded, 2);
    assert_eq!(pool.checkout().await.expect("never fails").number, 2);
}

#[tokio::test(start_paused = true)]
async fn some_are_warm_from_the_start_and_stay() {
    let made = Made::default();
    let pool = good(
        ClientPool::builder(made.maker(), ())
            .min_warm(2)
            .idle_timeout(10 * SECOND),
    );
    sleep(3 * SECOND).await;
    assert_eq!(pool.handle().stats().idle, 2);
    let began = Instant::now();
    let clients = [
        pool.checkout().await.expect("never fails"),
        pool.checkout().await.expect("never fails"),
    ];
    assert_eq!(began.elapsed(), Duration::ZERO);
    let more = pool.checkout().await.expect("never fails");
    drop(clients);
    drop(more);
    assert_eq!(pool.handle().stats().idle, 3);
    sleep(10 * SECOND).await;
    settle().await;
    let stats = pool.handle().stats();
    assert_eq!(
        (stats.idle, stats.reaped),
        (2, 1),
        "more than these are reaped"
    );
    // One that breaks is made again.
    pool.checkout().await.expect("never fails").discard();
    sleep(2 * SECOND).await;
    assert_eq!(pool.handle().stats().idle, 2);
}

/// However long nobody needed it.
#[tokio::test(start_paused = true)]
async fn one_that_is_kept_warm_is_used() {
    let made = Made::default();
    let builder = ClientPool::builder(made.maker(), ()).min_warm(1);
    let pool = good(builder.idle_timeout(10 * SECOND));
    sleep(60 * SECOND).await;
    assert_eq!(pool.handle().stats().idle, 1);
    let began = Instant::now();
    let client = pool.checkout().await.expect("never fails");
    assert_eq!((client.number, began.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_for_too_long_or_too_old_is_dropped_in_time() {
    let made = Made::default();
    let pool = good(
        ClientPool::builder(made.maker(), ())
            .idle_timeout(10 * SECOND)
            .max_age(25 * SECOND),
    );
    drop(pool.checkout().await.expect("never fails"));
    sleep(9 * SECOND).await;
    drop(pool.checkout().await.expect("never fails"));
    sleep(9 * SECOND).await;
    assert_eq!((made.living(), pool.handle().stats().reaped), (1, 0));
    sleep(Duration::from_millis(1_001)).await;
    settle().await;
    assert_eq!((made.living(), pool.handle().stats().reaped), (0, 1));
    // Used all the time it becomes too old.
    for _ in 0..6 {
        drop(pool.checkout().await.expect("never fails"));
        sleep(5 * SECOND).await;
    }
    settle().await;
    let stats = pool.handle().stats();
    assert_eq!(
        (stats.aged, stats.made, stats.reaped),
        (1, 3, 1),
        "{stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_fails_the_check_is_made_anew() {
    let made = Made::default();
    let checked = ClientPool::builder(made.maker(), ()).check(|client| !client.is_broken);
    let pool = good(checked);
    let mut client = pool.checkout().await.expect("never fails");
    client.is_broken = true;
    drop(client);
    let client = pool.checkout().await.expect("never fails");
    assert_eq!(client.number, 1);
    assert_eq!((pool.handle().stats().unhealthy, made.living()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_pool_and_late_clients_are_dropped() {
    let made = Made::default();
    let pool = good(ClientPool::builder(made.maker(), ()).min_warm(2));
    pool.warm().await.expect("never fails");
    let clone = pool.clone();
    let late = pool.checkout().await.expect("never fails");
    drop(pool);
    assert_eq!(made.living(), 2);
    drop(clone);
    assert_eq!(made.living(), 1, "what is checked out lives on");
    drop(late);
    assert_eq!(made.living(), 0);
    sleep(600 * SECOND).await;
    settle().await;
    assert_eq!((made.living(), made.all.load(SeqCst)), (0, 2));
}

#[test]
fn without_a_runtime_what_is_over_is_dropped_at_checkout() {
    let made = Made::default();
    let pool = good(ClientPool::builder(made.maker(), ()).idle_timeout(10 * SECOND));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        drop(pool.checkout().await.expect("never fails"));
        sleep(11 * SECOND).await;
        let client = pool.checkout().await.expect("never fails");
        assert_eq!((client.number, pool.handle().stats().reaped), (1, 1));
    });
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_made_gives_its_place_back() {
    let failures = Arc::new(AtomicUsize::new(2));
    let maker = service_fn(move |()| {
        let left = failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        async move {
            sleep(SECOND).await;
            match left {
                Ok(_) => Err(LlmError::new(ErrorKind::Connect, "nobody there")),
                Err(_) => Ok("client"),
            }
        }
    });
    let pool = ClientPool::builder(maker, ())
        .max(1)
        .build()
        .expect("sensible");
    let (one, other, third) = tokio::join!(pool.checkout(), pool.checkout(), pool.checkout());
    assert!(one.is_err() && other.is_err() && third.is_ok());
    drop(third);
    // Dropped while it is made.
    let first = pool.checkout().await.expect("it is there");
    first.discard();
    let mut making = Box::pin(pool.checkout());
    assert!(poll_once(&mut making).is_pending());
    drop(making);
    let stats = pool.handle().stats();
    assert_eq!((stats.total, stats.failed, stats.made), (0, 2, 1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let made = Made::default();
    let build = || ClientPool::builder(made.maker(), ());
    let refused = |builder: ClientPoolBuilder<_, ()>| builder.build().expect_err("senseless");
    assert_eq!(refused(build().max(0)), ConfigError::ZeroMaxClients);
    let warm = ConfigError::Warm { min: 3, max: 2 };
    assert_eq!(refused(build().max(2).min_warm(3)), warm);
    let zero = refused(build().idle_timeout(Duration::ZERO));
    assert_eq!(zero, ConfigError::ZeroAge("idle_timeout"));
    let zero = refused(build().max_age(Duration::ZERO));
    assert_eq!(zero, ConfigError::ZeroAge("max_age"));
}

/// A pool of clones of a model.
fn pooled(
    model: ScriptedLlm,
    max: usize,
) -> donjon_pool::Pooled<
    impl Service<(), Response = ScriptedLlm, Error = LlmError, Future: Send> + Clone + Send + 'static,
    (),
> {
    let maker = service_fn(move |()| std::future::ready(Ok::<_, LlmError>(model.clone())));
    let pool = ClientPool::builder(maker, ()).max(max).build();
    pool.expect("sensible").service()
}

#[tokio::test(start_paused = true)]
async fn the_service_over_it_keeps_the_contract() {
    for max in [1, 2, 32] {
        contract::check(|leaf| pooled(leaf, max)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_held_until_the_stream_ends_and_dropped_when_it_breaks() {
    let model = ScriptedLlm::new(Script::words(3).gap(SECOND))
        .then(Script::words(3).gap(SECOND))
        .then(Script::words(3).cut_after(1))
        .then(Script::words(3).fail_after(1, ErrorKind::StreamBroken));
    let maker = service_fn({
        let model = model.clone();
        move |()| std::future::ready(Ok::<_, LlmError>(model.clone()))
    });
    let pool = ClientPool::builder(maker, ())
        .max(1)
        .build()
        .expect("sensible");
    let (service, handle) = (pool.service(), pool.handle());
    let answer = send(&service, request().streamed())
        .await
        .expect("it opens");
    assert_eq!(handle.stats().in_use, 1);
    // The deadline covers the wait for a client.
    let late = send(&service, request().with_timeout(SECOND)).await;
    assert_eq!(handle.stats().waiting, 0);
    assert_eq!(
        late.expect_err("late").kind(),
        ErrorKind::Timeout(TimeoutClock::Total)
    );
    answer.collect().await.expect("it ends");
    assert_eq!((handle.stats().idle, handle.stats().discarded), (1, 0));
    let cut = send(&service, request().streamed())
        .await
        .expect("it opens");
    cut.collect().await.expect_err("it is cut");
    assert_eq!((handle.stats().idle, handle.stats().discarded), (1, 0));
    let breaks = send(&service, request().streamed())
        .await
        .expect("it opens");
    breaks.collect().await.expect_err("it breaks");
    assert_eq!((handle.stats().idle, handle.stats().discarded), (0, 1));
}

/// What it was asked may still be under way on it.
#[tokio::test(start_paused = true)]
async fn one_whose_call_timed_out_is_discarded_and_one_that_was_refused_is_kept() {
    for (kind, made) in [
        (ErrorKind::Timeout(TimeoutClock::FirstToken), 2),
        (ErrorKind::Timeout(TimeoutClock::Idle), 2),
        (ErrorKind::RateLimited, 1),
        (ErrorKind::ServerError, 1),
    ] {
        let model = ScriptedLlm::default().then(Script::fail(kind));
        let makes = model.clone();
        let maker = service_fn(move |()| {
            let client = makes.clone();
            async move { Ok::<_, Infallible>(client) }
        });
        let pool = ClientPool::builder(maker, ()).max(1).build();
        let pool = pool.expect("sensible");
        let service = pool.service();
        send(&service, request()).await.expect_err("it fails");
        send(&service, request()).await.expect("another one");
        assert_eq!(pool.handle().stats().made, made, "{kind:?}");
    }
}
