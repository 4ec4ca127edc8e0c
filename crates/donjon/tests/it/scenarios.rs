//! A provider that misbehaves over real HTTP, and what the caller gets. The attempts are counted at
//! the upstream.

use std::time::Duration;

use donjon::{ErrorKind, TimeoutClock, Usage};
use donjon_testkit::upstream::{Failure, Script, Upstream};

use crate::{always, call, preset, stack, streamed, unary, upstream};

const SECOND: Duration = Duration::from_secs(1);

fn limited(after: u64) -> Script {
    Script::from(Failure::rate_limited()).retry_after(after)
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_2_s_is_waited_for_on_a_single_target() {
    let only = upstream([limited(2)]);
    let got = call(&stack(&[&only]), unary()).await;
    assert_eq!(got.text, "served");
    assert_eq!(only.count(), 2);
    // Never earlier, and spread later by a tenth at the most.
    assert!(got.ended_after >= 2 * SECOND && got.ended_after <= Duration::from_millis(2300));
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_patience_fails_over() {
    let (first, second) = (always(limited(5)), upstream::<Script>([]));
    let got = call(&stack(&[&first, &second]), unary()).await;
    assert_eq!(
        (got.text.as_str(), got.target.as_deref()),
        ("served", Some("t1"))
    );
    assert_eq!((first.count(), second.count()), (1, 1));
    assert!(got.ended_after < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_persistent_429_backs_off_and_fails_over() {
    let first = always(Failure::rate_limited());
    let second = upstream::<Script>([]);
    let got = call(&stack(&[&first, &second]), unary()).await;
    assert_eq!(got.target.as_deref(), Some("t1"));
    assert!(first.count() + second.count() <= 4, "at most 4 attempts");
    assert_eq!(first.count(), 3, "it backed off before it moved on");
    assert!(got.ended_after <= 3 * SECOND, "{:?}", got.ended_after);
}

#[tokio::test(start_paused = true)]
async fn one_500_is_retried_on_the_same_target() {
    for request in [unary(), streamed()] {
        let (first, second) = (upstream([Failure::server_error()]), upstream::<Script>([]));
        let got = call(&stack(&[&first, &second]), request).await;
        assert_eq!(
            (got.text.as_str(), got.target.as_deref()),
            ("served", Some("t0"))
        );
        assert_eq!((first.count(), second.count(), got.sent), (2, 0, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_persistent_503_fails_over() {
    let (first, second) = (
        always(Failure::service_unavailable()),
        upstream::<Script>([]),
    );
    let got = call(&stack(&[&first, &second]), unary()).await;
    assert_eq!(
        (got.text.as_str(), got.target.as_deref()),
        ("served", Some("t1"))
    );
    assert_eq!((first.count(), second.count()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_headers_is_retried_and_failed_over() {
    let only = upstream([Script::reset()]);
    let got = call(&stack(&[&only]), unary()).await;
    assert_eq!((got.text.as_str(), only.count()), ("served", 2));

    let (first, second) = (always(Script::reset()), upstream::<Script>([]));
    let got = call(&stack(&[&first, &second]), streamed()).await;
    assert_eq!(
        (got.text.as_str(), got.target.as_deref()),
        ("served", Some("t1"))
    );
    assert_eq!((first.count(), second.count()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn silence_fails_over_without_asking_the_silent_target_again() {
    for silent in [
        Script::hang(),
        Script::headers_then_hang(),
        Script::answer("x").role_then_silence(),
    ] {
        let (first, second) = (always(silent), upstream::<Script>([]));
        let got = call(&stack(&[&first, &second]), streamed()).await;
        assert_eq!(
            (got.text.as_str(), got.target.as_deref()),
            ("served", Some("t1"))
        );
        assert_eq!((first.count(), second.count()), (1, 1));
        assert_eq!(got.committed_after.as_secs(), 10);
        first.wait_for(|seen| seen.cancelled() == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_token_that_is_late_fails_over_at_the_limit() {
    let first = always(Script::answer("late").first_token_after(20 * SECOND));
    let second = upstream::<Script>([]);
    let got = call(&stack(&[&first, &second]), streamed()).await;
    assert_eq!(
        (got.text.as_str(), got.target.as_deref()),
        ("served", Some("t1"))
    );
    assert_eq!(got.committed_after.as_secs(), 10);
    assert_eq!(first.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn keep_alives_do_not_put_the_first_token_limit_off() {
    let first = always(
        Script::answer("late")
            .first_token_after(20 * SECOND)
            .pings(100, SECOND),
    );
    let second = upstream::<Script>([]);
    let got = call(&stack(&[&first, &second]), streamed()).await;
    assert_eq!(
        (got.target.as_deref(), got.committed_after.as_secs()),
        (Some("t1"), 10)
    );
}

#[tokio::test(start_paused = true)]
async fn a_malformed_event_is_skipped() {
    let only = upstream([Script::tokens(["one ", "two ", "three"]).bad_event_at(1)]);
    let got = call(&stack(&[&only]), streamed()).await;
    assert_eq!((got.text.as_str(), got.kind()), ("one two three", None));
    assert_eq!(only.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_done_finishes_at_once_with_its_usage() {
    let only = upstream([Script::answer("all of it").no_done()]);
    let mut request = streamed();
    let ledger = request.call.begin().clone();
    let got = call(&stack(&[&only]), request).await;
    assert_eq!((got.text.as_str(), got.kind()), ("all of it", None));
    assert!(got.ended_after < SECOND);
    let attempt = ledger.served_by().expect("one attempt served");
    assert_ne!(attempt.usage, Usage::default(), "the usage came");
    assert!(attempt.ended_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_context_length_error_goes_to_the_next_target_after_one_attempt() {
    let first = always(Failure::context_length_exceeded());
    let second = upstream::<Script>([]);
    let got = call(&stack(&[&first, &second]), unary()).await;
    assert_eq!(
        (got.text.as_str(), got.target.as_deref()),
        ("served", Some("t1"))
    );
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_content_policy_error_comes_back_as_it_is_after_one_attempt() {
    let (first, second) = (always(Failure::content_policy()), upstream::<Script>([]));
    let got = call(&stack(&[&first, &second]), unary()).await;
    assert_eq!(got.kind(), Some(ErrorKind::ContentPolicy));
    assert_eq!(got.error.and_then(|e| e.status()), Some(400));
    assert_eq!((first.count(), second.count()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_filter_withheld_is_a_content_policy_error() {
    let first = always(Script::empty_answer().content_filter());
    let second = upstream::<Script>([]);
    for request in [unary(), streamed()] {
        let got = call(&stack(&[&first, &second]), request).await;
        assert_eq!(got.kind(), Some(ErrorKind::ContentPolicy));
    }
    assert_eq!((first.count(), second.count()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_the_commit_point_is_told_in_band() {
    type Cut = fn(Script) -> Script;
    let cuts: [Cut; 4] = [
        |s| s.cut_after(5),
        |s| s.cut_inside_event(5),
        |s| s.cut_inside_chunk(5),
        |s| s.no_finish_reason(),
    ];
    for cut in cuts {
        let (first, second) = (always(cut(Script::words(10))), upstream::<Script>([]));
        let got = call(&stack(&[&first, &second]), streamed()).await;
        assert_eq!(got.target.as_deref(), Some("t0"));
        assert!(!got.text.is_empty(), "something was shown");
        let kind = got.kind().expect("never a short success");
        assert!(
            matches!(kind, ErrorKind::Incomplete | ErrorKind::StreamBroken),
            "{kind}"
        );
        assert_eq!(
            (first.count(), second.count()),
            (1, 0),
            "it is not asked again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_before_the_commit_point_is_retried() {
    let only = upstream([Script::words(10).cut_after(0)]);
    let got = call(&stack(&[&only]), streamed()).await;
    assert_eq!(
        (got.text.as_str(), got.kind(), only.count()),
        ("served", None, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stall_after_the_commit_point_ends_at_the_idle_limit() {
    let only = always(Script::words(10).stall_after(5, None));
    let got = call(&stack(&[&only]), streamed()).await;
    assert_eq!(got.kind(), Some(ErrorKind::Timeout(TimeoutClock::Idle)));
    assert_eq!(got.ended_after.as_secs(), 15);
    only.wait_for(|seen| seen.cancelled() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_model_that_is_reported_is_the_one_that_served() {
    for request in [unary(), streamed()] {
        let only = always(Script::answer("hi").model("served-2026"));
        let got = call(&stack(&[&only]), request).await;
        assert_eq!(got.model.as_deref(), Some("served-2026"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_unary_answer_may_take_three_times_the_first_token_limit() {
    let only = always(Script::answer("thought through").headers_after(30 * SECOND));
    let got = call(&stack(&[&only]), unary()).await;
    assert_eq!((got.text.as_str(), only.count()), ("thought through", 1));
    assert_eq!(got.ended_after.as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn odd_answers_pass_through() {
    for request in [unary(), streamed()] {
        let empty = always(Script::empty_answer());
        let got = call(&stack(&[&empty]), request.clone()).await;
        assert_eq!(
            (got.text.as_str(), got.kind(), empty.count()),
            ("", None, 1)
        );

        let two = always(Script::answer("twice").choices(2));
        let mut request = request;
        request.edit_chat().expect("a chat").n = Some(2);
        let got = stack(&[&two]).send(request).await.expect("it answers");
        let (_, answer) = got.collect().await.expect("it ends");
        let choices = &answer.as_chat().expect("a chat").choices;
        assert_eq!(choices.len(), 2);
        assert!(
            choices
                .iter()
                .all(|choice| choice.message.text() == "twice")
        );
    }
    let unknown = always(Script::answer("known").unknown_delta());
    let got = call(&stack(&[&unknown]), streamed()).await;
    assert_eq!(
        (got.text.as_str(), got.kind(), unknown.count()),
        ("known", None, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn four_targets_of_three_attempts_each_reach_the_fourth() {
    let down: Vec<Upstream> = (0..3).map(|_| always(Failure::server_error())).collect();
    let fourth = upstream::<Script>([]);
    let got = call(&stack(&[&down[0], &down[1], &down[2], &fourth]), unary()).await;
    assert_eq!(
        (got.text.as_str(), got.target.as_deref()),
        ("served", Some("t3"))
    );
    let counts: Vec<_> = down.iter().map(Upstream::count).collect();
    assert_eq!(
        counts,
        [3, 1, 1],
        "one attempt is reserved for each untried target"
    );
    assert_eq!((fourth.count(), got.sent), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn with_every_target_failing_no_more_attempts_are_made_than_configured() {
    for targets in 1..=4 {
        let down: Vec<Upstream> = (0..targets)
            .map(|_| always(Failure::server_error()))
            .collect();
        let all: Vec<_> = down.iter().collect();
        let got = call(&stack(&all), unary()).await;
        let attempts: usize = down.iter().map(Upstream::count).sum();
        // Three on the first, one on each further one.
        assert_eq!(attempts, 3 + targets - 1);
        let error = got.error.expect("all failed");
        if targets > 1 {
            assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
            assert_eq!(
                error.attempts().len(),
                targets,
                "the reason of each is kept"
            );
        }
        assert_eq!(error.http_status(), 502);
    }
}

#[tokio::test(start_paused = true)]
async fn one_deadline_covers_every_attempt() {
    let (first, second) = (always(Script::hang()), always(Script::hang()));
    let stack = preset(&[&first, &second])
        .total_timeout(Duration::from_secs(14))
        .build()
        .expect("good");
    let got = call(&stack, streamed()).await;
    assert_eq!(
        got.ended_after.as_secs(),
        14,
        "10 s on the first, 4 s on the second"
    );
    assert_eq!((first.count(), second.count()), (1, 1));
    let error = got.error.expect("too late");
    assert_eq!(error.http_status(), 504, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_from_one_template_are_independent() {
    let only = always(Script::answer("hi"));
    let stack = stack(&[&only]);
    let template = unary().with_timeout(10 * SECOND);
    for _ in 0..1000 {
        // Far more attempts and far more time than one call has.
        let got = call(&stack, template.clone()).await;
        assert_eq!((got.sent, got.kind()), (1, None));
        tokio::time::advance(SECOND).await;
    }
    assert_eq!(only.count(), 1000);
}
