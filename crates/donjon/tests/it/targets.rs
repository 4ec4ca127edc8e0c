//! Which target the preset asks, and targets that change while it runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use donjon::{
    BoxLlmService, ChatCompletion, ErrorKind, Head, Key, LlmError, LlmRequest, LlmResponse,
    Message, Preset, Snapshot, Stack,
    circuit_breaker::BreakerLayer,
    failover::{
        ConfigError, HealthPolicy, LeastLatency, Probes, RoundRobin, Target, TargetStatus, WhenOut,
    },
    pool::PoolLayer,
    retry::RetryLayer,
};
use tokio::time::sleep;
use tower::service_fn;

const SECOND: Duration = Duration::from_secs(1);

fn ask() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("hi")])
}

/// A model that counts its calls, and fails while the switch is on.
#[derive(Clone, Default)]
struct Model {
    calls: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
}

impl Model {
    fn target(&self, name: &str) -> Target<BoxLlmService> {
        let of = self.clone();
        let service = service_fn(move |request: LlmRequest| {
            of.calls.fetch_add(1, SeqCst);
            let down = of.down.load(SeqCst);
            async move {
                tokio::task::yield_now().await;
                if down {
                    return Err(LlmError::new(ErrorKind::ServerError, "down"));
                }
                let head = Head::new(request.model().clone());
                Ok(LlmResponse::complete(head, ChatCompletion::text("m", "hi")))
            }
        });
        Target::new(name, BoxLlmService::new(service))
    }

