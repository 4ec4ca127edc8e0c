//! Layers that break the contract, each in one way that was seen in the field.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use donjon_core::{Body, ErrorKind, LlmError, LlmRequest, LlmResponse, shape::Spare};
use donjon_testkit::ScriptedLlm;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, ServiceExt};

use super::Answer;

type Ready = Poll<Result<(), LlmError>>;

/// Writes the parts of a service that are alike in all.
macro_rules! service {
    ($name:ident, |$this:ident, $cx:ident| $ready:expr, |$me:ident, $request:ident| $call:expr) => {
        impl Service<LlmRequest> for $name {
            type Response = LlmResponse;
            type Error = LlmError;
            type Future = Answer;
            fn poll_ready(&mut self, $cx: &mut Context<'_>) -> Ready {
                let $this = self;
                $ready
            }
            fn call(&mut self, $request: LlmRequest) -> Answer {
                let $me = self;
                $call
            }
        }
    };
}

/// Calls a clone that nobody readied.
#[derive(Clone)]
pub(super) struct CallsAClone(pub(super) ScriptedLlm);

service!(
    CallsAClone,
    |this, cx| this.0.poll_ready(cx),
    |this, request| Box::pin(this.0.clone().call(request))
);

/// Remembers that it was readied, and its clones remember it too.
#[derive(Clone)]
pub(super) struct RemembersReadiness(pub(super) ScriptedLlm, pub(super) bool);

service!(
    RemembersReadiness,
    |this, cx| {
        if !this.1 {
            std::task::ready!(this.0.poll_ready(cx))?;
            this.1 = true;
        }
        Poll::Ready(Ok(()))
    },
    |this, request| {
        this.1 = false;
        Box::pin(this.0.call(request))
    }
);

/// Waits for its own turn with the readied service in its hand.
#[derive(Clone)]
pub(super) struct SitsInItsCall(pub(super) Spare<ScriptedLlm>, pub(super) Arc<Semaphore>);

impl SitsInItsCall {
    pub(super) fn new(leaf: ScriptedLlm) -> Self {
        Self(Spare::new(leaf), Arc::new(Semaphore::new(1)))
    }
}

// A spare hands its clone out un-readied, so the flaw is the wait alone.
service!(
    SitsInItsCall,
    |this, cx| this.0.get_mut().poll_ready(cx),
    |this, request| {
        let (mut readied, turns) = (this.0.take(), this.1.clone());
        Box::pin(async move {
            let _turn = turns.acquire().await.expect("never closed");
            readied.call(request).await
        })
    }
);

/// Readies the service below first, and waits for its own turn then.
pub(super) struct SitsInPollReady {
    inner: ScriptedLlm,
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
}

impl SitsInPollReady {
    pub(super) fn new(inner: ScriptedLlm) -> Self {
        Self {
            inner,
            turns: Arc::new(Semaphore::new(1)),
            turn: None,
        }
    }
}

impl Clone for SitsInPollReady {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            turns: self.turns.clone(),
            turn: None,
        }
    }
}

service!(
    SitsInPollReady,
    |this, cx| {
        std::task::ready!(this.inner.poll_ready(cx))?;
        if this.turn.is_none() {
            let turn = pin!(this.turns.clone().acquire_owned()).poll(cx);
            this.turn = std::task::ready!(turn).ok();
        }
        Poll::Ready(Ok(()))
    },
    |this, request| {
        let (call, turn) = (this.inner.call(request), this.turn.take());
        Box::pin(async move {
            let _turn = turn;
            call.await
        })
    }
);

/// Is broken for good after a failure.
#[derive(Clone)]
pub(super) struct FailsReadiness(pub(super) ScriptedLlm, pub(super) Arc<AtomicBool>);

service!(
    FailsReadiness,
    |this, cx| {
        if this.1.load(SeqCst) {
            return Poll::Ready(Err(LlmError::new(ErrorKind::CircuitOpen, "")));
        }
        this.0.poll_ready(cx)
    },
    |this, request| {
        let (call, failed) = (this.0.call(request), this.1.clone());
        Box::pin(async move {
            let answer = call.await;
            failed.store(answer.is_err(), SeqCst);
            answer
        })
    }
);

/// Gives its permit back by hand, which nobody does once the call is dropped.
#[derive(Clone)]
pub(super) struct LeaksItsPermit(pub(super) ScriptedLlm, pub(super) Arc<Semaphore>);

service!(
    LeaksItsPermit,
    |_this, _cx| Poll::Ready(Ok(())),
    |this, request| {
        let (service, permits) = (this.0.clone(), this.1.clone());
        Box::pin(async move {
            permits.acquire().await.expect("never closed").forget();
            let answer = service.oneshot(request).await;
            permits.add_permits(1);
            answer
        })
    }
);

/// Runs each call in a task of its own, where a drop does not reach it.
#[derive(Clone)]
pub(super) struct RunsOn(pub(super) ScriptedLlm);

service!(RunsOn, |this, cx| this.0.poll_ready(cx), |this, request| {
    let call = tokio::spawn(this.0.call(request));
    Box::pin(async move { call.await.expect("no panic") })
});

/// Takes a permit that is not there at once for one that is not there.
#[derive(Clone)]
pub(super) struct ShedsOnPending(pub(super) ScriptedLlm, pub(super) Arc<Semaphore>);

