//! What a call costs.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{
    Body, ChatCompletion, Chunk, Completion, Estimate, FinishReason, Head, Identity, KeyBy,
    LlmError, LlmRequest, LlmResponse, Name, NanoUsd, ResponseStream,
};
use donjon_failover::{
    Failover, HealthPolicy, LeastBusy, LeastLatency, LowestCost, Ordered, Resume, RoundRobin,
    Route, Sticky, Target, Weighted,
};
use futures_util::StreamExt;
use tower::Service;

#[derive(Clone)]
struct Leaf(Completion);

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        ready(Ok(LlmResponse::complete(
            Head::new(request.model().clone()),
            self.0.clone(),
        )))
    }
}

#[test]
fn a_call_that_is_answered_whole_allocates_nothing_but_its_ledger() {
    whole_answers_allocate_nothing(None);
    whole_answers_allocate_nothing(Some(Resume::new()));
}

fn whole_answers_allocate_nothing(resume: Option<Resume>) {
    let leaf = Leaf(ChatCompletion::text("m", "hi").into());
    let targets = ["a", "b", "c"].map(|name| Target::new(name, leaf.clone()).map_model("m", "own"));
    let mut failover = Failover::builder()
        .targets(targets)
        .resume(resume)
        .build()
        .expect("a good configuration");
    // Whatever is made once a thread is made here.
    drop(LlmRequest::chat("m", []));

    let request = LlmRequest::chat("m", []);
    let ledger = allocation_counter::measure(|| {
        let mut request = request.clone();
        request.call.begin();
    });
    assert_eq!(ledger.count_total, 1);

    let fresh = request.clone();
    let mut begun = request.clone();
    begun.call.begin();
    let mut ask = |request: LlmRequest| {
        let mut call = pin!(failover.call(request));
        let answer = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(black_box(answer), Poll::Ready(Ok(_))));
    };
    assert_eq!(allocation_counter::measure(|| ask(fresh)).count_total, 1);
    assert_eq!(allocation_counter::measure(|| ask(begun)).count_total, 0);
}

#[test]
fn choosing_allocates_nothing_however_many_targets_there_are() {
    let leaf = Leaf(ChatCompletion::text("m", "hi").into());
    let free = |_: Name, _: &str, _: Estimate| Some(NanoUsd::ZERO);
    let routes: [fn() -> Box<dyn Route>; 7] = [
        || Box::new(Ordered),
        || Box::new(RoundRobin::new()),
        || Box::new(Weighted),
        || Box::new(LeastLatency),
        || Box::new(LeastBusy::new()),
        || Box::new(Sticky::by(KeyBy::Tenant)),
        || Box::new(Sticky::by_first_message()),
    ];
    let mut all: Vec<Box<dyn Route>> = routes.iter().map(|route| route()).collect();
    all.push(Box::new(LowestCost::new(free)));
    for route in all {
        let names = (0..300).map(|at| format!("cost-{at}"));
        let targets = names.map(|name| Target::new(name.as_str(), leaf.clone()));
        let mut failover = Failover::builder()
            .targets(targets)
            .route(Boxed(route))
            .health(HealthPolicy::new().slow_answer(std::time::Duration::from_secs(1)))
            .build()
            .expect("a good configuration");
        let handle = failover.handle();
        let who = Identity::builder().tenant("acme").build();
        let request = LlmRequest::chat("m", []).on_behalf_of(who);
        let mut ask = |begun: &LlmRequest| {
            let mut begun = begun.clone();
            begun.call.begin();
            let measured = allocation_counter::measure(|| {
                let mut call = pin!(failover.call(begun));
                let answer = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(black_box(answer), Poll::Ready(Ok(_))));
            });
            measured.count_total
        };
        ask(&request);
        assert_eq!(ask(&request), 0, "all are alike");
        handle.disable("cost-0").expect("it is there");
        handle.set_max_in_flight("cost-1", 5).expect("it is there");
        handle.set_priority("cost-2", 1).expect("it is there");
        assert_eq!(ask(&request), 0, "each is looked at");
    }
}

/// A stream that is kept in case it breaks has one box more, and a text that grows; its chunks are not
/// copied.
#[test]
fn a_stream_that_can_be_continued_allocates_hardly_more() {
    let read = |resume: Option<Resume>| {
        let leaf = tower::service_fn(|request: LlmRequest| {
            let texts = (0..1000).map(|_| Ok(Chunk::text(" keep")));
            let end = [Ok(Chunk::finish(FinishReason::Stop))];
            let stream = futures_util::stream::iter(texts.chain(end));
            let head = Head::new(request.model().clone());
            let answer = LlmResponse::stream(head, ResponseStream::new(1, stream));
            ready(Ok::<_, LlmError>(answer))
        });
        let targets = ["a", "b"].map(|name| Target::new(name, leaf));
        let failover = Failover::builder().targets(targets).resume(resume).build();
        let mut failover = failover.expect("a good configuration");
        let read = |mut request: LlmRequest| {
            request.call.begin();
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(answer)) = pin!(failover.call(request)).poll(cx) else {
                panic!("no answer at once")
            };
            let Body::Stream(mut stream) = answer.body else {
                panic!("no stream")
            };
            let mut chunks = 0;
            while let Poll::Ready(Some(item)) = stream.poll_next_unpin(cx) {
                chunks += usize::from(black_box(item).is_ok());
            }
            assert_eq!(chunks, 1001);
        };
        let mut read = read;
        read(LlmRequest::chat("m", []).streamed());
        let request = LlmRequest::chat("m", []).streamed();
        allocation_counter::measure(|| read(request)).count_total
    };
    let (off, on) = (read(None), read(Some(Resume::new())));
    let growth = u64::from((1000 * 5_u32).ilog2());
    assert!(on > off && on <= off + 1 + growth, "{on} instead of {off}");
}

struct Boxed(Box<dyn Route>);

impl Route for Boxed {
    fn choose<'a>(
        &self,
        candidates: donjon_failover::Candidates<'a>,
        request: &LlmRequest,
    ) -> Option<donjon_failover::TargetView<'a>> {
        self.0.choose(candidates, request)
    }

    fn uses_load(&self) -> bool {
        self.0.uses_load()
    }

    fn uses_latency(&self) -> bool {
        self.0.uses_latency()
    }
}
