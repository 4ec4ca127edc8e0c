//! Who is out, for how long, and how it comes back.

use std::time::Duration;

use donjon_core::{AttemptCause, DropReason, ErrorKind, Snapshot};
use donjon_failover::{DownReason, Failover, FailoverEvent, HealthPolicy, TargetStatus, WhenOut};
use donjon_testkit::{Script, ScriptedLlm, contract};
use tokio::time::{Instant, sleep};

use crate::{ask, builder, counts, model, reasons, request, served};

const SECOND: Duration = Duration::from_secs(1);

fn healthy(models: &[ScriptedLlm], policy: HealthPolicy) -> Failover<ScriptedLlm> {
    let built = builder(models).health(policy).build();
    built.expect("a good configuration")
}

pub(crate) fn status(failover: &Failover<ScriptedLlm>, name: &str) -> TargetStatus {
    failover.handle().target(name).expect("it is there").status
}

#[tokio::test(start_paused = true)]
async fn the_contract_is_kept_with_health_on() {
    contract::check(|leaf| {
        let policy = HealthPolicy::new().slow_first_token(SECOND);
        let built = builder(&[leaf.clone(), leaf]).health(policy);
        built
            .route(donjon_failover::LeastLatency)
            .build()
            .expect("a good configuration")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_left_alone_and_comes_back_gradually() {
    let models = [model(ErrorKind::ServerError), model("two")];
    let failover = healthy(&models, HealthPolicy::new());
    let mut events = failover.handle().listen();
    for _ in 0..20 {
        assert_eq!(served(&ask(&failover, request()).await), "b");
    }
    assert_eq!(counts(&models), [5, 20], "five faults in a row");
    assert_eq!(
        status(&failover, "a"),
        TargetStatus::Out { left: 10 * SECOND }
    );
    // It fails its trial, and is out for twice as long.
    sleep(10 * SECOND).await;
    ask(&failover, request()).await.expect("b serves");
    ask(&failover, request()).await.expect("b serves");
    assert_eq!(models[0].count(), 6, "one call finds out");
    assert_eq!(
        status(&failover, "a"),
        TargetStatus::Out { left: 20 * SECOND }
    );
    // It works again.
    models[0].set_otherwise("one");
    sleep(20 * SECOND).await;
    assert_eq!(served(&ask(&failover, request()).await), "a");
    let mut shares = Vec::new();
    for _ in 0..4 {
        let before = models[0].count();
        for _ in 0..100 {
            ask(&failover, request()).await.expect("one of them serves");
            sleep(SECOND / 10).await;
        }
        shares.push(models[0].count() - before);
    }
    assert!((10..25).contains(&shares[0]), "{shares:?}");
    assert!((40..60).contains(&shares[1]), "{shares:?}");
    assert!((75..95).contains(&shares[2]), "{shares:?}");
    assert!(shares[3] >= 99, "{shares:?}");
    assert_eq!(status(&failover, "a"), TargetStatus::Up);
    let told: Vec<_> = std::iter::from_fn(|| events.try_next())
        .filter_map(|heard| match heard {
            donjon_core::Heard::Event(event) => Some(event),
            donjon_core::Heard::Missed(_) => None,
        })
        .filter(|event| !matches!(event, FailoverEvent::FailedOver { .. }))
        .collect();
    let down = |seconds: u32| FailoverEvent::TargetDown {
        target: "a".into(),
        reason: DownReason::Failing(ErrorKind::ServerError),
        out_for: Some(seconds * SECOND),
    };
    let target = "a".into();
    assert_eq!(
        told,
        [
            down(10),
            down(20),
            FailoverEvent::FailedBack { target },
            FailoverEvent::TargetUp { target }
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn one_call_finds_out_whether_a_target_works() {
    let models = [model(ErrorKind::ServerError), model("two")];
    let failover = healthy(&models, HealthPolicy::new().consecutive_failures(1));
    ask(&failover, request()).await.expect("b serves");
    models[0].set_otherwise(Script::fail(ErrorKind::ServerError).head_after(SECOND));
    sleep(10 * SECOND).await;
    let calls = (0..50).map(|_| ask(&failover, request()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(models[0].count(), 2);

    // One that leaves lets another find out.
    sleep(20 * SECOND).await;
    let left = tokio::time::timeout(SECOND / 2, ask(&failover, request())).await;
    assert!(left.is_err());
    assert_eq!(models[0].count(), 3);
    ask(&failover, request()).await.expect("b serves");
    assert_eq!(models[0].count(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_last_target_and_more_than_the_cap_are_never_out() {
    let down = || model(ErrorKind::ServerError);
    let models = [down(), down(), down()];
    let policy = HealthPolicy::new().consecutive_failures(1);
    let failover = healthy(&models, policy.clone().most_out(1.0));
    for _ in 0..5 {
        ask(&failover, request()).await.expect_err("all are down");
    }
    let out = |failover: &Failover<ScriptedLlm>| {
        let targets = failover.handle().targets();
        let out = |t: &donjon_failover::TargetStats| matches!(t.status, TargetStatus::Out { .. });
        targets.iter().filter(|t| out(t)).count()
    };
    assert_eq!(out(&failover), 2);
    assert!(failover.handle().health().is_ok());
    let failover = healthy(&models, policy.most_out(0.2));
    for _ in 0..5 {
        ask(&failover, request()).await.expect_err("all are down");
    }
    assert_eq!(out(&failover), 1, "a fifth of three, rounded up");
    let only = [down()];
    let failover = healthy(&only, HealthPolicy::new().consecutive_failures(1));
    for _ in 0..5 {
        ask(&failover, request()).await.expect_err("it is down");
    }
    assert_eq!((out(&failover), only[0].count()), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_too_much_to_do_is_left_alone_as_long_as_it_says() {
    let busy = Script::fail(ErrorKind::RateLimited).retry_after(7 * SECOND);
    let models = [model("one").then(busy), model("two")];
    let failover = healthy(&models, HealthPolicy::new());
    assert_eq!(served(&ask(&failover, request()).await), "b");
    assert_eq!(
        status(&failover, "a"),
        TargetStatus::Out { left: 7 * SECOND }
    );
    sleep(6 * SECOND).await;
    assert_eq!(served(&ask(&failover, request()).await), "b");
    assert_eq!(models[0].count(), 1);
    sleep(SECOND).await;
    assert_eq!(served(&ask(&failover, request()).await), "a");
}

#[tokio::test(start_paused = true)]
async fn mistakes_of_the_caller_and_calls_that_were_dropped_blame_nobody() {
    for kind in [
        ErrorKind::ContextLength,
        ErrorKind::CircuitOpen,
        ErrorKind::Unsent,
    ] {
        let models = [model(kind), model("two")];
        let failover = healthy(&models, HealthPolicy::new().consecutive_failures(1));
        for _ in 0..5 {
            assert_eq!(served(&ask(&failover, request()).await), "b");
        }
        assert_eq!(status(&failover, "a"), TargetStatus::Up);
    }
    let models = [model(Script::hang()), model("two")];
    let failover = healthy(&models, HealthPolicy::new().consecutive_failures(1));
    for _ in 0..5 {
        let left = tokio::time::timeout(SECOND, ask(&failover, request())).await;
        assert!(left.is_err());
    }
    assert_eq!(status(&failover, "a"), TargetStatus::Up);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_later_counts_against_its_target() {
    let models = [model(Script::words(3).cut_after(1)), model("two")];
    let failover = healthy(&models, HealthPolicy::new().consecutive_failures(3));
    for _ in 0..3 {
        let answer = ask(&failover, request().streamed())
            .await
            .expect("it began");
        answer.text().await.expect_err("it is cut");
    }
    assert_eq!(served(&ask(&failover, request().streamed()).await), "b");
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_breaks_after_its_first_token_has_failed() {
    let cut = || Script::words(3).cut_after(1);
    let models = [model(ErrorKind::ServerError), model(Script::words(3))];
    let failover = healthy(&models, HealthPolicy::new().consecutive_failures(2));
    let out = |seconds: u32| TargetStatus::Out {
        left: seconds * SECOND,
    };
    let begin = async || {
        ask(&failover, request().streamed())
            .await
            .expect("it began")
    };
    for _ in 0..2 {
        begin().await;
    }
    assert_eq!(status(&failover, "a"), out(10));
    // Once after the other: each time out is twice the one before.
    models[0].set_otherwise(cut());
    for seconds in [20, 40] {
        sleep(seconds / 2 * SECOND).await;
        let trial = begin().await;
        assert_eq!(trial.head.target.as_deref(), Some("a"));
        let returning = status(&failover, "a");
        assert!(matches!(returning, TargetStatus::Returning { .. }));
        trial.text().await.expect_err("it is cut");
        assert_eq!(status(&failover, "a"), out(seconds));
    }
    let a = failover.handle().target("a").expect("it is there");
    assert_eq!(a.ejections, 3);
    assert_eq!(a.reason, Some(DownReason::Failing(ErrorKind::Incomplete)));
    // One that is read to its end, or left, is none that failed.
    for leaves in [true, false] {
        models[0].set_otherwise(Script::words(3));
        sleep(60 * SECOND).await;
        let trial = begin().await;
        if !leaves {
            trial.text().await.expect("it is whole");
        }
        let a = failover.handle().target("a").expect("it is there");
        assert!(
            !matches!(a.status, TargetStatus::Out { .. }),
            "{:?}",
            a.status
        );
    }
    // A stream that is no trial is one fault, and what a trial says after another came is nothing.
    sleep(60 * SECOND).await;
    models[0].set_otherwise(cut());
    let first = begin().await;
    first.text().await.expect_err("it is cut");
    assert_eq!(status(&failover, "a"), TargetStatus::Up);
}

#[tokio::test(start_paused = true)]
async fn a_trial_says_nothing_of_what_came_after_it() {
    let models = [
        model(ErrorKind::ServerError)
            .then(ErrorKind::ServerError)
            .then(ErrorKind::ServerError)
            .then(Script::words(3).stall_after(1, 15 * SECOND).cut_after(1)),
        model(Script::words(3)),
    ];
    let failover = healthy(&models, HealthPolicy::new().consecutive_failures(1));
    let begin = async || {
        ask(&failover, request().streamed())
            .await
            .expect("it began")
    };
    begin().await;
    sleep(10 * SECOND).await;
    begin().await;
    sleep(20 * SECOND).await;
    let trial = begin().await;
    assert_eq!(trial.head.target.as_deref(), Some("a"));
    // It is out again for another reason before that trial breaks.
    sleep(30 * SECOND).await;
    begin().await;
    let before = failover.handle().target("a").expect("it is there");
    assert_eq!(before.ejections, 3);
    trial.text().await.expect_err("it is cut");
    let after = failover.handle().target("a").expect("it is there");
    assert_eq!(after.ejections, 3);
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_or_superseded_past_the_bound_is_out() {
    let slow = Script::words(2).first_token_after(5 * SECOND);
    let models = [model(slow), model(Script::words(2))];
    let policy = HealthPolicy::new()
        .consecutive_failures(3)
        .slow_first_token(2 * SECOND);
    let failover = healthy(&models, policy.clone());
    for _ in 0..3 {
        let answer = ask(&failover, request().streamed()).await;
        assert_eq!(served(&answer), "a");
        // That it is whole in the end makes good nothing.
        let text = answer.expect("it is served").text().await;
        text.expect("it is whole");
    }
    assert_eq!(served(&ask(&failover, request().streamed()).await), "b");

    // A hedge around it takes over each time.
    let failover = healthy(&models, policy);
    for waits in [1, 3, 3, 3] {
        let mut request = request().streamed();
        let attempt = request.call.open_attempt(AttemptCause::First).clone();
        let call = ask(&failover, request);
        tokio::pin!(call);
        tokio::select! {
            _ = &mut call => unreachable!("it is slow"),
            () = sleep(waits * SECOND) => attempt.set_dropped(DropReason::Superseded),
        }
    }
    let a = failover.handle().target("a").expect("it is there");
    assert!(
        matches!(a.status, TargetStatus::Out { .. }),
        "{:?}",
        a.status
    );
    assert_eq!(a.cancelled, 4);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_count_for_the_rate_as_faults_and_not_as_successes() {
    let slow = || Script::words(2).first_token_after(5 * SECOND);
    for streamed in [true, false] {
        let models = [model(Script::words(2)), model(Script::words(2))];
        let policy = HealthPolicy::new()
            .consecutive_failures(None)
            .minimum_calls(10)
            .window(300 * SECOND)
            .slow_first_token(2 * SECOND)
            .slow_answer(2 * SECOND);
        let failover = healthy(&models, policy);
        // Three of five are slow.
        let mut calls = 0;
        while status(&failover, "a") == TargetStatus::Up {
            let is_slow = calls % 5 < 3;
            models[0].set_otherwise(if is_slow { slow() } else { Script::words(2) });
            let asked = if streamed {
                request().streamed()
            } else {
                request()
            };
            let answer = ask(&failover, asked).await.expect("it is served");
            answer.text().await.expect("it is whole");
            calls += 1;
            assert!(calls <= 20, "it is taken out");
        }
        let a = failover.handle().target("a").expect("it is there");
        assert_eq!(a.reason, Some(DownReason::FailureRate));
        assert!(calls >= 10, "{calls} calls are too few for a rate");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_spell_says_nothing() {
    let late = Script::fail(ErrorKind::ServerError).head_after(15 * SECOND);
    let models = [
        model("one").then(late).then(ErrorKind::ServerError),
        model("two"),
    ];
    let failover = healthy(&models, HealthPolicy::new().consecutive_failures(1));
    let straggler = ask(&failover, request());
    let others = async {
        sleep(SECOND).await;
        assert_eq!(served(&ask(&failover, request()).await), "b");
        sleep(11 * SECOND).await;
        assert_eq!(served(&ask(&failover, request()).await), "a");
        sleep(10 * SECOND).await;
    };
    tokio::join!(async { straggler.await.expect("b serves") }, others);
    assert!(matches!(
        status(&failover, "a"),
        TargetStatus::Returning { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn when_all_are_out_a_call_fails_with_the_earliest_time_or_the_least_bad_is_asked() {
    let down = |seconds| {
        let script = Script::fail(ErrorKind::Overloaded).retry_after(seconds * SECOND);
        model("works").then(script)
    };
    for when_out in [WhenOut::Fail, WhenOut::LeastBad] {
        let models = [down(30), down(7), model("three")];
        let failover = builder(&models)
            .health(HealthPolicy::new().most_out(1.0))
            .when_out(when_out)
            .build()
            .expect("a good configuration");
        assert_eq!(served(&ask(&failover, request()).await), "c");
        failover.handle().disable("c").expect("it is there");
        sleep(2 * SECOND).await;
        let began = Instant::now();
        let answer = ask(&failover, request()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        if when_out == WhenOut::LeastBad {
            assert_eq!(served(&answer), "b", "it comes back first");
            continue;
        }
        let error = answer.expect_err("nobody is asked");
        assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
        assert_eq!(error.retry_after(), Some(5 * SECOND));
        assert_eq!(reasons(&error).len(), 3);
        assert_eq!(error.attempts()[0].error.retry_after(), Some(28 * SECOND));
        assert_eq!(
            failover.handle().health(),
            Err("every target is out".into())
        );
        let report = failover.handle().report();
        assert_eq!(
            report.to_string(),
            "a: out for 28.0 s, b: out for 5.0 s, c: disabled"
        );
        assert!(!report.is_serving());
        sleep(5 * SECOND).await;
        assert_eq!(
            served(&ask(&failover, request()).await),
            "b",
            "it was exact"
        );
    }
}
