//! Figures, switches, events.

use donjon_core::{ErrorKind, Heard, Listener, Snapshot};
use donjon_failover::FailoverEvent;

use crate::{ask, failover, model, request};

fn heard(listener: &mut Listener<FailoverEvent>) -> Vec<FailoverEvent> {
    let events = std::iter::from_fn(|| listener.try_next());
    let event = |heard| match heard {
        Heard::Event(event) => event,
        Heard::Missed(missed) => panic!("{missed} events are lost"),
    };
    events.map(event).collect()
}

#[tokio::test(start_paused = true)]
async fn events_come_in_the_order_of_what_happens() {
    let models = [
        model("one")
            .then(ErrorKind::Overloaded)
            .then(ErrorKind::Overloaded),
        model(ErrorKind::Authentication),
        model("three").then(ErrorKind::ServerError),
    ];
    let failover = failover(&models);
    let handle = failover.handle();
    let mut listener = handle.listen();

    ask(&failover, request()).await.expect_err("nobody serves");
    handle.disable("b").expect("it is there");
    handle
        .disable("b")
        .expect("that it was disabled before is no event");
    ask(&failover, request()).await.expect("c serves");
    handle.enable("b").expect("it is there");
    ask(&failover, request()).await.expect("a serves");

    let over = |from: &str, to: &str, kind| FailoverEvent::FailedOver {
        from: from.into(),
        to: to.into(),
        kind,
    };
    assert_eq!(
        heard(&mut listener),
        [
            over("a", "b", ErrorKind::Overloaded),
            over("b", "c", ErrorKind::Authentication),
            FailoverEvent::AllFailed { asked: 3 },
            FailoverEvent::TargetDisabled { target: "b".into() },
            over("a", "c", ErrorKind::Overloaded),
            FailoverEvent::TargetEnabled { target: "b".into() },
        ]
    );
    assert_eq!((handle.failovers(), handle.exhausted()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn figures_say_how_calls_went() {
    let models = [
        model("one")
            .then(ErrorKind::Overloaded)
            .then(ErrorKind::ServerError)
            .then(ErrorKind::Overloaded),
        model("two"),
    ];
    let failover = failover(&models);
    for _ in 0..5 {
        ask(&failover, request()).await.expect("one of them serves");
    }
    // All clones share them.
    let handle = failover.clone().handle();
    let a = handle.target("a").expect("it is there");
    assert_eq!(
        (a.calls, a.successes, a.cancelled, a.in_flight()),
        (5, 2, 0, 0)
    );
    assert_eq!(a.failed_with(ErrorKind::Overloaded), 2);
    assert_eq!(a.failed_with(ErrorKind::ServerError), 1);
    assert_eq!(a.failed(), 3);
    assert_eq!(a.last_error.map(|e| e.kind()), Some(ErrorKind::Overloaded));
    let b = handle.target("b").expect("it is there");
    assert_eq!((b.calls, b.successes, b.last_error.is_none()), (3, 3, true));

    assert_eq!(handle.layer(), "failover");
    let figure = |name: &str, labels: &[(&str, &str)]| {
        let figures = handle.figures().into_iter();
        let mut like = figures.filter(|f| {
            f.name == name
                && labels
                    .iter()
                    .all(|want| f.labels.iter().any(|l| (l.0, &*l.1) == *want))
        });
        like.next().map(|f| f.value)
    };
    assert_eq!(figure("failovers", &[]), Some(3.0));
    assert_eq!(figure("calls", &[("target", "a")]), Some(5.0));
    assert_eq!(figure("successes", &[("target", "b")]), Some(3.0));
    assert_eq!(
        figure("failures", &[("target", "a"), ("kind", "overloaded")]),
        Some(2.0)
    );
    assert_eq!(figure("failures", &[("target", "b")]), None);
    assert_eq!(figure("enabled", &[("target", "a")]), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn how_a_target_stands_and_why_is_a_figure() {
    let models = [model(ErrorKind::Overloaded), model("two")];
    let policy = donjon_failover::HealthPolicy::new().consecutive_failures(1);
    let failover = crate::builder(&models).health(policy).build();
    let failover = failover.expect("a good configuration");
    ask(&failover, request()).await.expect("b serves");
    let handle = failover.handle();
    let figures = handle.figures();
    let of = |name: &str, target: &str| {
        let is = |f: &&donjon_core::Figure| {
            let labels = &f.labels;
            f.name == name && labels.iter().any(|l| l.0 == "target" && l.1 == target)
        };
        figures.iter().find(is).cloned()
    };
    let label = |figure: &donjon_core::Figure, name: &str| {
        let mut labels = figure.labels.iter();
        let found = labels.find(|label| label.0 == name);
        found.map(|label| label.1.clone().into_owned())
    };
    let a = of("status", "a").expect("it stands somehow");
    assert_eq!(label(&a, "status").as_deref(), Some("out"));
    assert_eq!(label(&a, "reason").as_deref(), Some("overloaded"));
    assert_eq!(of("out_for_seconds", "a").map(|f| f.value), Some(10.0));
    let b = of("status", "b").expect("it stands somehow");
    assert_eq!(label(&b, "status").as_deref(), Some("up"));
    assert_eq!(
        (label(&b, "reason"), of("out_for_seconds", "b").is_none()),
        (None, true)
    );
    let report = handle.report();
    assert_eq!(
        report.targets[0].reason.map(|r| r.as_str()),
        Some("overloaded")
    );
    assert_eq!(report.targets[1].reason, None);
}

#[tokio::test(start_paused = true)]
async fn a_weight_or_a_limit_of_zero_is_taken_for_one() {
    let models = [model("one"), model("two")];
    let failover = crate::builder(&models).route(donjon_failover::Weighted);
    let failover = failover.build().expect("a good configuration");
    let handle = failover.handle();
    handle.set_weight("a", 0).expect("it is there");
    handle.set_max_in_flight("a", 0).expect("it is there");
    for _ in 0..10 {
        ask(&failover, request()).await.expect("one of them serves");
    }
    assert_eq!(crate::counts(&models), [5, 5]);
}

#[test]
fn health_is_an_error_when_no_target_is_enabled() {
    let handle = failover(&[model("one"), model("two")]).handle();
    assert_eq!(handle.health(), Ok(()));
    handle.disable("a").expect("it is there");
    assert_eq!(handle.health(), Ok(()));
    handle.disable("b").expect("it is there");
    assert_eq!(handle.health(), Err("no target is enabled".into()));
    handle.enable("a").expect("it is there");
    assert_eq!(handle.health(), Ok(()));
}

#[test]
fn a_target_that_is_not_there_is_an_error() {
    let handle = failover(&[model("one")]).handle();
    let error = handle.disable("z").expect_err("there is no z");
    assert_eq!(error.name(), "z");
    assert_eq!(error.to_string(), "no target is named `z`");
    assert!(handle.target("z").is_none());
}
