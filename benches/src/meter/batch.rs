//! One batch: so many calls or chunks, timed or their allocations counted.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::time::Duration;

use futures_core::Stream;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;

use crate::{alloc, clock};

/// Chunks a leaf's stream must yield before it ends (its terminal chunk comes on top).
pub const CHUNKS: u64 = WARM + 1_000;

/// Concurrent tasks where there are many.
pub const TASKS: u64 = 64;

/// Calls or chunks before a batch that are not in it.
const WARM: u64 = 50;
const CALLS: u64 = 1_000;
const CALLS_PER_TASK: u64 = 128;

/// Measures one batch and returns nanoseconds or allocations for each call or chunk.
pub(super) type Bench = Box<dyn FnMut(&Runtimes, Take) -> f64>;

/// The two runtimes batches run on; neither drives IO.
#[derive(Debug)]
pub(super) struct Runtimes {
    one: Runtime,
    two: Runtime,
}

impl Runtimes {
    pub(super) fn new() -> Self {
        Self {
            one: Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime without IO needs nothing of the system"),
            two: Builder::new_multi_thread()
                .worker_threads(2)
                .enable_time()
                .build()
                .expect("two threads can be started"),
        }
    }
}

/// What a batch is run for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Take {
    Time,
    Allocations,
}

/// A measurement under way.
#[derive(Debug)]
enum Gauge {
    Time(Duration),
    Allocations,
}

impl Gauge {
    fn start(take: Take) -> Self {
        match take {
            Take::Time => Self::Time(clock::cpu()),
            Take::Allocations => {
                alloc::start();
                Self::Allocations
            }
        }
    }

    /// Nanoseconds or allocations since the start.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a batch has far fewer than 2^52 nanoseconds or allocations"
    )]
    fn stop(self) -> f64 {
        match self {
            Self::Time(start) => clock::cpu().saturating_sub(start).as_nanos() as f64,
            Self::Allocations => alloc::stop() as f64,
        }
    }
}

pub(super) fn one<S, R>(
    make: impl Fn(bool) -> S + 'static,
    pending: bool,
    request: fn() -> R,
) -> Bench
where
    S: Service<R, Future: Send> + Send + 'static,
    R: Clone + Send + Sync + 'static,
{
    let mut kept = None;
    Box::new(move |runtimes, take| {
        let request = request();
        let _within = runtimes.one.enter();
        let mut service = kept.take().unwrap_or_else(|| make(pending));
        let batch = tokio::spawn(async move {
            drive(&mut service, &request, WARM).await;
            let gauge = Gauge::start(take);
            drive(&mut service, &request, CALLS).await;
            (gauge.stop(), service)
        });
        let (total, service) = runtimes.one.block_on(batch).expect("a call failed");
        kept = Some(service);
        total / CALLS as f64
    })
}

pub(super) fn many<S, R>(
    make: impl Fn(bool) -> S + 'static,
    pending: bool,
    request: fn() -> R,
) -> Bench
where
    S: Service<R, Future: Send> + Clone + Send + 'static,
    R: Clone + Send + Sync + 'static,
{
    let mut kept: Vec<S> = Vec::new();
    Box::new(move |runtimes, take| {
        let _within = runtimes.two.enter();
        if kept.is_empty() {
            let service = make(pending);
            kept = (0..TASKS).map(|_| service.clone()).collect();
        }
        let mut batch = |calls: u64| {
            let gauge = Gauge::start(take);
            let start = |mut service: S| {
                let request = request();
                tokio::spawn(async move {
                    drive(&mut service, &request, calls).await;
                    service
                })
            };
            let tasks: Vec<_> = kept.drain(..).map(start).collect();
            runtimes.two.block_on(async {
                for task in tasks {
                    kept.push(task.await.expect("a call failed"));
                }
            });
            gauge.stop()
        };
        // What it takes to start the tasks is not the calls'.
        let (idle, busy) = (batch(0), batch(CALLS_PER_TASK));
        (busy - idle) / (TASKS * CALLS_PER_TASK) as f64
    })
}

pub(super) fn chunks<S, R, T>(
    make: impl Fn() -> S + 'static,
    request: fn() -> R,
    open: fn(S::Response) -> T,
) -> Bench
where
    S: Service<R, Future: Send, Response: Send> + Send + 'static,
    R: Clone + Send + 'static,
    T: Stream + Send + 'static,
{
    Box::new(move |runtimes, take| {
        let request = request();
        let _within = runtimes.one.enter();
        let mut service = make();
        let batch = tokio::spawn(async move {
            assert!(
                poll_fn(|cx| service.poll_ready(cx)).await.is_ok(),
                "the service is not ready"
            );
            let Ok(response) = service.call(request).await else {
                panic!("the call failed")
            };
            let mut stream = pin!(open(response));
            let mut pull = async |count: u64| {
                for _ in 0..count {
                    let chunk = poll_fn(|cx| stream.as_mut().poll_next(cx)).await;
                    assert!(black_box(chunk).is_some(), "the stream is too short");
                }
            };
            pull(WARM).await;
            let gauge = Gauge::start(take);
            pull(CHUNKS - WARM).await;
            let total = gauge.stop();
            while poll_fn(|cx| stream.as_mut().poll_next(cx)).await.is_some() {}
            total
        });
        runtimes.one.block_on(batch).expect("a stream failed") / (CHUNKS - WARM) as f64
    })
}

/// `calls` unary calls one after the other.
async fn drive<S, R>(service: &mut S, request: &R, calls: u64)
where
    S: Service<R>,
    R: Clone,
{
    for _ in 0..calls {
        assert!(
            poll_fn(|cx| service.poll_ready(cx)).await.is_ok(),
            "the service is not ready"
        );
        let response = service.call(black_box(request.clone())).await;
        assert!(black_box(response).is_ok(), "the call failed");
    }
}
