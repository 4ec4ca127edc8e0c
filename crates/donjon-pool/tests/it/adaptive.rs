//! Adaptive limits against a simulated server, under a paused clock.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{
    Chunk, CommitLayer, ErrorKind, FinishReason, Head, LlmError, LlmRequest, LlmResponse,
    LlmService, ResponseStream,
};
use donjon_pool::{Aimd, Gradient, PoolBuilder, PoolHandle, PoolLayer};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{SECOND, request, send};

/// A server that works on so many answers at a time, its knee: what comes beyond waits for its turn,
/// so that its first token comes the later.
#[derive(Clone)]
struct Server {
    slots: Arc<Semaphore>,
    first_token: Duration,
    rest: Duration,
    /// How many times as long the first token takes.
    pace: Arc<AtomicU32>,
    /// It refuses what would be beyond so many that wait.
    queue: usize,
}

impl Server {
    fn new(knee: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(knee)),
            first_token: Duration::from_millis(300),
            rest: Duration::from_millis(1_500),
            pace: Arc::new(AtomicU32::new(1)),
            queue: usize::MAX,
        }
    }

    /// It refuses what is beyond its knee.
    fn strict(knee: usize) -> Self {
        Self {
            queue: 0,
            ..Self::new(knee)
        }
    }

    fn service(
        &self,
    ) -> impl LlmService<Error = LlmError, Future: Send> + Clone + Send + Sync + use<> {
        let server = self.clone();
        let serve = service_fn(move |request| server.clone().serve(request));
        CommitLayer::new().layer(serve)
    }

    async fn serve(self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        if self.slots.available_permits() == 0 && self.queue == 0 {
            return Err(LlmError::new(ErrorKind::Overloaded, "too much to do"));
        }
        let slot = self.slots.acquire_owned().await.expect("it is open");
        sleep(about(self.first_token) * self.pace.load(Relaxed)).await;
        let rest = about(self.rest);
        let end = stream::once(async move {
            sleep(rest).await;
            drop(slot);
            Ok(Chunk::finish(FinishReason::Stop))
        });
        let chunks = stream::iter([Ok(Chunk::text("Well"))]).chain(end);
        let head = Head::new(request.model().clone());
        Ok(LlmResponse::stream(head, ResponseStream::new(1, chunks)))
    }

    /// It grows, or shrinks once enough of what it works on is done.
    fn move_knee(&self, from: usize, to: usize) {
        match to.checked_sub(from) {
            Some(more) => self.slots.add_permits(more),
            None => {
                let (slots, fewer) = (self.slots.clone(), from - to);
                tokio::spawn(async move {
                    for _ in 0..fewer {
                        slots.acquire().await.expect("it is open").forget();
                    }
                });
            }
        }
    }
}

/// More or less so long.
fn about(time: Duration) -> Duration {
    time.mul_f64(0.7 + 0.6 * fastrand::f64())
}

/// A pool before the server, and callers that always have something to ask; they ask again a little
/// after they were refused.
fn saturate<S>(server: S, pool: PoolBuilder, callers: usize) -> PoolHandle
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    let layer = pool.build().expect("sensible");
    let service = layer.layer(server);
    for _ in 0..callers {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                match send(&service, request().streamed()).await {
                    Ok(answer) => drop(answer.collect().await),
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        });
    }
    layer.handle()
}

/// The mean size within the next seconds.
async fn mean_size(handle: &PoolHandle, seconds: u32) -> f64 {
    let mut sum = 0.0;
    let samples = seconds * 20;
    for _ in 0..samples {
        sleep(Duration::from_millis(50)).await;
        sum += f64::from(u32::try_from(handle.stats().size).expect("small"));
    }
    sum / f64::from(samples)
}

#[track_caller]
fn assert_near(size: f64, knee: usize) {
    let ratio = size / f64::from(u32::try_from(knee).expect("small"));
    assert!((0.8..=1.2).contains(&ratio), "{size} is not near {knee}");
}

