//! Two lines of attempts of one call, as a hedge makes them, through one failover.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use donjon_core::{AttemptCause, ErrorKind, Ledger, LlmError, LlmRequest, LlmResponse};
use donjon_failover::{Failover, HealthPolicy, LeastBusy, Target, TargetStatus, WhenOut};
use donjon_testkit::{Script, ScriptedLlm, probe::poll_once};
use tower::ServiceExt;

use crate::{builder, counts, failover, model, reasons, request, served};

const SECOND: Duration = Duration::from_secs(1);

type Line = Pin<Box<dyn Future<Output = Result<LlmResponse, LlmError>>>>;

/// A call whose first line is out.
struct Lines {
    failover: Failover<ScriptedLlm>,
    request: LlmRequest,
    ledger: Arc<Ledger>,
    first: Line,
}

impl Lines {
    fn new(failover: Failover<ScriptedLlm>) -> Self {
        let mut request = request();
        let ledger = request.call.begin().clone();
        request.call.open_attempt(AttemptCause::First);
        let mut first: Line = Box::pin(failover.clone().oneshot(request.clone()));
        assert!(poll_once(&mut first).is_pending());
        Self {
            failover,
            request,
            ledger,
            first,
        }
    }

    /// A hedge beside what was opened last.
    fn hedge(&self) -> Line {
        let mut request = self.request.clone();
        let parent = self.ledger.opened() - 1;
        self.ledger.set_untried(0);
        request
            .call
            .open_attempt_from(AttemptCause::Hedge, Some(parent));
        Box::pin(self.failover.clone().oneshot(request))
    }

    fn figures(&self) -> (u32, u32, u32) {
        let ledger = &self.ledger;
        (ledger.sent(), ledger.targets(), ledger.untried())
    }
}

fn fails(after: Duration) -> ScriptedLlm {
    model(Script::fail(ErrorKind::Unavailable).head_after(after))
}

