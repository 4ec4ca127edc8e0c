//! One account of attempts for a call.

use std::time::Duration;

use donjon_core::{AttemptCause, ErrorKind, LlmError, LlmRequest};

#[tokio::test]
async fn a_template_gives_independent_calls() {
    let template = LlmRequest::chat("m", []).with_timeout(Duration::from_secs(1));
    let mut calls: Vec<_> = (0..1000).map(|_| template.clone()).collect();
    for call in &mut calls {
        call.call.claim_attempt(AttemptCause::First).stamp_sent();
        assert_eq!(call.call.begin().sent(), 1);
    }
    assert!(template.call.ledger().is_none());
}

#[tokio::test]
async fn a_clone_of_a_call_that_began_shares_its_ledger() {
    let mut request = LlmRequest::chat("m", []);
    request.call.begin();
    let mut again = request.clone();
    again.call.open_attempt(AttemptCause::Retry).stamp_sent();
    assert_eq!(request.call.ledger().map(|l| l.sent()), Some(1));
}

#[tokio::test]
async fn an_open_attempt_is_claimed_once_and_later_ones_follow_it() {
    let mut request = LlmRequest::chat("m", []);
    let opened = request.call.open_attempt(AttemptCause::Failover).index();
    let claimed = request.call.claim_attempt(AttemptCause::Retry).index();
    assert_eq!(opened, claimed, "the first try uses what failover opened");
    let next = request.call.claim_attempt(AttemptCause::Retry).read();
    assert_eq!((next.index, next.parent), (1, Some(0)));
    assert_eq!(next.cause, AttemptCause::Retry);
    assert_eq!(
        request.call.dispatch().index(),
        1,
        "the leaf sends under it"
    );
}

#[tokio::test]
async fn many_attempts_find_their_places() {
    let mut request = LlmRequest::chat("m", []);
    for index in 0..40 {
        let attempt = request.call.open_attempt(AttemptCause::Retry);
        attempt.fail(&LlmError::new(ErrorKind::ServerError, index.to_string()));
    }
    let ledger = request.call.begin();
    let errors: Vec<_> = ledger.attempts().filter_map(|a| a.error).collect();
    assert_eq!(errors.len(), 40);
    assert_eq!(errors[39].message(), "39");
    assert_eq!(ledger.sent(), 40);
}

#[tokio::test]
async fn one_attempt_is_reserved_for_each_untried_target() {
    let mut request = LlmRequest::chat("m", []);
    let ledger = request.call.begin().clone();
    ledger.set_targets(4);
    let mut asked = Vec::new();
    // Four targets, three attempts each; the call may make six.
    for target in 0..4 {
        ledger.set_untried(3 - target);
        for attempt in 0..3 {
            if attempt > 0 && !ledger.may_retry(3) {
                break;
            }
            request.call.open_attempt(AttemptCause::Retry).stamp_sent();
            asked.push(target);
        }
    }
    assert_eq!(asked, [0, 0, 0, 1, 2, 3]);
    assert_eq!(ledger.sent(), 6);
}

