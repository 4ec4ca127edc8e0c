//! The four shapes of readiness over tower's own services.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use donjon_core::{
    BoxLlmService, ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse,
    ResponseStream,
    shape::{
        Admission, Admit, Check, CheckService, Gate, Lookup, ReadyCall, Shortcut, ShortcutService,
        Spare,
    },
};
use tokio::sync::oneshot;
use tokio_test::{assert_pending, assert_ready, task::spawn};
use tower::{Service, ServiceExt, limit::ConcurrencyLimit};

use crate::{Heard, Log};

/// A service that counts its calls and panics when it was not readied.
#[derive(Debug, Default)]
struct Leaf {
    calls: Arc<AtomicUsize>,
    ready: bool,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self {
            calls: self.calls.clone(),
            ready: false,
        }
    }
}

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being readied"
        );
        self.calls.fetch_add(1, SeqCst);
        ready(Ok(answer()))
    }
}

fn answer() -> LlmResponse {
    LlmResponse::complete(Head::new("m"), ChatCompletion::text("m", "hi"))
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [])
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn is_ready<S: Service<LlmRequest>>(service: &mut S) -> bool {
    matches!(service.poll_ready(&mut cx()), Poll::Ready(Ok(())))
}

struct Allow(bool, Log);

impl Check for Allow {
    type Permit = Box<dyn donjon_core::Observer>;
    fn check(&self, _: &mut LlmRequest) -> Result<Option<Self::Permit>, LlmError> {
        if self.0 {
            Ok(Some(Box::new(self.1.observer("permit"))))
        } else {
            Err(LlmError::new(ErrorKind::CircuitOpen, ""))
        }
    }
}

#[tokio::test]
async fn a_check_admits_or_rejects_and_needs_no_clone() {
    let log = Log::default();
    let leaf = Leaf::default();
    let calls = leaf.calls.clone();
    let mut open = CheckService::new(leaf, Allow(true, log.clone()));
    assert!(is_ready(&mut open));
    open.call(request()).await.expect("admitted");
    assert_eq!(log.heard(), [Heard::Committed, Heard::Success]);

    let mut closed = CheckService::new(Leaf::default(), Allow(false, log));
    assert!(is_ready(&mut closed));
    let error = closed.call(request()).await.expect_err("rejected");
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!(calls.load(SeqCst), 1);
}

/// What holds nothing costs a stream nothing: no observer is put on it.
#[tokio::test]
async fn where_nothing_is_held_nothing_is_watched() {
    struct Streams;
    impl Service<LlmRequest> for Streams {
        type Response = LlmResponse;
        type Error = LlmError;
        type Future = std::future::Ready<Result<LlmResponse, LlmError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: LlmRequest) -> Self::Future {
            let stream = ResponseStream::new(1, futures_util::stream::empty());
            std::future::ready(Ok(LlmResponse::stream(Head::new("m"), stream)))
        }
    }
    async fn allocations<S>(mut service: S) -> u64
    where
        S: Service<LlmRequest, Response = LlmResponse, Error = LlmError>,
    {
        assert!(is_ready(&mut service));
        let request = request().streamed();
        let mut call = std::pin::pin!(service.call(request));
        let counted = allocation_counter::measure(|| {
            assert!(matches!(call.as_mut().poll(&mut cx()), Poll::Ready(Ok(_))));
        });
        counted.count_total
    }
    let bare = allocations(Streams).await;
    let free = CheckService::new(Streams, None::<Allow>);
    assert_eq!(allocations(free).await, bare);
    let held = CheckService::new(Streams, Some(Allow(true, Log::default())));
    assert!(allocations(held).await > bare);
}

#[tokio::test]
async fn without_a_gate_every_call_passes() {
    let leaf = Leaf::default();
    let calls = leaf.calls.clone();
    let mut gate = Gate::new(ConcurrencyLimit::new(leaf, 1), None::<Turn>);
    for _ in 0..2 {
        std::future::poll_fn(|cx| gate.poll_ready(cx))
            .await
            .expect("ready");
        gate.call(request()).await.expect("passed");
    }
    assert_eq!(calls.load(SeqCst), 2);
}

/// Makes a call wait until it is told to go on, or lets it through at once.
#[derive(Clone)]
struct Turn(Arc<std::sync::Mutex<Option<oneshot::Receiver<bool>>>>);

