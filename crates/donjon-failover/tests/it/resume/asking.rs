//! Whom a stream that broke asks, and what is heard of it.

use std::task::{Context, Poll};

use donjon_core::{Body, ErrorKind};
use donjon_failover::{HealthPolicy, Resume, ResumeWay, Target, Weighted, WhenOut};
use donjon_testkit::{Script, probe::CountingWaker};
use futures_util::StreamExt;

use super::{begun, builder, continuing, cut, get, rejecting, resuming, words};
use crate::{counts, model, reasons, request};

#[tokio::test(start_paused = true)]
async fn one_that_continues_goes_before_one_that_answers_anew() {
    let models = [
        model(cut(40)),
        model(Script::words(60)),
        continuing(&words(60)),
    ];
    let [a, b, c] = &models;
    let failover = resuming(&[(a, false), (b, false), (c, true)]);
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(counts(&models), [1, 0, 1]);
    // One that cannot do it any more does not.
    let handle = failover.handle();
    let prefill = donjon_failover::Capability::Prefill;
    handle
        .set_capability("c", prefill, false)
        .expect("it is there");
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(counts(&models), [2, 1, 1]);
    // One that is out is asked when nobody else is left.
    handle
        .set_capability("c", prefill, true)
        .expect("it is there");
    handle.disable("c").expect("it is there");
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(counts(&models), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn those_that_failed_before_the_first_token_are_not_asked_again() {
    let models = [
        model(ErrorKind::Overloaded),
        model(cut(40)),
        continuing(&words(60)),
    ];
    let [a, b, c] = &models;
    let failover = resuming(&[(a, true), (b, true), (c, true)]);
    let got = get(&failover, request()).await;
    assert_eq!((got.text(), counts(&models)), (words(60), vec![1, 1, 1]));
}

#[tokio::test(start_paused = true)]
async fn each_is_asked_until_one_goes_on_and_all_reasons_are_told() {
    let models = [
        model(cut(40)),
        model(ErrorKind::Overloaded),
        model(Script::words(60).cut_after(20)),
        rejecting(Script::answer("No.")),
    ];
    let [a, b, c, d] = &models;
    let failover = resuming(&[(a, false), (b, true), (c, false), (d, true)]);
    let got = get(&failover, request()).await;
    assert_eq!(got.text(), words(40));
    assert_eq!(
        reasons(&got.error.expect("nobody goes on")),
        [
            ("a", ErrorKind::Incomplete),
            ("b", ErrorKind::Overloaded),
            ("d", ErrorKind::InvalidRequest),
            ("c", ErrorKind::Incomplete),
            ("d", ErrorKind::InvalidResponse),
        ]
    );
    assert_eq!(counts(&models), [1, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_health_of_each_hears_of_its_own_stream() {
    let policy = HealthPolicy::new()
        .consecutive_failures(1)
        .overload_hints(false);
    let models = [
        model(cut(40)),
        model(ErrorKind::ServerError),
        continuing(&words(60)),
    ];
    let [a, b, c] = &models;
    let failover = builder(&[(a, false), (b, true), (c, true)]).health(policy.most_out(1.0));
    let failover = failover.when_out(WhenOut::Fail).build().expect("good");
    assert_eq!(get(&failover, request()).await.text(), words(60));
    let ejected: Vec<_> = failover
        .handle()
        .targets()
        .iter()
        .map(|t| t.ejections)
        .collect();
    assert_eq!(ejected, [1, 1, 0]);
    // Whoever is out is not asked; there is nobody else to go on.
    c.push(cut(20));
    let got = get(&failover, request()).await;
    assert_eq!(got.kind(), Some(ErrorKind::Incomplete));
    assert_eq!(counts(&models), [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_full_goes_to_the_next_and_places_come_back() {
    let models = [
        model(cut(40)),
        continuing(&words(60)),
        continuing(&words(60)),
    ];
    let targets = crate::NAMES.iter().zip(&models);
    let targets = targets.map(|(name, model)| {
        let target = Target::new(*name, model.clone()).continues(true);
        target.max_in_flight(if *name == "b" { 1 } else { 9 })
    });
    let failover = donjon_failover::Failover::builder()
        .targets(targets)
        .resume(Resume::new())
        .build()
        .expect("good");
    for _ in 0..20 {
        assert_eq!(get(&failover, request()).await.text(), words(60));
    }
    assert_eq!(failover.handle().resumed(ResumeWay::Prefill), 20);
    assert_eq!(
        counts(&models)[1..],
        [20, 0],
        "its place came back each time"
    );

    let answer = crate::ask(&failover, request().streamed()).await;
    let Ok(Body::Stream(mut held)) = answer.map(|answer| answer.body) else {
        panic!("it does not stream")
    };
    while models[1].count() == 20 {
        held.next().await.expect("more").expect("no error");
    }
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(counts(&models)[1..], [21, 1]);
    drop(held);
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(counts(&models)[1..], [22, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_route_chooses_among_those_that_can() {
    let models = [
        model(cut(40)),
        continuing(&words(60)),
        continuing(&words(60)),
    ];
    let [a, b, c] = &models;
    let failover = builder(&[(a, false), (b, true), (c, true)]).route(Weighted);
    let failover = failover.build().expect("good");
    for _ in 0..30 {
        assert_eq!(get(&failover, request()).await.text(), words(60));
    }
    let counts = counts(&models);
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn targets_map_their_models_when_they_go_on() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let failover = donjon_failover::Failover::builder()
        .target(Target::new("a", a))
        .target(
            Target::new("b", b.clone())
                .with_model("own")
                .continues(true),
        )
        .resume(Resume::new())
        .build()
        .expect("good");
    let mut asked = request();
    let ledger = asked.call.begin().clone();
    get(&failover, asked).await;
    let seen = &b.calls()[0].request;
    assert_eq!(&**seen.model(), "own");
    assert!(begun(seen).is_some());
    let models: Vec<_> = ledger.attempts().map(|a| a.model).collect();
    assert_eq!(models[1].as_deref(), Some("own"));
}

/// A target that is not ready at once is waited for, and let go of in time.
#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for() {
    let (a, b) = (model(cut(40)), continuing(&words(60)).with_capacity(1));
    let c = continuing(&words(60));
    let failover = resuming(&[(&a, false), (&b, true), (&c, true)]);
    let mut holder = b.clone();
    futures_util::future::poll_fn(|cx| tower::Service::poll_ready(&mut holder, cx))
        .await
        .expect("ready");
    let got = get(&failover, request()).await;
    assert_eq!((got.text(), b.count(), c.count()), (words(60), 0, 1));
    assert_eq!(got.took, donjon_failover::DEFAULT_PATIENCE);
    drop(holder);
    assert_eq!(b.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_further_in_is_the_callers() {
    let (a, b) = (model(cut(40)), model(Script::panics("scripted")));
    let failover = resuming(&[(&a, false), (&b, false)]);
    let answer = crate::ask(&failover, request().streamed())
        .await
        .expect("it begins");
    let task = tokio::spawn(super::read(answer));
    assert!(task.await.expect_err("it panicked").is_panic());
    assert_eq!((a.in_progress(), b.in_progress()), (0, 0));
}

/// S12, T7: whoever waits registers a waker, and nothing is read ahead of the caller.
#[tokio::test(start_paused = true)]
async fn it_waits_without_spinning_and_reads_no_further_than_the_caller() {
    let (a, b) = (
        model(cut(40)),
        model(Script::words(60).stall_after(50, None)),
    );
    let failover = resuming(&[(&a, false), (&b, false)]);
    let answer = crate::ask(&failover, request().streamed()).await;
    let Ok(Body::Stream(mut stream)) = answer.map(|answer| answer.body) else {
        panic!("it does not stream")
    };
    let wakes = CountingWaker::new();
    let waker = wakes.waker();
    let cx = &mut Context::from_waker(&waker);
    let mut texts = 0;
    let mut next = || stream.poll_next_unpin(cx);
    while let Poll::Ready(item) = next() {
        texts += usize::from(item.expect("more").expect("no error").text().is_some());
        let read = a.calls()[0].chunks + b.calls().first().map_or(0, |call| call.chunks);
        // The role of each; and of the second what was shown already, when it is asked.
        let swallowed = if b.count() > 0 { 40 } else { 0 };
        assert!(
            read <= texts + 2 + swallowed,
            "{read} read for {texts} shown"
        );
    }
    assert_eq!((texts, wakes.count()), (50, 0));
    assert!(next().is_pending());
}