#[tokio::test]
async fn the_lowest_cap_holds() {
    let mut request = LlmRequest::chat("m", []);
    let ledger = request.call.begin().clone();
    ledger.limit_attempts(5);
    ledger.limit_attempts(2);
    ledger.limit_attempts(9);
    request.call.open_attempt(AttemptCause::First).stamp_sent();
    assert!(ledger.may_retry(100));
    request.call.open_attempt(AttemptCause::Retry).stamp_sent();
    assert!(!ledger.may_retry(100) && !ledger.may_fail_over());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_starts_with_the_call_and_the_earliest_holds() {
    let mut request = LlmRequest::chat("m", []).with_timeout(Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(request.call.deadline(), None, "a template has none");
    request.call.begin();
    assert_eq!(request.call.time_left(), Duration::from_secs(10));
    request.call.set_timeout(Duration::from_secs(20));
    assert_eq!(request.call.time_left(), Duration::from_secs(10));
    request.call.set_timeout(Duration::from_secs(4));
    assert_eq!(request.call.time_left(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn patience_bounds_a_wait_only_while_a_target_is_untried() {
    let mut request = LlmRequest::chat("m", []).with_timeout(Duration::from_secs(60));
    request.call.patience = Some(Duration::from_secs(2));
    let ledger = request.call.begin().clone();
    ledger.set_targets(2);
    let refused = request.call.allow_wait(Duration::from_secs(30));
    let refused = refused.expect_err("another target is untried");
    assert_eq!(refused.kind(), ErrorKind::Unsent);
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(30)));
    ledger.set_untried(0);
    assert!(request.call.allow_wait(Duration::from_secs(30)).is_ok());
    assert!(request.call.allow_wait(Duration::from_secs(61)).is_err());
}

#[tokio::test]
async fn a_retry_keeps_its_target_and_hears_that_its_target_was_superseded() {
    let mut request = LlmRequest::chat("m", []);
    let hedged = request.call.open_attempt(AttemptCause::Hedge).clone();
    hedged.set_target("t".into());
    request.call.claim_attempt(AttemptCause::Retry);
    let retry = request.call.claim_attempt(AttemptCause::Retry).clone();
    assert_eq!(retry.target(), Some("t".into()));
    hedged.set_dropped(donjon_core::DropReason::Superseded);
    assert_eq!(retry.dropped(), Some(donjon_core::DropReason::Superseded));
    // A hedge does not hear it of the attempt that it races.
    let hedge = request.call.open_attempt(AttemptCause::Hedge).clone();
    assert_eq!((hedge.dropped(), hedge.target()), (None, None));
}

#[tokio::test]
async fn a_template_may_have_both_a_timeout_and_a_deadline() {
    let mut template = LlmRequest::chat("m", []).with_timeout(Duration::from_secs(1));
    template
        .call
        .set_deadline(tokio::time::Instant::now() + Duration::from_secs(3600));
    let mut call = template.clone();
    call.call.begin();
    assert!(call.call.time_left() <= Duration::from_secs(1));
    assert!(template.call.time_left() > Duration::from_secs(3000));
}

#[tokio::test]
async fn room_is_kept_until_it_is_used_or_given_back() {
    let mut request = LlmRequest::chat("m", []);
    let ledger = request.call.begin().clone();
    ledger.limit_attempts(2);
    request.call.claim_attempt(AttemptCause::First).stamp_sent();
    let room = request.call.reserve_retry(9).expect("one more");
    assert!(request.call.reserve_retry(9).is_none());
    assert!(request.call.reserve_failover().is_none());
    assert!(ledger.reserve_hedge(0).is_none());
    assert!(!ledger.may_retry(9) && !ledger.may_fail_over());
    assert_eq!(ledger.sent(), 1);
    drop(room);
    let mut room = request.call.reserve_retry(9).expect("it was given back");
    room.keep_for(request.call.claim_attempt(AttemptCause::Retry));
    request.call.dispatch().stamp_sent();
    assert_eq!(ledger.sent(), 2);
    drop(room);
    assert_eq!(ledger.sent(), 2, "it was used");
    assert!(!ledger.may_fail_over());
}

/// The attempt that room was kept for may stand for a group; the first that is sent in it uses the
/// room, and what was refused before leaves it to the next.
#[tokio::test]
async fn room_is_of_those_that_follow_until_one_is_sent() {
    let mut request = LlmRequest::chat("m", []);
    let ledger = request.call.begin().clone();
    ledger.limit_attempts(2);
    request.call.claim_attempt(AttemptCause::First).stamp_sent();
    let mut room = Some(request.call.reserve_failover().expect("one more"));
    let group = request.call.open_attempt(AttemptCause::Failover);
    room.as_mut().expect("kept").keep_for(group);
    let refused = request.call.open_attempt(AttemptCause::First).clone();
    refused.fail(&LlmError::new(ErrorKind::CircuitOpen, "open"));
    let again = request.call.reserve_failover().expect("that of the group");
    again.renew(&mut room);
    request
        .call
        .open_attempt(AttemptCause::Failover)
        .stamp_sent();
    assert_eq!(ledger.sent(), 2);
    assert!(request.call.reserve_failover().is_none());
    drop(room);
    assert_eq!((ledger.sent(), ledger.may_fail_over()), (2, false));
}

#[tokio::test]
async fn a_hedge_is_an_attempt_more_unless_there_is_a_cap() {
    let mut request = LlmRequest::chat("m", []);
    let ledger = request.call.begin().clone();
    request.call.claim_attempt(AttemptCause::First).stamp_sent();
    assert!(!ledger.may_retry(1));
    let mut hedge = request.clone();
    let mut room = ledger.reserve_hedge(0).expect("there is no cap");
    let attempt = hedge.call.open_attempt_from(AttemptCause::Hedge, Some(0));
    room.keep_for(attempt);
    attempt.stamp_sent();
    assert_eq!((attempt.read().parent, ledger.hedges()), (Some(0), 1));
    assert!(!ledger.may_retry(1) && ledger.may_retry(2));
    ledger.limit_attempts(3);
    assert!(ledger.reserve_hedge(1).is_none(), "it is another target's");
    assert!(ledger.reserve_hedge(0).is_some());
}