type Wait = std::pin::Pin<Box<dyn Future<Output = Result<(), LlmError>> + Send>>;

impl Admit for Turn {
    type Permit = ();
    type Wait = Wait;
    fn admit(&self, _: &mut LlmRequest) -> Admission<(), Wait> {
        match self.0.lock().expect("no panic").take() {
            None => Admission::Yes(()),
            Some(turn) => Admission::Wait(Box::pin(async move {
                match turn.await {
                    Ok(true) => Ok(()),
                    _ => Err(LlmError::new(ErrorKind::QueueFull, "")),
                }
            })),
        }
    }
}

#[tokio::test]
async fn a_gate_lets_go_of_the_readied_service_while_it_waits() {
    let leaf = Leaf::default();
    let calls = leaf.calls.clone();
    let limited = ConcurrencyLimit::new(leaf, 1);
    let (go, turn) = oneshot::channel();
    let mut gate = Gate::new(
        limited.clone(),
        Turn(Arc::new(std::sync::Mutex::new(Some(turn)))),
    );
    assert!(is_ready(&mut gate), "it holds the one permit now");
    let mut waiting = spawn(gate.call(request()));
    assert_pending!(waiting.poll());

    // The permit is free for others while the first call waits for its turn.
    let mut other = limited.clone();
    other
        .ready()
        .await
        .expect("free")
        .call(request())
        .await
        .expect("served");
    assert_eq!(calls.load(SeqCst), 1);

    go.send(true).expect("it waits");
    assert!(waiting.is_woken());
    assert!(assert_ready!(waiting.poll()).is_ok());
    assert_eq!(calls.load(SeqCst), 2);

    drop(waiting);
    // The gate itself can be used again, readied anew.
    assert!(is_ready(&mut gate));
    gate.call(request()).await.expect("served");
}

#[tokio::test]
async fn a_gate_calls_the_readied_service_at_once_without_allocating() {
    let leaf = Leaf::default();
    let mut gate = Gate::new(leaf, Turn(Arc::default()));
    let mut request = request();
    request.call.begin();
    let mut keep = None;
    let counted = allocation_counter::measure(|| {
        assert!(is_ready(&mut gate));
        let mut call = std::pin::pin!(gate.call(request.clone()));
        keep = Some(call.as_mut().poll(&mut cx()));
    });
    assert!(matches!(keep, Some(Poll::Ready(Ok(_)))));
    // What the leaf allocates for its answer.
    let leafs = allocation_counter::measure(|| drop(answer()));
    assert_eq!(counted.count_total, leafs.count_total);
}

#[tokio::test]
async fn a_turn_that_never_comes_rejects() {
    let (go, turn) = oneshot::channel();
    let leaf = Leaf::default();
    let calls = leaf.calls.clone();
    let mut gate = Gate::new(leaf, Turn(Arc::new(std::sync::Mutex::new(Some(turn)))));
    assert!(is_ready(&mut gate));
    let waiting = gate.call(request());
    go.send(false).expect("it waits");
    let error = waiting.await.expect_err("rejected");
    assert_eq!(
        (error.kind(), calls.load(SeqCst)),
        (ErrorKind::QueueFull, 0)
    );
}

#[derive(Clone)]
struct Known(bool);

impl Shortcut for Known {
    type Learn = ();
    type Find = Ready<Result<Lookup<()>, LlmError>>;
    fn find(&self, _: &mut LlmRequest) -> Self::Find {
        ready(Ok(if self.0 {
            Lookup::Hit(answer())
        } else {
            Lookup::Miss(())
        }))
    }
}

#[tokio::test]
async fn a_shortcut_needs_the_service_below_only_on_a_miss() {
    let limited = ConcurrencyLimit::new(Leaf::default(), 1);
    let mut taken = limited.clone();
    taken.ready().await.expect("free");

    let mut hit = ShortcutService::new(limited.clone(), Known(true));
    assert!(is_ready(&mut hit), "although the service below is not");
    hit.call(request()).await.expect("known");

    let mut miss = ShortcutService::new(limited, Known(false));
    assert!(is_ready(&mut miss));
    let mut waiting = spawn(miss.call(request()));
    assert_pending!(waiting.poll());
    drop(taken);
    assert!(waiting.is_woken());
    assert!(assert_ready!(waiting.poll()).is_ok());
}

