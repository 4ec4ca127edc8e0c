//! Who is asked, for which model, in which order.

use std::sync::{Arc, Mutex};

use donjon_core::{
    ChatCompletion, CommitLayer, ErrorKind, Head, LlmError, LlmRequest, LlmResponse,
};
use donjon_failover::{Candidates, Failover, FailoverLayer, Route, Target, TargetView};
use donjon_testkit::ScriptedLlm;
use tower::{Layer, service_fn};

use crate::{ask, builder, counts, failover, model, request, served};

#[tokio::test(start_paused = true)]
async fn the_first_target_serves_while_it_can() {
    let models = [model("one"), model("two")];
    let answer = ask(&failover(&models), request()).await;
    assert_eq!(served(&answer), "a");
    assert_eq!(counts(&models), [1, 0]);
    assert_eq!(models[1].ready_polls(), 0, "the other is left alone");
}

#[tokio::test(start_paused = true)]
async fn the_first_success_in_order_is_the_answer() {
    let models = [
        model(ErrorKind::Overloaded),
        model(ErrorKind::Authentication),
        model("three"),
        model("four"),
    ];
    let answer = ask(&failover(&models), request()).await;
    assert_eq!(served(&answer), "c");
    assert_eq!(counts(&models), [1, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn each_target_is_asked_for_its_own_model() {
    let down = ErrorKind::Unavailable;
    let models = [model(down), model(down), model(down), model("hi")];
    let [a, b, c, d] = models.clone();
    let failover = Failover::builder()
        .target(Target::new("a", a))
        .target(Target::new("b", b).with_model("b-only"))
        .target(
            Target::new("c", c)
                .map_model("asked", "c-own")
                .with_model("c-other"),
        )
        .target(Target::new("d", d).map_model("another", "d-other"))
        .build()
        .expect("a good configuration");
    let answer = ask(&failover, request()).await;
    let asked = models
        .each_ref()
        .map(|m| m.calls()[0].request.model().clone());
    assert_eq!(
        asked.each_ref().map(|m| &**m),
        ["asked", "b-only", "c-own", "asked"]
    );
    assert_eq!(&*answer.expect("d serves").head.model, "asked");
}

#[tokio::test(start_paused = true)]
async fn the_answer_names_the_model_that_served() {
    use donjon_testkit::Script;
    let says = model(Script::answer("hi").model("own-2026-01-01"));
    let silent = model(Script::answer("hi").model(""));
    for (service, served) in [(says, "own-2026-01-01"), (silent, "own")] {
        let target = Target::new("a", service).with_model("own");
        let failover = Failover::builder().target(target).build();
        let answer = ask(&failover.expect("a good configuration"), request()).await;
        assert_eq!(&*answer.expect("it serves").head.model, served);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disabled_target_is_passed_over() {
    let models = [model("one"), model(ErrorKind::Overloaded), model("three")];
    let [a, b, c] = models.clone();
    let failover = Failover::builder()
        .target(Target::new("a", a).enabled(false))
        .target(Target::new("b", b))
        .target(Target::new("c", c))
        .build()
        .expect("a good configuration");
    let answer = ask(&failover, request()).await;
    assert_eq!(served(&answer), "c");
    assert_eq!(counts(&models), [0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_disabled_meanwhile_is_passed_over() {
    use donjon_testkit::Script;
    use std::time::Duration;
    let slow = Script::fail(ErrorKind::Overloaded).head_after(Duration::from_secs(1));
    let models = [model(slow), model("two"), model("three")];
    let failover = failover(&models);
    let handle = failover.handle();
    let call = ask(&failover, request());
    let switch = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        handle.disable("b").expect("it is there");
    };
    let (answer, ()) = tokio::join!(call, switch);
    assert_eq!(served(&answer), "c");
    assert_eq!(counts(&models), [1, 0, 1]);
}

#[tokio::test]
async fn the_last_target_gets_the_request_itself() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let book = seen.clone();
    let target = service_fn(move |request: LlmRequest| {
        let others = request.shared_by() - 1;
        book.lock().expect("no panic").push(others);
        std::future::ready(Err(LlmError::new(ErrorKind::ServerError, "")))
    });
    let failover = failover(&[target.clone(), target.clone(), target]);
    ask(&failover, request()).await.expect_err("nobody serves");
    assert_eq!(*seen.lock().expect("no panic"), [1, 1, 0]);
}

struct Backwards;

impl Route for Backwards {
    fn choose<'a>(&self, candidates: Candidates<'a>, _: &LlmRequest) -> Option<TargetView<'a>> {
        let last = candidates.iter().last();
        last.filter(|target| target.name().as_str() != "a")
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_says_who_is_asked_and_when() {
    let down = ErrorKind::Unavailable;
    let models = [model("one"), model(down), model(down)];
    let failover = builder(&models)
        .route(Backwards)
        .build()
        .expect("a good configuration");
    let error = ask(&failover, request())
        .await
        .expect_err("b and c are down");
    assert_eq!(crate::reasons(&error), [("c", down), ("b", down)]);
    assert_eq!(counts(&models), [0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn layers_are_put_around_the_service_of_a_target() {
    let target = Target::new("a", model("hi"))
        .with_model("own")
        .enabled(false);
    let target = target.map_service(|service| CommitLayer::new().layer(service));
    let failover = Failover::builder().target(target).build();
    let failover = failover.expect("a good configuration");
    ask(&failover, request()).await.expect_err("it is disabled");
    failover.handle().enable("a").expect("it is there");
    let answer = ask(&failover, request()).await.expect("it serves");
    assert_eq!(&*answer.head.model, "own");
}

#[tokio::test(start_paused = true)]
async fn a_layer_makes_the_service_below_the_first_target() {
    let spare = model("spare");
    let layer = FailoverLayer::new([Target::new("spare", spare.clone())]);
    let layer = layer.expect("a good configuration");
    let ask_around = async |inner: ScriptedLlm| {
        let answer = ask(&layer.layer(inner), request()).await;
        String::from(served(&answer))
    };
    assert_eq!(ask_around(model("main")).await, "primary");
    assert_eq!(ask_around(model(ErrorKind::Overloaded)).await, "spare");

    // Whatever it is put around shares its figures and switches.
    assert_eq!(layer.handle().targets()[0].calls, 2);
    layer.handle().disable("primary").expect("it is there");
    assert_eq!(ask_around(model("main")).await, "spare");
    assert_eq!(spare.count(), 2);
}

/// A leaf that does not say which model served is taken to have used the one that it was asked for.
#[tokio::test]
async fn the_model_that_was_asked_stands_in_for_one_that_is_not_told() {
    let silent = service_fn(|_: LlmRequest| {
        let answer = ChatCompletion::text("", "hi");
        std::future::ready(Ok::<_, LlmError>(LlmResponse::complete(
            Head::new(""),
            answer,
        )))
    });
    for count in [1, 2] {
        let targets = vec![silent; count];
        let answer = ask(&failover(&targets), request()).await.expect("served");
        assert_eq!(&*answer.head.model, &**request().model());
    }
}
