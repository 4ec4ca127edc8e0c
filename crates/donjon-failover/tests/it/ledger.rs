//! The attempts of a call.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use donjon_core::{
    AttemptCause, Billed, BoxLlmService, ErrorKind, LlmError, LlmRequest, LlmResponse,
};
use donjon_failover::{DEFAULT_PATIENCE, Failover, Target};
use donjon_testkit::ScriptedLlm;
use futures_util::{FutureExt, future::BoxFuture};
use tower::{Service, ServiceExt, service_fn};

use crate::{ask, builder, failover, model, request, served};

fn begun() -> LlmRequest {
    let mut request = request();
    request.call.begin();
    request
}

/// Asks the service below up to three times, as a retry does.
#[derive(Clone)]
struct Thrice<S>(S);

impl<S> Service<LlmRequest> for Thrice<S>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = BoxFuture<'static, Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        let inner = self.0.clone();
        async move {
            request.call.claim_attempt(AttemptCause::First);
            loop {
                let result = inner.clone().oneshot(request.clone()).await;
                let again = request.call.begin().may_retry(3);
                match result {
                    Err(error) if error.disposition().retry && again => {
                        request.call.claim_attempt(AttemptCause::Retry);
                    }
                    result => return result,
                }
            }
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn each_target_has_an_attempt_with_its_name_model_and_error() {
    let models = [
        model(ErrorKind::Overloaded),
        model(ErrorKind::Authentication),
        model("hi"),
    ];
    let [a, b, c] = models;
    let failover = Failover::builder()
        .target(Target::new("a", a))
        .target(Target::new("b", b).with_model("own"))
        .target(Target::new("c", c))
        .build()
        .expect("a good configuration");
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    ask(&failover, request).await.expect("c serves");
    let attempts: Vec<_> = ledger.attempts().collect();
    let told: Vec<_> = attempts
        .iter()
        .map(|a| (a.cause, a.parent, a.target.as_deref(), a.model.as_deref()))
        .collect();
    use AttemptCause::{Failover as Next, First};
    assert_eq!(
        told,
        [
            (First, None, Some("a"), Some("asked")),
            (Next, Some(0), Some("b"), Some("own")),
            (Next, Some(1), Some("c"), Some("asked")),
        ]
    );
    let errors: Vec<_> = attempts
        .iter()
        .map(|a| a.error.as_ref().map(LlmError::kind))
        .collect();
    assert_eq!(
        errors,
        [
            Some(ErrorKind::Overloaded),
            Some(ErrorKind::Authentication),
            None
        ]
    );
    assert_eq!(
        (ledger.sent(), ledger.targets(), ledger.untried()),
        (3, 3, 0)
    );
    assert_eq!(ledger.served_by().map(|a| a.index), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_target_refused_on_our_side_uses_up_nothing() {
    let models = [model(ErrorKind::CircuitOpen), model("two")];
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    ask(&failover(&models), request).await.expect("b serves");
    let first = ledger.attempts().next().expect("it was opened");
    assert_eq!((first.sent_at, first.billed), (None, Billed::No));
    assert_eq!((ledger.opened(), ledger.sent()), (2, 1));
}

#[tokio::test]
async fn targets_that_stamp_nothing_are_counted_all_the_same() {
    let bare = service_fn(|_: LlmRequest| {
        std::future::ready(Err::<LlmResponse, _>(LlmError::new(
            ErrorKind::Transport,
            "",
        )))
    });
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    ask(&failover(&[bare, bare]), request)
        .await
        .expect_err("nobody serves");
    assert_eq!((ledger.opened(), ledger.sent()), (2, 2));
    for attempt in ledger.attempts() {
        assert_eq!(attempt.error.map(|e| e.kind()), Some(ErrorKind::Transport));
        assert!(attempt.ended_at.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_gives_independent_calls() {
    let models = [model(ErrorKind::Overloaded), model("two")];
    let failover = failover(&models);
    let template = request();
    for _ in 0..1000 {
        ask(&failover, template.clone()).await.expect("b serves");
    }
    assert!(template.call.ledger().is_none());
    for call in models[1].calls() {
        let ledger = call.request.call.ledger().expect("it began").clone();
        assert_eq!((ledger.opened(), ledger.sent()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn targets_are_untried_until_their_turn_and_patience_is_set() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let book = seen.clone();
    let target = service_fn(move |request: LlmRequest| {
        let untried = request.call.ledger().expect("it began").untried();
        book.lock()
            .expect("no panic")
            .push((untried, request.call.patience));
        std::future::ready(Err(LlmError::new(ErrorKind::ServerError, "")))
    });
    let services = [target.clone(), target.clone(), target.clone(), target];
    let failover = builder(&services).build().expect("a good configuration");
    failover.handle().disable("c").expect("it is there");
    ask(&failover, request()).await.expect_err("nobody serves");
    let default = Some(DEFAULT_PATIENCE);
    assert_eq!(
        std::mem::take(&mut *seen.lock().expect("no panic")),
        [(2, default), (1, default), (0, default)]
    );

    let mut own = request();
    own.call.patience = Some(Duration::from_secs(9));
    ask(&failover, own).await.expect_err("nobody serves");
    let told = seen
        .lock()
        .expect("no panic")
        .iter()
        .all(|(_, p)| *p == Some(Duration::from_secs(9)));
    assert!(told, "the call's own patience stays");

    let failover = builder(&services).patience(Duration::ZERO).build();
    seen.lock().expect("no panic").clear();
    ask(&failover.expect("a good configuration"), request())
        .await
        .expect_err("nobody serves");
    assert_eq!(seen.lock().expect("no panic")[0], (3, Some(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_further_in_recorded_stays() {
    let flaky = model(ErrorKind::RateLimited)
        .then(ErrorKind::ServerError)
        .then(ErrorKind::Overloaded);
    let refused = model(ErrorKind::CircuitOpen).then(ErrorKind::ServerError);
    let services = [Thrice(flaky), Thrice(refused), Thrice(model("hi"))];
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    let answer = ask(&failover(&services), request).await;
    assert_eq!(served(&answer), "c");
    let told: Vec<_> = ledger
        .attempts()
        .map(|a| {
            (
                a.target.map(|t| String::from(&*t)),
                a.error.map(|e| e.kind()),
                a.sent_at.is_some(),
                a.billed,
            )
        })
        .collect();
    let to = |name: &str| Some(String::from(name));
    let unknown = Billed::Unknown;
    assert_eq!(
        told,
        [
            (to("a"), Some(ErrorKind::ServerError), true, unknown),
            (to("a"), Some(ErrorKind::Overloaded), true, unknown),
            (to("a"), Some(ErrorKind::RateLimited), true, unknown),
            (to("b"), Some(ErrorKind::ServerError), true, unknown),
            (to("c"), None, true, Billed::Yes),
        ]
    );
    assert_eq!(
        ledger.sent(),
        5,
        "three attempts, and one for each further target"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_retry_does_not_make_the_first_attempt_unbilled() {
    let target = Thrice(model(ErrorKind::CircuitOpen).then(ErrorKind::ServerError));
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    ask(&failover(&[target]), request)
        .await
        .expect_err("the circuit opened");
    let first = ledger.attempts().next().expect("it was opened");
    assert_eq!(first.error.map(|e| e.kind()), Some(ErrorKind::ServerError));
    assert_eq!(
        (first.sent_at.is_some(), first.billed),
        (true, Billed::Unknown)
    );
    assert_eq!((ledger.opened(), ledger.sent()), (2, 1));
}

/// Two groups of targets, each a failover, and a last resort.
fn nested(groups: [&[ScriptedLlm]; 2], last: &ScriptedLlm) -> Failover<BoxLlmService> {
    let [one, other] = groups.map(|group| {
        let targets = group.iter().enumerate();
        let targets = targets.map(|(at, m)| Target::new(format!("t{at}"), m.clone()));
        let group = Failover::builder().targets(targets).build();
        BoxLlmService::new(group.expect("a good configuration"))
    });
    failover(&[one, other, BoxLlmService::new(last.clone())])
}

#[tokio::test(start_paused = true)]
async fn a_group_without_a_target_left_is_a_target_that_failed() {
    let down = model(ErrorKind::Overloaded);
    let group = [down.clone(), down.clone()];
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    let failover = nested([&group, &group], &model("last"));
    let answer = ask(&failover, request).await;
    assert_eq!(served(&answer), "c");
    // One for each group, one for each target asked; those of the groups were never sent.
    assert_eq!((ledger.opened(), ledger.sent()), (7, 5));
    assert_eq!((ledger.targets(), ledger.untried()), (5, 0));
    let sent: Vec<_> = ledger.attempts().map(|a| a.sent_at.is_some()).collect();
    assert_eq!(sent, [false, true, true, false, true, true, true]);
    let groups = ledger
        .attempts()
        .filter(|a| a.target.as_deref() == Some("a"));
    assert_eq!(
        groups
            .map(|a| a.error.map(|e| e.kind()))
            .collect::<Vec<_>>(),
        [Some(ErrorKind::AllTargetsFailed)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_untried_targets_of_the_outer_failover_stay_reserved() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let book = seen.clone();
    let down = ScriptedLlm::from_fn(move |request| {
        let untried = request.call.ledger().expect("it began").untried();
        book.lock().expect("no panic").push(untried);
        ErrorKind::Overloaded
    });
    let group = [down.clone(), down.clone(), down.clone()];
    let error = ask(&nested([&group[..2], &group], &down), request()).await;
    assert_eq!(
        error.expect_err("all are down").kind(),
        ErrorKind::AllTargetsFailed
    );
    assert_eq!(*seen.lock().expect("no panic"), [3, 2, 3, 2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_group_names_the_target_within_it() {
    let group = [model(ErrorKind::Overloaded), model("hi")];
    let answer = ask(&nested([&group, &group], &model("last")), request()).await;
    assert_eq!(served(&answer), "t1");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_again_does_not_add_its_targets_again() {
    let failover = failover(&[
        model(ErrorKind::Overloaded),
        model(ErrorKind::ContentPolicy),
        model("three"),
    ]);
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    for round in 1..=3 {
        ask(&failover, request.clone()).await.expect_err("final");
        assert_eq!((ledger.targets(), ledger.untried()), (3, 0));
        assert_eq!(ledger.sent(), 2 * round);
    }
}

/// Whoever stands around may begin it anew each time.
#[tokio::test(start_paused = true)]
async fn nor_does_one_that_is_begun_anew_under_an_attempt_of_its_own() {
    let failover = failover(&[model("one"), model("two")]);
    let request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    for _ in 0..3 {
        let mut again = request.clone();
        again.call.open_attempt(AttemptCause::First);
        ask(&failover, again).await.expect("served");
        assert_eq!(ledger.targets(), 2);
    }
}

/// The outer target may have the name of one within it.
#[tokio::test(start_paused = true)]
async fn an_attempt_of_the_failover_around_is_not_taken_for_one_of_its_own() {
    let inner = failover(&[model("one"), model("two")]);
    let mut request = begun();
    let ledger = request.call.ledger().expect("it began").clone();
    // Refused above the group, then made again.
    for _ in 0..2 {
        let mut again = request.clone();
        let attempt = again.call.open_attempt(AttemptCause::First);
        attempt.set_target("a".into());
        request = request.clone();
        if ledger.opened() == 2 {
            ask(&inner, again).await.expect("served");
        }
    }
    assert_eq!(ledger.targets(), 2, "it added its own");
}
