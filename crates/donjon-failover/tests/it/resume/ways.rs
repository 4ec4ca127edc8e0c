//! The ways in which a stream is gone on with.

use std::time::Duration;

use donjon_core::{AttemptCause, ErrorKind, LlmRequest, Message, TimeoutClock, Usage};
use donjon_failover::{FailoverEvent, Resume, ResumeWay, Target};
use donjon_testkit::{Script, ScriptedLlm};

use super::{attempts, begun, builder, continuing, cut, get, rejecting, resuming, words};
use crate::{counts, model, reasons, request};

#[tokio::test(start_paused = true)]
async fn a_target_that_continues_goes_on_with_what_was_shown() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let mut events = failover.handle().listen();
    let mut asked = request();
    let ledger = asked.call.begin().clone();
    let got = get(&failover, asked).await;
    assert_eq!((got.text(), got.kind()), (words(60), None));
    let seen = &b.calls()[0].request;
    assert_eq!(begun(seen).as_deref(), Some(words(40).trim_end()));
    // The prompt of the first is a guess; the second has said what it used.
    let usage = got.fold.usage.expect("it is told");
    let streamed = words(40).len().div_ceil(4) as u64;
    assert_eq!(usage, Usage::new(1 + 50, streamed + 7));
    use AttemptCause::{First, Resume as Again};
    assert_eq!(
        attempts(&ledger),
        [(First, None, "a".into()), (Again, Some(0), "b".into())]
    );
    let handle = failover.handle();
    assert_eq!(handle.resumed(ResumeWay::Prefill), 1);
    assert_eq!((handle.resume_failed(), handle.failovers()), (0, 0));
    let stats = handle.targets();
    assert_eq!(stats[0].failed_with(ErrorKind::Incomplete), 1);
    assert_eq!((stats[1].calls, stats[1].successes), (1, 1));
    let heard = events.next().await;
    assert!(
        format!("{heard:?}").contains("Resumed"),
        "what happened is told: {heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_it_and_for_whole_answers_nothing_changes() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let failover = builder(&[(&a, false), (&b, true)]).resume(None).build();
    let got = get(&failover.expect("good"), request()).await;
    assert_eq!(got.kind(), Some(ErrorKind::Incomplete));
    assert_eq!(b.count(), 0);
    let failover = resuming(&[(&b, true)]);
    let whole = crate::ask(&failover, request()).await.expect("it serves");
    assert_eq!(whole.text().await.expect("whole"), words(60));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_prefill_is_never_seen_and_remembered_for_a_while() {
    let (a, b) = (model(cut(40)), rejecting(Script::words(60)));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let handle = failover.handle();
    let mut events = handle.listen();
    let got = get(&failover, request()).await;
    assert_eq!((got.text(), got.kind()), (words(60), None));
    assert_eq!(b.count(), 2, "once more for all of it");
    assert_eq!(handle.prefill_rejected(), 1);
    assert_eq!(handle.resumed(ResumeWay::Aligned), 1);
    let told = format!("{:?} {:?}", events.next().await, events.next().await);
    assert!(
        told.contains("PrefillRejected") && told.contains("Resumed"),
        "{told}"
    );

    get(&failover, request()).await;
    assert_eq!((b.count(), handle.prefill_rejected()), (3, 1));
    tokio::time::advance(Duration::from_secs(601)).await;
    get(&failover, request()).await;
    assert_eq!((b.count(), handle.prefill_rejected()), (5, 2));
    handle.set_continues("b", false).expect("it is there");
    tokio::time::advance(Duration::from_secs(601)).await;
    get(&failover, request()).await;
    assert_eq!((b.count(), handle.prefill_rejected()), (6, 2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_given_anew_is_aligned() {
    for (cut_after, gap) in [(1, 0), (40, 1), (60, 0)] {
        let a = model(cut(cut_after));
        let b = model(Script::words(60).gap(Duration::from_millis(gap)));
        let failover = resuming(&[(&a, false), (&b, false)]);
        let got = get(&failover, request()).await;
        assert_eq!((got.text(), got.kind()), (words(60), None));
        assert!(
            begun(&b.calls()[0].request).is_none(),
            "it is asked the same"
        );
        assert_eq!(failover.handle().resumed(ResumeWay::Aligned), 1);
        let streamed = words(cut_after).len().div_ceil(4) as u64;
        assert_eq!(got.fold.usage, Some(Usage::new(1 + 12, streamed + 60)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_otherwise_is_dropped_and_billed_and_the_next_is_asked() {
    let other = Script::tokens(["w0 ", "w1 and then ", "something else"]);
    let models = [model(cut(40)), model(other), model(Script::words(60))];
    let [a, b, c] = &models;
    let failover = resuming(&[(a, false), (b, false), (c, false)]);
    let mut asked = request();
    let ledger = asked.call.begin().clone();
    let got = get(&failover, asked).await;
    assert_eq!((got.text(), got.kind()), (words(60), None));
    assert_eq!(counts(&models), [1, 1, 1]);
    let all: Vec<_> = ledger.attempts().collect();
    assert_eq!(all[1].dropped, Some(donjon_core::DropReason::Superseded));
    assert_eq!(all[1].billed, donjon_core::Billed::Yes);
    assert_eq!((all[1].parent, all[2].parent), (Some(0), Some(0)));
    assert_eq!(failover.handle().targets()[1].cancelled, 1);
    // Nobody is left: the first error, with the reasons of all.
    let failover = resuming(&[(a, false), (b, false)]);
    let got = get(&failover, request()).await;
    assert_eq!(got.text(), words(40));
    let error = got.error.expect("nobody goes on");
    assert_eq!(
        (error.kind(), error.target().as_deref()),
        (ErrorKind::Incomplete, Some("a"))
    );
    assert_eq!(
        reasons(&error),
        [
            ("a", ErrorKind::Incomplete),
            ("b", ErrorKind::InvalidResponse)
        ]
    );
    assert!(error.message().contains("not resumed"), "{error}");
    assert_eq!(failover.handle().resume_failed(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_no_other_target_the_error_is_told_in_band() {
    let a = model(cut(40));
    let got = get(&resuming(&[(&a, true)]), request()).await;
    assert_eq!(
        (got.text(), got.kind()),
        (words(40), Some(ErrorKind::Incomplete))
    );
    assert!(got.error.expect("an error").attempts().is_empty());
    assert_eq!(a.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_target_is_asked_last_where_that_is_allowed() {
    let a = continuing(&words(60)).then(cut(40));
    let failover = builder(&[(&a, true)]).resume(Resume::new().same_target(true));
    let failover = failover.build().expect("good");
    let got = get(&failover, request()).await;
    assert_eq!((got.text(), a.count()), (words(60), 2));
    // Not after an error which says that the same would come of it.
    let silent = Script::words(60).fail_after(40, ErrorKind::Timeout(TimeoutClock::Idle));
    a.push(silent);
    let got = get(&failover, request()).await;
    assert_eq!(got.kind(), Some(ErrorKind::Timeout(TimeoutClock::Idle)));
    assert_eq!(a.count(), 3);
    // Nor once more after that.
    let a = model(ErrorKind::Overloaded).then(cut(40));
    let failover = builder(&[(&a, false)]).resume(Resume::new().same_target(true));
    let got = get(&failover.build().expect("good"), request()).await;
    assert_eq!((got.kind(), a.count()), (Some(ErrorKind::Incomplete), 2));
}

/// What was begun may be against a policy, which says nothing of what the target can do.
#[tokio::test(start_paused = true)]
async fn a_prefill_that_a_policy_forbids_is_no_prefill_that_was_rejected() {
    let a = model(cut(40));
    let b = ScriptedLlm::from_fn(|request| match begun(request) {
        Some(_) => Script::fail(ErrorKind::ContentPolicy),
        None => Script::words(60),
    });
    let b = b.commits();
    let failover = resuming(&[(&a, false), (&b, true)]);
    for calls in 1..3 {
        let got = get(&failover, request()).await;
        assert_eq!((got.text(), got.kind()), (words(60), None));
        assert_eq!(
            (failover.handle().prefill_rejected(), b.count()),
            (0, 2 * calls)
        );
    }
}

/// Those that could go on are left an attempt by whoever retries further in.
#[tokio::test(start_paused = true)]
async fn a_target_that_goes_on_knows_how_many_others_could() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let knows = |script: Script| {
        let seen = seen.clone();
        let model = ScriptedLlm::from_fn(move |request| {
            let ledger = request.call.ledger().expect("begun");
            seen.lock().expect("no panic").push(ledger.untried());
            script.clone()
        });
        model.commits()
    };
    let fails = || knows(Script::fail(ErrorKind::Overloaded));
    let (a, b, c, d) = (knows(cut(40)), fails(), fails(), knows(Script::words(60)));
    let failover = resuming(&[(&a, false), (&b, false), (&c, false), (&d, false)]);
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(*seen.lock().expect("no panic"), [3, 2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_others_would_not_mend_is_told_at_once() {
    let total = ErrorKind::Timeout(TimeoutClock::Total);
    let (a, b) = (model(Script::words(60).fail_after(3, total)), model("hi"));
    let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
    assert_eq!((got.kind(), b.count()), (Some(total), 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_again_is_gone_on_with_again_but_not_for_ever() {
    let broken = |from: usize, to: usize| {
        ScriptedLlm::from_fn(move |_| {
            let rest = (from..60).map(|i| format!("w{i} "));
            Script::tokens(rest).cut_after(to - from)
        })
        .commits()
    };
    let models = [
        model(cut(20)),
        broken(20, 30),
        broken(30, 50),
        continuing(&words(60)),
    ];
    let [a, b, c, d] = &models;
    let all = [(a, false), (b, true), (c, true), (d, true)];
    let thrice = builder(&all)
        .resume(Resume::new().most(3))
        .build()
        .expect("good");
    let got = get(&thrice, request()).await;
    assert_eq!((got.text(), got.kind()), (words(60), None));
    assert_eq!(thrice.handle().resumed(ResumeWay::Prefill), 3);

    let got = get(&resuming(&all), request()).await;
    assert_eq!(
        (got.text(), got.kind()),
        (words(50), Some(ErrorKind::Incomplete))
    );
    let error = got.error.expect("an error");
    assert_eq!(error.target().as_deref(), Some("a"), "the first");
    assert_eq!(reasons(&error).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_silent_or_too_slow_has_its_time_and_no_more() {
    let slow = Script::words(60).gap(Duration::from_secs(2));
    for silent in [
        Script::hang(),
        slow.clone(),
        Script::words(60).stall_after(39, None),
    ] {
        let (a, b, c) = (model(cut(40)), model(silent), continuing(&words(60)));
        let failover = builder(&[(&a, false), (&b, false), (&c, false)]);
        let within = Duration::from_secs(20);
        let failover = failover
            .resume(Resume::new().within(within))
            .build()
            .expect("good");
        let got = get(&failover, request()).await;
        assert_eq!((got.text(), got.kind()), (words(60), None));
        assert_eq!(got.took, within);
        assert_eq!((b.in_progress(), b.cancelled()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_it() {
    let (a, b) = (model(cut(40)), model(Script::hang()));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let asked = request().with_timeout(Duration::from_secs(5));
    let got = get(&failover, asked).await;
    assert_eq!(got.kind(), Some(ErrorKind::Incomplete));
    assert_eq!((got.took, b.in_progress()), (Duration::from_secs(5), 0));
}

#[tokio::test(start_paused = true)]
async fn the_cap_on_the_attempts_of_a_call_holds() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let mut asked = request();
    asked.call.begin().limit_attempts(1);
    let got = get(&failover, asked).await;
    assert_eq!((got.kind(), b.count()), (Some(ErrorKind::Incomplete), 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_longer_than_the_bound_is_not_given_anew() {
    let (a, b) = (model(cut(40)), model(Script::words(60)));
    let failover = builder(&[(&a, false), (&b, false)]);
    let bound = Resume::new().align_within(words(40).len() - 1);
    let failover = failover.resume(bound).build().expect("good");
    let got = get(&failover, request()).await;
    assert_eq!((got.kind(), b.count()), (Some(ErrorKind::Incomplete), 0));
    let off = builder(&[(&a, false), (&b, false)]).resume(Resume::new().restart(false));
    let got = get(&off.build().expect("good"), request()).await;
    assert_eq!((got.kind(), b.count()), (Some(ErrorKind::Incomplete), 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_request_began_is_extended() {
    let a = model(Script::answer("a tower of stone and more").cut_after(2));
    let b = continuing("It is a tower of stone and more");
    let failover = resuming(&[(&a, false), (&b, true)]);
    let asked = LlmRequest::chat("m", [Message::user("?"), Message::assistant("It is ")]);
    let got = get(&failover, asked).await;
    assert_eq!(got.text(), "a tower of stone and more");
}

#[tokio::test(start_paused = true)]
async fn a_layer_can_do_it_too() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let layer = donjon_failover::Failover::builder()
        .target(Target::new("b", b.clone()).continues(true))
        .resume(Resume::new())
        .build_layer("a")
        .expect("good");
    let got = get(&tower::Layer::layer(&layer, a), request()).await;
    assert_eq!((got.text(), b.count()), (words(60), 1));
}

/// One that was added meanwhile is not known to the call; one that was taken away is not asked.
#[tokio::test(start_paused = true)]
async fn targets_that_change_meanwhile_are_left_alone() {
    let slow = || cut(40).gap(Duration::from_secs(1));
    let models = [
        model(slow()),
        continuing(&words(60)),
        continuing(&words(60)),
    ];
    let [a, b, c] = &models;
    let failover = resuming(&[(a, false), (b, true), (c, true)]);
    let call = get(&failover, request());
    let change = async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        failover.remove("b").expect("it is there");
        let put = Target::new("d", continuing(&words(60))).continues(true);
        failover.put(put).expect("good");
    };
    let (got, ()) = tokio::join!(call, change);
    assert_eq!((got.text(), counts(&models)), (words(60), vec![1, 0, 1]));
    let handle = failover.handle();
    assert_eq!(handle.target("d").expect("it is there").calls, 0);
    // The set that took the place of the first resumes as well.
    handle.disable("c").expect("it is there");
    assert_eq!(get(&failover, request()).await.text(), words(60));
    assert_eq!(handle.target("d").expect("it is there").calls, 1);
}

#[tokio::test(start_paused = true)]
async fn events_name_who_broke_and_who_goes_on() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let mut events = failover.handle().listen();
    get(&failover, request()).await;
    let donjon_core::Heard::Event(event) = events.next().await.expect("told") else {
        panic!("none was missed")
    };
    let expected = FailoverEvent::Resumed {
        from: "a".into(),
        to: "b".into(),
        kind: ErrorKind::Incomplete,
        way: ResumeWay::Prefill,
    };
    assert_eq!(event, expected);
}