#[tokio::test]
async fn a_driver_calls_again_on_a_service_that_it_readied() {
    let leaf = Leaf::default();
    let calls = leaf.calls.clone();
    let mut spare = Spare::new(ConcurrencyLimit::new(leaf, 1));
    assert!(is_ready(spare.get_mut()));
    let service = spare.take();
    let mut call = Box::pin(ReadyCall::resting(service));
    call.as_mut().call_readied(request());
    call.as_mut().await.expect("served");
    call.as_mut().rest();
    assert!(
        is_ready(spare.get_mut()),
        "a resting driver holds no permit"
    );
    drop(spare);
    call.as_mut().call_again(request());
    call.as_mut().await.expect("served");
    assert_eq!(calls.load(SeqCst), 2);
}

#[tokio::test]
async fn an_erased_service_clones_for_nothing_and_boxes_once() {
    let service = BoxLlmService::new(Leaf::default());
    let is_sync = |_: &(dyn Sync + Send)| {};
    is_sync(&service);
    let cloned = allocation_counter::measure(|| drop(service.clone()));
    assert_eq!(cloned.count_total, 0);

    let request = request();
    let mut service = service.clone();
    let counted = allocation_counter::measure(|| {
        assert!(is_ready(&mut service));
        let call = service.call(request.clone());
        let mut call = std::pin::pin!(call);
        assert!(matches!(call.as_mut().poll(&mut cx()), Poll::Ready(Ok(_))));
    });
    let leafs = allocation_counter::measure(|| drop(answer()));
    assert_eq!(counted.count_total, leafs.count_total + 1);
}

/// What was readied is free again, and what takes its place is readied before it is called.
#[tokio::test]
async fn a_driver_that_lets_go_holds_nothing_and_readies_anew() {
    let leaf = Leaf::default();
    let calls = leaf.calls.clone();
    let mut spare = Spare::new(ConcurrencyLimit::new(leaf, 1));
    assert!(is_ready(spare.get_mut()));
    let mut call = Box::pin(ReadyCall::resting(spare.take()));
    assert!(
        !is_ready(spare.get_mut()),
        "the one that rests has the permit"
    );
    call.as_mut().let_go();
    assert!(is_ready(spare.get_mut()), "it gave it back");
    drop(spare);
    call.as_mut().call_again(request());
    call.as_mut().await.expect("served");
    assert_eq!(calls.load(SeqCst), 1);
}

/// T1: what was readied for a call that is refused is free for others.
#[tokio::test]
async fn a_gate_that_refuses_lets_go_of_the_readied_service() {
    struct Refuses;
    impl Admit for Refuses {
        type Permit = ();
        type Wait = Wait;
        fn admit(&self, _: &mut LlmRequest) -> Admission<(), Wait> {
            Admission::No(LlmError::new(ErrorKind::LimitedLocally, ""))
        }
    }
    let mut limited = ConcurrencyLimit::new(Leaf::default(), 1);
    let mut gate = Gate::new(limited.clone(), Refuses);
    assert!(is_ready(&mut gate));
    assert!(!is_ready(&mut limited), "the gate has the permit");
    let call = gate.call(request());
    assert!(is_ready(&mut limited), "it was given back");
    call.await.expect_err("refused");
}

/// Nothing is held for it, and a stream passes as it is.
#[tokio::test]
async fn what_passes_freely_is_not_watched() {
    struct Passes;
    impl Admit for Passes {
        type Permit = Held;
        type Wait = std::future::Pending<Result<Held, LlmError>>;
        fn admit(&self, _: &mut LlmRequest) -> Admission<Held, Self::Wait> {
            Admission::Free
        }
    }
    struct Held;
    impl donjon_core::Observer for Held {
        fn end(&mut self, _: &donjon_core::End<'_>) {
            panic!("nothing was held");
        }
    }
    let streams = tower::service_fn(|_: LlmRequest| {
        let chunks = vec![
            Some(Ok(donjon_core::Chunk::text("a"))),
            Some(Ok(donjon_core::Chunk::finish(
                donjon_core::FinishReason::Stop,
            ))),
        ];
        let stream = ResponseStream::new(1, crate::Items(chunks));
        ready(Ok::<_, LlmError>(LlmResponse::stream(
            Head::new("m"),
            stream,
        )))
    });
    let mut gate = Gate::new(streams, Passes);
    let response = gate.ready().await.expect("ready").call(request()).await;
    let text = response.expect("admitted").text().await.expect("whole");
    assert_eq!(text, "a");
}
