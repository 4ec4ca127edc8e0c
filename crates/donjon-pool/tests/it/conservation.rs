//! Whatever happens to calls, no slot is lost and none is made.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use donjon_core::{
    Body, ChatCompletion, Chunk, ErrorKind, FinishReason, Head, LlmError, LlmRequest, LlmResponse,
    Priority, ResponseStream,
};
use donjon_pool::{Gradient, HoldUntil, Overflow, PoolBuilder, PoolLayer};
use fastrand::Rng;
use futures_util::Stream;
use tower::{Layer, Service};

use crate::{of_tenant, sized};

/// What becomes of a call, or of a stream, after so many polls.
#[derive(Clone, Copy)]
enum Fate {
    Answer,
    Stream,
    Fail,
    Panic,
}

/// A model that does anything.
#[derive(Clone)]
struct Wild {
    rng: Arc<Mutex<Rng>>,
    running: Arc<AtomicU32>,
    /// The most that may run at the same time.
    most: u32,
}

/// One that runs.
struct Running(Arc<AtomicU32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

struct Play {
    running: Option<Running>,
    polls: u32,
    fate: Fate,
    rest: (u32, Fate),
}

/// Without the hook that prints it.
fn panic() -> ! {
    resume_unwind(Box::new("as it happens"))
}

impl Wild {
    fn fate(rng: &mut Rng) -> Fate {
        match rng.u8(0..10) {
            0..4 => Fate::Answer,
            4..7 => Fate::Stream,
            7..9 => Fate::Fail,
            _ => Fate::Panic,
        }
    }
}

impl Service<LlmRequest> for Wild {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Play;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Play {
        let mut rng = self.rng.lock().expect("no panic under it");
        let [one, other] = [Self::fate(&mut rng), Self::fate(&mut rng)];
        let (polls, more, at_once) = (rng.u32(0..4), rng.u32(0..4), rng.u8(0..50) == 0);
        drop(rng);
        let running = self.running.fetch_add(1, SeqCst);
        let running_one = Running(self.running.clone());
        assert!(running < self.most, "{running} run, and another one");
        if at_once {
            panic();
        }
        Play {
            running: Some(running_one),
            polls,
            fate: one,
            rest: (more, other),
        }
    }
}

impl Future for Play {
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(left) = self.polls.checked_sub(1) {
            self.polls = left;
            return Poll::Pending;
        }
        let head = Head::new("m");
        Poll::Ready(match self.fate {
            Fate::Answer => Ok(LlmResponse::complete(head, ChatCompletion::text("m", "hi"))),
            Fate::Fail => Err(LlmError::new(ErrorKind::Overloaded, "")),
            Fate::Panic => panic(),
            Fate::Stream => {
                let (polls, fate) = self.rest;
                let rest = Play {
                    running: self.running.take(),
                    polls,
                    fate,
                    rest: (0, fate),
                };
                Ok(LlmResponse::stream(head, ResponseStream::new(1, rest)))
            }
        })
    }
}

impl Stream for Play {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(left) = self.polls.checked_sub(1) {
            self.polls = left;
            return match left % 2 {
                0 => Poll::Pending,
                _ => Poll::Ready(Some(Ok(Chunk::text("w")))),
            };
        }
        Poll::Ready(match self.fate {
            Fate::Answer => Some(Ok(Chunk::finish(FinishReason::Stop))),
            Fate::Fail => Some(Err(LlmError::new(ErrorKind::StreamBroken, ""))),
            Fate::Stream => None,
            Fate::Panic => panic(),
        })
    }
}

/// A call, then its stream.
enum Open {
    Call(Pin<Box<dyn Future<Output = Result<LlmResponse, LlmError>>>>),
    Stream(ResponseStream),
}

impl Open {
    /// `None` when it is over.
    fn poll(mut self) -> Option<Self> {
        let mut cx = Context::from_waker(Waker::noop());
        match &mut self {
            Self::Call(call) => match call.as_mut().poll(&mut cx) {
                Poll::Pending => Some(self),
                Poll::Ready(Ok(response)) => match response.body {
                    Body::Stream(stream) => Some(Self::Stream(stream)),
                    Body::Complete(_) => None,
                },
                Poll::Ready(Err(_)) => None,
            },
            Self::Stream(stream) => match Pin::new(stream).poll_next(&mut cx) {
                Poll::Ready(None) => None,
                _ => Some(self),
            },
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        // An assertion of the test is not what it plays.
        match panic.is::<&str>() {
            true => panic,
            false => resume_unwind(panic),
        }
    })
}

/// So many calls, started, polled and dropped in any order; `resizes` sets the size now and then.
fn storm(seed: u64, builder: PoolBuilder, most: u32, calls: u32, resizes: bool) {
    let layer = builder.build().expect("sensible");
    let handle = layer.handle();
    let mut rng = Rng::with_seed(seed);
    let wild = Wild {
        rng: Arc::new(Mutex::new(rng.fork())),
        running: Arc::default(),
        most,
    };
    let running = wild.running.clone();
    let service = layer.layer(wild);
    let mut open: Vec<Open> = Vec::new();
    let mut begun = 0;
    while begun < calls || !open.is_empty() {
        let in_all = begun;
        if begun < calls && open.len() < 24 && rng.u8(0..3) == 0 {
            begun += 1;
            let mut service = service.clone();
            let tenant = ["a", "b", "c"][rng.usize(0..3)];
            let request = of_tenant(tenant).with_priority(Priority(rng.u8(..)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut cx).is_ready());
            if let Ok(call) = guarded(|| service.call(request)) {
                open.push(Open::Call(Box::pin(call)));
            }
        } else if !open.is_empty() {
            let one = open.swap_remove(rng.usize(0..open.len()));
            if rng.u8(0..40) > 0
                && let Ok(Some(goes_on)) = guarded(|| one.poll())
            {
                open.push(goes_on);
            }
        }
        if resizes && rng.u8(0..20) == 0 {
            handle.resize(rng.u32(1..12)).expect("sensible");
        }
        if in_all % 1_000 == 0 {
            let stats = handle.stats();
            assert!(stats.in_use + stats.waiting <= 64 + 1);
        }
    }
    let stats = handle.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0), "{stats:?}");
    assert_eq!(running.load(SeqCst), 0);
    let over = stats.admitted + stats.left + stats.rejected_in_all();
    assert!(over <= u64::from(calls));
    assert!(
        stats.admitted > u64::from(calls) / 4 && stats.left > 0,
        "{stats:?}"
    );
}

/// L4: a hundred thousand in all.
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_drops_errors_and_panics_lose_no_slot() {
    storm(1, sized(5), 5, 30_000, false);
    let temporary = sized(4).overflow(Overflow::Temporary(3)).max_queued(20);
    storm(2, temporary.evict_lower(true), 7, 20_000, false);
    let committed = sized(5).hold_until(HoldUntil::Committed);
    storm(3, committed, u32::MAX, 15_000, false);
    storm(4, sized(5), u32::MAX, 20_000, true);
    let gradient = PoolLayer::builder().gradient(Gradient::new().between(1..=20));
    storm(5, gradient, u32::MAX, 15_000, true);
}