    fn count(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

/// Asks each target once.
fn preset() -> Preset<BoxLlmService> {
    let once = RetryLayer::builder().max_attempts(1).build();
    Preset::new().retry(once.expect("good"))
}

async fn served(stack: &Stack<BoxLlmService>) -> String {
    let answer = stack.send(ask()).await.expect("somebody serves");
    answer.head.target.expect("a name").as_str().to_owned()
}

#[tokio::test(start_paused = true)]
async fn what_failover_has_the_preset_has() {
    let (one, two) = (Model::default(), Model::default());
    let probed = Arc::new(AtomicUsize::new(0));
    let looked = probed.clone();
    let probe = move || {
        looked.fetch_add(1, SeqCst);
        std::future::ready(Ok::<_, LlmError>(()))
    };
    let stack = preset()
        .breaker(None)
        .route(RoundRobin::new())
        .health(HealthPolicy::new().consecutive_failures(2))
        .when_out(WhenOut::Fail)
        .probes(Probes::every(SECOND))
        .target(one.target("one").probe(probe))
        .target(two.target("two"))
        .build()
        .expect("good");
    for _ in 0..10 {
        served(&stack).await;
    }
    assert_eq!((one.count(), two.count()), (5, 5));
    one.down.store(true, SeqCst);
    for _ in 0..10 {
        assert_eq!(served(&stack).await, "two");
    }
    let status = |name: &str| stack.failover().target(name).expect("it is there").status;
    assert!(matches!(status("one"), TargetStatus::Out { .. }));
    assert_eq!(one.count(), 7);
    stack.failover().disable("two").expect("it is there");
    let error = stack.send(ask()).await.expect_err("nobody is asked");
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    assert_eq!(error.retry_after(), Some(10 * SECOND));
    assert_eq!(one.count(), 7);
    sleep(5 * SECOND).await;
    assert!((4..=7).contains(&probed.load(SeqCst)));
    let kept = (stack.failover().clone(), stack.snapshots());
    drop(stack);
    sleep(SECOND).await;
    let before = probed.load(SeqCst);
    sleep(10 * SECOND).await;
    assert_eq!(probed.load(SeqCst), before, "they end with the stack");
    drop(kept);
}

#[test]
fn what_makes_no_sense_can_be_told_by_its_type() {
    let fails = |preset: Preset<BoxLlmService>| {
        let error = preset.build().expect_err("refused");
        let of_failover = error.get_ref().downcast_ref::<ConfigError>();
        of_failover.map(|error| error.field().into_owned())
    };
    let target = || Model::default().target("one");
    let policy = HealthPolicy::new().minimum_calls(0);
    assert_eq!(
        fails(preset().target(target()).health(policy)).as_deref(),
        Some("health.minimum_calls")
    );
    let probes = Probes::every(Duration::ZERO);
    assert_eq!(
        fails(preset().target(target()).probes(probes)).as_deref(),
        Some("probes.interval")
    );
    let decay = preset().route(LeastLatency).latency_decay(Duration::ZERO);
    assert_eq!(
        fails(decay.target(target())).as_deref(),
        Some("latency_decay")
    );
    assert_eq!(
        fails(preset().target(target().weight(0))).as_deref(),
        Some("targets[0].weight")
    );
    let unknown = preset().target(target());
    let unknown = unknown.pool_of("two", PoolLayer::new(1).expect("good"));
    assert_eq!(fails(unknown), None, "it is the preset's own");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_put_has_the_layers_of_all_and_one_that_goes_takes_its_own_along() {
    let (one, two) = (Model::default(), Model::default());
    let stack = preset()
        .breaker(BreakerLayer::builder().consecutive_failures(1))
        .pool(PoolLayer::builder().size(3))
        .target(one.target("one"))
        .build()
        .expect("good");
    assert_eq!(served(&stack).await, "one");
    // Clones share what is put.
    let clone = stack.clone();
    clone.put(two.target("two").priority(1)).expect("good");
    let names = |stack: &Stack<_>| {
        let all = stack.targets().into_iter();
        all.map(|of| of.target.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&stack), ["one", "two"]);
    one.down.store(true, SeqCst);
    assert_eq!(served(&stack).await, "two");
    let of_one = stack.target("one").expect("it is there");
    let open = |of: &donjon::TargetHandles| of.breaker.as_ref().map(|b| b.health().is_err());
    assert_eq!(open(&of_one), Some(true), "its circuit is open");
    let before = one.count();
    assert_eq!(served(&stack).await, "two");
    assert_eq!(one.count(), before);
    let of_two = stack.target("two").expect("it is there");
    assert_eq!(open(&of_two), Some(false));
    assert_eq!(of_two.pool.expect("a pool").stats().size, 3);

    // One of its name begins anew.
    one.down.store(false, SeqCst);
    stack.put(one.target("one")).expect("good");
    assert_eq!(served(&stack).await, "one");
    let anew = stack.target("one").expect("it is there");
    assert_eq!(open(&anew), Some(false));

    stack.remove("one").expect("it is there");
    assert_eq!(names(&stack), ["two"]);
    assert_eq!(served(&stack).await, "two");
    let unknown = stack.remove("one").expect_err("it is gone");
    assert_eq!(unknown.name(), "one");
    let wrong = stack
        .put(one.target("three").weight(0))
        .expect_err("refused");
    assert_eq!(wrong.to_string(), "`targets[1].weight`: must be at least 1");
    assert_eq!(names(&stack), ["two"], "what is refused leaves nothing");
    let figures = stack.snapshots().into_iter().flat_map(|s| s.figures());
    let of_gone = |f: &donjon::Figure| f.labels.iter().any(|label| label.1 == "one");
    assert!(!figures.into_iter().any(|f| of_gone(&f)));
}

#[tokio::test(start_paused = true)]
async fn what_was_set_for_a_name_stays_with_it() {
    let one = Model::default();
    let breaker = BreakerLayer::builder().consecutive_failures(1).build();
    let stack = preset()
        .breaker_of("one", breaker.expect("good"))
        .target(one.target("one"))
        .target(Model::default().target("two"))
        .build()
        .expect("good");
    let circuit = stack.target("one").and_then(|of| of.breaker);
    let circuit = circuit.expect("it has one").circuit_or_new(&Key::Global);
    circuit.expect("room").force_open();
    stack.put(one.target("one")).expect("good");
    assert_eq!(served(&stack).await, "two", "the circuit is still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_during_calls_lose_and_double_none() {
    const CALLS: usize = 20_000;
    let model = Model::default();
    let stack = preset()
        .route(RoundRobin::new())
        .target(model.target("a"))
        .target(model.target("b"))
        .build()
        .expect("good");
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let stack = stack.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS / 4 {
                    stack.send(ask()).await.expect("somebody serves");
                }
            })
        })
        .collect();
    let mut changes = 0;
    while model.count() < CALLS - 100 {
        match changes % 3 {
            0 => stack.put(model.target("c")).expect("good"),
            1 => stack.put(model.target("a")).expect("good"),
            _ => stack.remove("c").expect("it is there"),
        }
        changes += 1;
        tokio::task::yield_now().await;
    }
    for worker in workers {
        worker.await.expect("no panic");
    }
    assert!(changes > 50, "{changes} changes");
    assert_eq!(model.count(), CALLS);
}