/// Comes to the knee within 30 seconds, and follows it when it moves.
async fn finds_and_follows(server: Server, pool: PoolBuilder, knees: [usize; 3]) {
    fastrand::seed(7);
    let began = Instant::now();
    let callers = 4 * knees.iter().max().expect("three");
    let handle = saturate(server.service(), pool, callers.max(100));
    let mut from = knees[0];
    for (nth, knee) in (0_u32..).zip(knees) {
        server.move_knee(from, knee);
        from = knee;
        // The last ten of its 30 seconds.
        sleep_until(began + SECOND * (nth * 30 + 20)).await;
        assert_near(mean_size(&handle, 10).await, knee);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gradient_limit_finds_the_knee_and_follows_it() {
    for knees in [[40, 20, 60], [12, 30, 8], [200, 100, 160]] {
        let pool = PoolLayer::builder().gradient(Gradient::new());
        finds_and_follows(Server::new(knees[0]), pool, knees).await;
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_start_too_high_come_down() {
    let pool = PoolLayer::builder().gradient(Gradient::new().initial(40));
    finds_and_follows(Server::new(15), pool, [15, 15, 15]).await;
    let pool = PoolLayer::builder().aimd(Aimd::new().initial(90));
    finds_and_follows(Server::strict(15), pool, [15, 15, 15]).await;
}

#[tokio::test(start_paused = true)]
async fn an_aimd_limit_finds_the_knee_by_overload_errors_and_follows_it() {
    for knees in [[40, 20, 60], [12, 30, 8], [100, 60, 90]] {
        let pool = PoolLayer::builder().aimd(Aimd::new());
        finds_and_follows(Server::strict(knees[0]), pool, knees).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_aimd_limit_finds_it_by_late_first_tokens() {
    for knees in [[40, 20, 60], [12, 30, 8]] {
        let aimd = Aimd::new().first_token_within(Duration::from_millis(500));
        let pool = PoolLayer::builder().aimd(aimd);
        finds_and_follows(Server::new(knees[0]), pool, knees).await;
    }
}

/// A gradient limit does not take its own queue for the server's speed, however long it runs.
#[tokio::test(start_paused = true)]
async fn a_gradient_limit_does_not_creep() {
    fastrand::seed(7);
    let server = Server::new(40);
    let handle = saturate(
        server.service(),
        PoolLayer::builder().gradient(Gradient::new()),
        200,
    );
    for _ in 0..5 {
        sleep(110 * SECOND).await;
        assert_near(mean_size(&handle, 10).await, 40);
    }
}

/// A server that answers later whatever the load is not taken for one that has too much to do: not
/// for longer than a minute or two.
#[tokio::test(start_paused = true)]
async fn a_gradient_limit_learns_that_the_server_is_slower() {
    fastrand::seed(7);
    let mut server = Server::new(40);
    let pace = server.pace.clone();
    server.rest = 3 * SECOND;
    let handle = saturate(
        server.service(),
        PoolLayer::builder().gradient(Gradient::new()),
        200,
    );
    sleep(60 * SECOND).await;
    pace.store(2, Relaxed);
    sleep(90 * SECOND).await;
    assert_near(mean_size(&handle, 10).await, 40);
}

/// L11: what is not bound by it does not move it.
#[tokio::test(start_paused = true)]
async fn idle_limits_stay_put() {
    for pool in [
        PoolLayer::builder().gradient(Gradient::new().initial(50)),
        PoolLayer::builder().aimd(Aimd::new().initial(50)),
    ] {
        fastrand::seed(7);
        let server = Server::new(100);
        let handle = saturate(server.service(), pool, 10);
        for _ in 0..10 {
            sleep(30 * SECOND).await;
            assert_eq!(handle.stats().size, 50);
        }
        assert!(handle.stats().admitted > 1_000);
    }
}

/// A rate limit further in that binds keeps slots in use, and the server idle.
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_what_binds_does_not_grow() {
    for pool in [
        PoolLayer::builder().gradient(Gradient::new()),
        PoolLayer::builder().aimd(Aimd::new()),
    ] {
        fastrand::seed(7);
        let server = Server::new(1_000).service();
        // Five a second, each of which takes 1.8 s: nine are with the server.
        let next = Arc::new(Mutex::new(Instant::now()));
        let limited = service_fn(move |request| {
            let server = server.clone();
            let turn = {
                let mut next = next.lock().expect("no panic");
                let turn = (*next).max(Instant::now());
                *next = turn + SECOND / 5;
                turn
            };
            async move {
                sleep_until(turn).await;
                server.oneshot(request).await
            }
        });
        let handle = saturate(limited, pool, 500);
        sleep(300 * SECOND).await;
        let size = mean_size(&handle, 60).await;
        assert!((9.0..=24.0).contains(&size), "{size}");
    }
}

/// L12: long answers do not lower the limit; the first token alone counts.
#[tokio::test(start_paused = true)]
async fn answers_that_grow_longer_move_nothing() {
    fastrand::seed(7);
    let server = Server {
        rest: 10 * SECOND,
        ..Server::new(1_000)
    };
    let pool = || Gradient::new().initial(20).between(1..=20);
    let handle = saturate(server.service(), PoolLayer::builder().gradient(pool()), 40);
    sleep(60 * SECOND).await;
    assert_eq!(handle.stats().size, 20);
}

/// Two clients of one server, of which one starts with four times as much.
async fn share(server: Server, pools: [PoolBuilder; 2], knee: usize) {
    let [one, other] = pools.map(|pool| saturate(server.service(), pool, 2 * knee));
    sleep(60 * SECOND).await;
    let (size, of_other) = tokio::join!(mean_size(&one, 240), mean_size(&other, 240));
    let ratio = size / of_other;
    assert!((0.66..=1.5).contains(&ratio), "{size} and {of_other}");
    assert_near(size + of_other, knee);
}

#[tokio::test(start_paused = true)]
async fn two_clients_with_a_gradient_limit_share_fairly() {
    for seed in 0..2 {
        fastrand::seed(seed);
        let limit = |initial| PoolLayer::builder().gradient(Gradient::new().initial(initial));
        share(Server::new(60), [10, 40].map(limit), 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_clients_with_an_aimd_limit_share_fairly() {
    for seed in 0..2 {
        fastrand::seed(seed);
        let limit = |initial| PoolLayer::builder().aimd(Aimd::new().initial(initial));
        share(Server::strict(60), [10, 40].map(limit), 60).await;
    }
}