service!(
    ShedsOnPending,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        let call = this.0.call(request);
        let permits = this.1.clone();
        Box::pin(async move {
            let mut acquire = Box::pin(permits.acquire());
            let Poll::Ready(permit) = futures_util::poll!(&mut acquire) else {
                return Err(LlmError::new(ErrorKind::QueueFull, "shed"));
            };
            let _permit = permit.expect("never closed");
            call.await
        })
    }
);

/// Asks again and again whether it is its turn.
#[derive(Clone)]
pub(super) struct Spins(pub(super) ScriptedLlm, pub(super) Arc<Semaphore>);

service!(Spins, |_this, _cx| Poll::Ready(Ok(())), |this, request| {
    let (service, turns) = (this.0.clone(), this.1.clone());
    Box::pin(async move {
        let _turn = std::future::poll_fn(|cx| match turns.try_acquire() {
            Ok(turn) => Poll::Ready(turn),
            Err(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
        service.oneshot(request).await
    })
});

/// Makes an error of its own from what the model said.
#[derive(Clone)]
pub(super) struct CutsSources(pub(super) ScriptedLlm);

service!(
    CutsSources,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        let call = this.0.call(request);
        Box::pin(async move {
            call.await
                .map_err(|error| LlmError::new(error.kind(), error.to_string()))
        })
    }
);

/// Wraps the model's error so that nobody finds its kind.
#[derive(Clone)]
pub(super) struct HidesTheKind(pub(super) ScriptedLlm);

service!(
    HidesTheKind,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        let call = this.0.call(request);
        Box::pin(async move {
            call.await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                LlmError::new(ErrorKind::Internal, cause.unwrap_or_default())
            })
        })
    }
);

/// Swaps every two chunks.
#[derive(Clone)]
pub(super) struct SwapsChunks(pub(super) ScriptedLlm);

service!(
    SwapsChunks,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        let call = this.0.call(request);
        Box::pin(async move {
            Ok(call.await?.map_stream(|stream| {
                stream.wrap(|inner| {
                    inner
                        .chunks(2)
                        .flat_map(|pair| futures_util::stream::iter(pair.into_iter().rev()))
                })
            }))
        })
    }
);

/// Hides the usage.
#[derive(Clone)]
pub(super) struct LosesTheEnd(pub(super) ScriptedLlm);

service!(
    LosesTheEnd,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        let call = this.0.call(request);
        Box::pin(async move {
            Ok(call.await?.map_stream(|stream| {
                stream.wrap(|inner| {
                    inner.filter(|chunk| {
                        let is_usage = chunk.as_ref().is_ok_and(|chunk| chunk.usage.is_some());
                        std::future::ready(!is_usage)
                    })
                })
            }))
        })
    }
);

/// Keeps what is left of the streams that its callers dropped.
#[derive(Clone)]
pub(super) struct HoardsStreams(
    pub(super) ScriptedLlm,
    pub(super) Arc<Mutex<Vec<donjon_core::ResponseStream>>>,
);

service!(
    HoardsStreams,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        struct Hoard {
            stream: Option<donjon_core::ResponseStream>,
            hoard: Arc<Mutex<Vec<donjon_core::ResponseStream>>>,
        }
        impl Drop for Hoard {
            fn drop(&mut self) {
                let hoard = &mut self.hoard.lock().expect("no panic");
                hoard.extend(self.stream.take());
            }
        }
        impl futures_util::Stream for Hoard {
            type Item = Result<donjon_core::Chunk, LlmError>;
            fn poll_next(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                let stream = self.stream.as_mut().expect("not dropped yet");
                stream.poll_next_unpin(cx)
            }
        }
        let (call, hoard) = (this.0.call(request), this.1.clone());
        Box::pin(async move {
            let mut answer = call.await?;
            if let Body::Stream(stream) = answer.body {
                answer.body = Body::Stream(stream.wrap(|stream| Hoard {
                    stream: Some(stream),
                    hoard,
                }));
            }
            Ok(answer)
        })
    }
);

/// Allows one call, and counts for each service apart.
pub(super) struct CountsAlone {
    inner: ScriptedLlm,
    calls: AtomicUsize,
}

impl CountsAlone {
    pub(super) fn new(inner: ScriptedLlm) -> Self {
        let calls = AtomicUsize::new(0);
        Self { inner, calls }
    }
}

impl Clone for CountsAlone {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

service!(
    CountsAlone,
    |this, cx| this.inner.poll_ready(cx),
    |this, request| {
        if this.calls.fetch_add(1, SeqCst) > 0 {
            return Box::pin(std::future::ready(Err(LlmError::new(
                ErrorKind::LimitedLocally,
                "once",
            ))));
        }
        Box::pin(this.inner.call(request))
    }
);

/// Allows one call in all.
#[derive(Clone)]
pub(super) struct CountsTogether(pub(super) ScriptedLlm, pub(super) Arc<AtomicUsize>);

service!(
    CountsTogether,
    |this, cx| this.0.poll_ready(cx),
    |this, request| {
        if this.1.fetch_add(1, SeqCst) > 0 {
            return Box::pin(std::future::ready(Err(LlmError::new(
                ErrorKind::LimitedLocally,
                "once",
            ))));
        }
        Box::pin(this.0.call(request))
    }
);