#[tokio::test(start_paused = true)]
async fn a_second_line_asks_another_target_while_there_is_one() {
    let models = [model(Script::hang()), model("b"), model("c")];
    let lines = Lines::new(failover(&models));
    assert_eq!(lines.figures(), (1, 3, 2));
    assert_eq!(served(&lines.hedge().await), "b");
    assert_eq!(lines.figures(), (2, 3, 1), "the same targets, one untried");
    assert_eq!(served(&lines.hedge().await), "c");
    // Those who served are asked already, too, as far as this call goes.
    assert_eq!(lines.figures(), (3, 3, 0));
    assert_eq!(counts(&models), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_other_the_same_is_asked() {
    let models = [ScriptedLlm::new("again").commits()];
    models[0].push(Script::hang());
    let lines = Lines::new(failover(&models));
    assert_eq!(served(&lines.hedge().await), "a");
    assert_eq!(lines.figures(), (2, 1, 0));
    // So it is where the others cannot be asked.
    let models = [ScriptedLlm::new("again").commits(), model("b")];
    models[0].push(Script::hang());
    let failover = failover(&models);
    failover.handle().disable("b").expect("it is there");
    let lines = Lines::new(failover);
    assert_eq!(served(&lines.hedge().await), "a");
    assert_eq!(counts(&models), [2, 0]);
}

/// Neither line asks whom the other one asks, or has asked in vain: together they ask as many as one.
#[tokio::test(start_paused = true)]
async fn each_target_is_asked_in_one_line() {
    let models = [
        fails(3 * SECOND),
        fails(SECOND),
        fails(SECOND),
        fails(SECOND),
    ];
    let mut lines = Lines::new(failover(&models));
    let tasks = tokio::task::LocalSet::new();
    let second = lines.hedge();
    tasks
        .run_until(async move {
            let second = tokio::task::spawn_local(second);
            let first = (&mut lines.first).await.expect_err("all fail");
            // b at 0, c at 1, d at 2 in the hedge; nothing is left for the first.
            assert_eq!(reasons(&first), [("a", ErrorKind::Unavailable)]);
            let second = second.await.expect("no panic").expect_err("all fail");
            let unavailable = ErrorKind::Unavailable;
            assert_eq!(reasons(&second), ["b", "c", "d"].map(|t| (t, unavailable)));
            assert_eq!((lines.ledger.sent(), lines.ledger.targets()), (4, 4));
        })
        .await;
    assert_eq!(counts(&models), [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_first_line_passes_over_whom_the_second_asks() {
    let models = [fails(SECOND), model(Script::hang()), model("c")];
    let mut lines = Lines::new(failover(&models));
    let mut hedge = lines.hedge();
    assert!(poll_once(&mut hedge).is_pending());
    assert_eq!(served(&(&mut lines.first).await), "c");
    assert_eq!(counts(&models), [1, 1, 1]);
    assert_eq!(lines.figures(), (3, 3, 0));
}

/// Whom the first line asked in vain is asked again rather than whom it is waiting for.
#[tokio::test(start_paused = true)]
async fn who_failed_comes_before_who_is_slow() {
    let models = [
        ScriptedLlm::new("now it serves").commits(),
        model(Script::hang()),
    ];
    models[0].push(ErrorKind::Unavailable);
    let lines = Lines::new(failover(&models));
    assert_eq!(served(&lines.hedge().await), "a");
    assert_eq!(counts(&models), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_out_is_no_better_than_one_that_is_slow() {
    let models = [
        ScriptedLlm::new("again").commits(),
        model(ErrorKind::Unavailable),
    ];
    let policy = HealthPolicy::new()
        .consecutive_failures(1)
        .out_for(60 * SECOND);
    for when_out in [WhenOut::LeastBad, WhenOut::Fail] {
        let built = builder(&models).health(policy.clone()).when_out(when_out);
        let failover = built.build().expect("a good configuration");
        // It fails once, and is out.
        let handle = failover.handle();
        handle.set_priority("a", 1).expect("it is there");
        assert_eq!(served(&failover.clone().oneshot(request()).await), "a");
        handle.set_priority("a", 0).expect("it is there");
        let status = handle.target("b").expect("it is there").status;
        assert!(matches!(status, TargetStatus::Out { .. }), "{status:?}");
        models[0].push(Script::hang());
        let lines = Lines::new(failover);
        assert_eq!(served(&lines.hedge().await), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_chooses_among_those_that_are_left() {
    let models = [model(Script::hang()), model("b"), model("c")];
    let failover = builder(&models)
        .route(LeastBusy::new())
        .build()
        .expect("a good configuration");
    let lines = Lines::new(failover);
    let who = lines.hedge().await;
    assert_ne!(served(&who), "a");
}

/// A call that comes with the ledger of another failover's line is none of ours.
#[tokio::test(start_paused = true)]
async fn targets_of_others_are_no_rivals() {
    let models = [model(Script::hang()), model("b")];
    let lines = Lines::new(failover(&models));
    let other = [model("x")];
    let others = Failover::builder().target(Target::new("x", other[0].clone()));
    let others = others.build().expect("a good configuration");
    let mut request = lines.request.clone();
    request.call.open_attempt_from(AttemptCause::Hedge, Some(1));
    assert_eq!(served(&others.oneshot(request).await), "x");
    assert_eq!(lines.ledger.targets(), 2, "one more group of one");
}

/// Both lines at the cap: one attempt is left, and one of them has it.
#[tokio::test(start_paused = true)]
async fn two_lines_never_make_more_attempts_than_the_call_may() {
    let models: Vec<_> = (0..5).map(|_| fails(SECOND)).collect();
    let mut lines = Lines::new(failover(&models));
    lines.ledger.limit_attempts(3);
    let mut hedge = lines.hedge();
    assert!(poll_once(&mut hedge).is_pending());
    tokio::time::sleep(SECOND).await;
    // Both fail at once, and both would go on; the room is taken before anything is sent.
    assert!(poll_once(&mut lines.first).is_pending());
    let Poll::Ready(Err(error)) = poll_once(&mut hedge) else {
        panic!("no attempt is left for the hedge");
    };
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    assert_eq!(error.message(), "no attempt is left for another target");
    (&mut lines.first).await.expect_err("it fails, too");
    assert_eq!(lines.ledger.sent(), 3);
    assert_eq!(counts(&models), [1, 1, 1, 0, 0]);
}

/// Room that was kept for an attempt which was never sent is there for the other line.
#[tokio::test(start_paused = true)]
async fn room_is_given_back_by_a_line_that_is_dropped() {
    let models: Vec<_> = (0..4).map(|_| fails(SECOND)).collect();
    let mut lines = Lines::new(failover(&models));
    lines.ledger.limit_attempts(2);
    let room = lines.ledger.reserve_hedge(0).expect("one is left");
    assert!(lines.ledger.reserve_hedge(0).is_none());
    drop(room);
    (&mut lines.first).await.expect_err("it fails");
    assert_eq!(lines.ledger.sent(), 2);
}

/// Groups may have targets of the same names; those of another group are others.
#[tokio::test(start_paused = true)]
async fn a_group_knows_its_own_targets_from_those_of_another() {
    let models: Vec<_> = (0..4)
        .map(|_| ScriptedLlm::new("served").commits())
        .collect();
    models[0].push(Script::hang());
    let groups = [failover(&models[..2]), failover(&models[2..])];
    let outer = builder(&groups).build().expect("a good configuration");
    let mut request = request();
    let ledger = request.call.begin().clone();
    request.call.open_attempt(AttemptCause::First);
    let mut first = Box::pin(outer.clone().oneshot(request.clone()));
    assert!(poll_once(&mut first).is_pending());
    let mut hedge = request.clone();
    let parent = ledger.opened() - 1;
    ledger.set_untried(0);
    hedge
        .call
        .open_attempt_from(AttemptCause::Hedge, Some(parent));
    let answer = outer.oneshot(hedge).await;
    // The other group, and there the first of its targets, which has the name of the one that is slow.
    assert_eq!(served(&answer), "a");
    assert_eq!(counts(&models), [1, 0, 1, 0]);
    assert_eq!(ledger.targets(), 4);
}
