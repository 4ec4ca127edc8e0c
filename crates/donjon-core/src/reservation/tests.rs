use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::{
    AttemptCause, AttemptRef, Billed, ChatCompletion, DropReason, Head, LlmError, LlmRequest,
    LlmResponse, TimeoutClock,
};

struct Book(Sender<Settlement>);

impl Account for Book {
    fn settle(self, settlement: Settlement) {
        self.0.send(settlement).expect("the test listens");
    }

    fn estimated_input(&self) -> u64 {
        33
    }
}

fn reserve(sent: bool) -> (Reservation<Book>, Receiver<Settlement>) {
    let mut request = LlmRequest::chat("m", []);
    request.call.estimate = Some(Estimate::new(100, 50));
    let attempt = request.call.dispatch();
    if sent {
        attempt.stamp_sent();
    }
    let (sender, book) = channel();
    (Reservation::new(&request.call, Book(sender)), book)
}

fn failure(reservation: &mut Reservation<Book>, kind: ErrorKind) {
    let error = LlmError::new(kind, "");
    reservation.end(&End::without_answer(Outcome::Failure(&error)));
}

#[test]
fn a_call_that_was_never_sent_is_refunded_in_full() {
    let (reservation, book) = reserve(false);
    drop(reservation);
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);
}

#[test]
fn a_dropped_one_settles_once_with_the_prompt_and_what_was_streamed() {
    let (mut reservation, book) = reserve(true);
    reservation.chunk(&Chunk::text("12345"));
    drop(reservation);
    let expected = Settlement::Estimated(Usage::new(100, 2));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn the_providers_figure_counts() {
    let (reservation, book) = reserve(true);
    let mut completion = ChatCompletion::text("m", "hi");
    completion.usage = Some(Usage::new(7, 1));
    let response = LlmResponse::complete(Head::new("m"), completion).observe(reservation);
    let expected = Settlement::Actual(Usage::new(7, 1));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
    drop(response);
}

#[tokio::test]
async fn an_answer_from_a_cache_is_never_billed() {
    let (reservation, book) = reserve(true);
    let mut head = Head::new("m");
    head.origin = Origin::Cache;
    let mut completion = ChatCompletion::text("m", "hi");
    completion.usage = Some(Usage::new(7, 1));
    let _response = LlmResponse::complete(head, completion).observe(reservation);
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);
}

#[test]
fn a_refusal_is_free_and_a_timeout_is_not() {
    let (mut reservation, book) = reserve(true);
    failure(&mut reservation, ErrorKind::RateLimited);
    drop(reservation);
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Unbilled]);

    let (mut reservation, book) = reserve(true);
    failure(&mut reservation, ErrorKind::Connect);
    drop(reservation);
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);

    let (mut reservation, book) = reserve(true);
    failure(
        &mut reservation,
        ErrorKind::Timeout(TimeoutClock::FirstToken),
    );
    drop(reservation);
    let expected = Settlement::Estimated(Usage::new(100, 0));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

/// A reservation outside of whoever opens the attempts of this call.
fn outside(estimate: Option<Estimate>) -> (LlmRequest, Reservation<Book>, Receiver<Settlement>) {
    let mut request = LlmRequest::chat("m", []);
    request.call.estimate = estimate;
    request.call.begin();
    let (sender, book) = channel();
    let reservation = Reservation::new(&request.call, Book(sender));
    (request, reservation, book)
}

fn sent(request: &mut LlmRequest, cause: AttemptCause) -> AttemptRef {
    let attempt = request.call.open_attempt(cause);
    attempt.stamp_sent();
    attempt.clone()
}

fn timeout() -> LlmError {
    LlmError::new(ErrorKind::Timeout(TimeoutClock::FirstToken), "")
}

fn serve(attempt: &AttemptRef, reservation: Reservation<Book>, usage: Usage) {
    let mut completion = ChatCompletion::text("m", "hi");
    completion.usage = Some(usage);
    attempt.stamp_committed();
    attempt.set_usage(&usage);
    let _response = LlmResponse::complete(Head::new("m"), completion).observe(reservation);
}

const ESTIMATE: Option<Estimate> = Some(Estimate::new(100, 50));

#[tokio::test]
async fn what_attempts_before_have_used_is_settled_where_another_serves() {
    let (mut request, reservation, book) = outside(ESTIMATE);
    // Refused; billed as it said; waited for in vain; broke off; a hedge that lost; never sent.
    sent(&mut request, AttemptCause::First).fail(&LlmError::new(ErrorKind::Overloaded, ""));
    let billed = sent(&mut request, AttemptCause::Failover);
    billed.set_usage(&Usage::new(7, 1));
    billed.fail(&LlmError::new(ErrorKind::ContentPolicy, ""));
    sent(&mut request, AttemptCause::Failover).fail(&timeout());
    let broken = sent(&mut request, AttemptCause::Failover);
    broken.stamp_committed();
    broken.set_usage(&Usage::new(90, 3));
    broken.set_error(&LlmError::new(ErrorKind::Transport, ""));
    sent(&mut request, AttemptCause::Hedge).set_dropped(DropReason::Superseded);
    request.call.open_attempt(AttemptCause::Hedge);
    let served = sent(&mut request, AttemptCause::Hedge);
    serve(&served, reservation, Usage::new(80, 20));
    let input = 7 + 100 + 90 + 100 + 80;
    let expected = Settlement::Estimated(Usage::new(input, 1 + 3 + 20));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn the_providers_figures_are_added_up() {
    let (mut request, reservation, book) = outside(ESTIMATE);
    let billed = sent(&mut request, AttemptCause::First);
    billed.set_usage(&Usage::new(7, 1));
    billed.fail(&LlmError::new(ErrorKind::ContentPolicy, ""));
    let served = sent(&mut request, AttemptCause::Failover);
    serve(&served, reservation, Usage::new(80, 20));
    let expected = Settlement::Actual(Usage::new(87, 21));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn what_attempts_have_used_is_settled_where_none_serves() {
    let end = |reservation: &mut Reservation<Book>, error: &LlmError| {
        reservation.end(&End::without_answer(Outcome::Failure(error)));
    };
    let all_failed = LlmError::new(ErrorKind::AllTargetsFailed, "");
    let (mut request, mut reservation, book) = outside(ESTIMATE);
    sent(&mut request, AttemptCause::First).fail(&timeout());
    sent(&mut request, AttemptCause::Failover).fail(&LlmError::new(ErrorKind::RateLimited, ""));
    end(&mut reservation, &all_failed);
    let expected = Settlement::Estimated(Usage::new(100, 0));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);

    // Nobody was there to count it.
    let (mut request, mut reservation, book) = outside(ESTIMATE);
    sent(&mut request, AttemptCause::First).fail(&LlmError::new(ErrorKind::Connect, ""));
    end(&mut reservation, &all_failed);
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);

    let (mut request, mut reservation, book) = outside(ESTIMATE);
    let refused = sent(&mut request, AttemptCause::First);
    refused.set_billed(Billed::No);
    refused.fail(&LlmError::new(ErrorKind::Overloaded, ""));
    end(&mut reservation, &all_failed);
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Unbilled]);

    // One attempt had failed when the caller left the next.
    let (mut request, reservation, book) = outside(ESTIMATE);
    sent(&mut request, AttemptCause::First).fail(&timeout());
    sent(&mut request, AttemptCause::Failover);
    drop(reservation);
    let expected = Settlement::Estimated(Usage::new(200, 0));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

/// The other target's attempts are not this one's.
#[tokio::test]
async fn under_an_attempt_only_those_that_repeat_it_count() {
    let mut request = LlmRequest::chat("m", []);
    request.call.estimate = ESTIMATE;
    let (sender, book) = channel();
    let first = sent(&mut request, AttemptCause::First);
    let reservation = Reservation::new(&request.call, Book(sender));
    let mut hedge = request.clone();
    sent(&mut hedge, AttemptCause::Hedge);
    first.fail(&timeout());
    let second = sent(&mut request, AttemptCause::Retry);
    serve(&second, reservation, Usage::new(80, 20));
    let expected = Settlement::Estimated(Usage::new(180, 20));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

/// A stream that was resumed tells the usage of all whose tokens it showed; what failed before it showed any
/// comes on top.
#[tokio::test]
async fn the_attempts_of_a_stream_that_was_resumed_are_in_what_it_tells() {
    let (mut request, reservation, book) = outside(ESTIMATE);
    let broken = sent(&mut request, AttemptCause::First);
    broken.stamp_committed();
    broken.set_error(&LlmError::new(ErrorKind::Incomplete, ""));
    let vain = sent(&mut request, AttemptCause::Resume);
    vain.fail(&timeout());
    let third = sent(&mut request, AttemptCause::Resume);
    serve(&third, reservation, Usage::new(280, 90));
    let expected = Settlement::Estimated(Usage::new(380, 90));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);

    // It told nothing: each is as good as its prompt, and what was shown counts once.
    let (mut request, mut reservation, book) = outside(ESTIMATE);
    sent(&mut request, AttemptCause::First).stamp_committed();
    sent(&mut request, AttemptCause::Resume).stamp_committed();
    reservation.committed(&Head::new("m"));
    reservation.chunk(&Chunk::text("12345678"));
    drop(reservation);
    let expected = Settlement::Estimated(Usage::new(200, 2));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn where_nobody_counted_the_account_says_what_a_prompt_is_taken_for() {
    let (mut request, mut reservation, book) = outside(None);
    sent(&mut request, AttemptCause::First).fail(&timeout());
    sent(&mut request, AttemptCause::Failover).fail(&timeout());
    reservation.end(&End::without_answer(Outcome::Failure(&timeout())));
    let expected = Settlement::Estimated(Usage::new(66, 0));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}

/// What was made further in than a reservation belongs to it, and what was made further out does not, although
/// both follow from the attempt that it was made for.
#[test]
fn attempts_of_drivers_further_in_are_its_own() {
    let mut request = LlmRequest::chat("m", []);
    request.call.estimate = Some(Estimate::new(100, 50));
    let call = &mut request.call;
    let group = call.open_attempt(AttemptCause::First).clone();
    let (sender, book) = channel();
    let reservation = Reservation::new(call, Book(sender));
    let ledger = group.ledger().clone();
    let sent = |cause, parent: u32| {
        let attempt = ledger.attempt(cause, Some(parent));
        attempt.stamp_sent();
        attempt
    };
    let first = sent(AttemptCause::First, group.index());
    let hedge = sent(AttemptCause::Hedge, first.index());
    hedge.stand_beside(first.index());
    let retry = sent(AttemptCause::Retry, hedge.index());
    sent(AttemptCause::Failover, retry.index());
    // By whoever stands further out: beside the group, and after it.
    let outside = sent(AttemptCause::Hedge, first.index());
    outside.stand_beside(group.index());
    sent(AttemptCause::First, outside.index());
    sent(AttemptCause::Failover, group.index());
    drop(reservation);
    let expected = Settlement::Estimated(Usage::new(4 * 100, 0));
    assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
}
