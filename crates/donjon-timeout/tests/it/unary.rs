//! Answers that come whole.

use donjon_core::TimeoutClock;
use donjon_testkit::{
    Script,
    probe::{EndLog, HeardEnd},
};
use donjon_timeout::Timeouts;
use tokio::time::Instant;

use crate::{SECOND, around, model, ran_out, request, send};

#[tokio::test(start_paused = true)]
async fn the_response_clock_is_over_the_whole_answer() {
    let log = EndLog::new();
    let model = model(Script::hang()).observed_by(&log);
    let service = around(&model, Timeouts::none().response(SECOND * 90));
    let began = Instant::now();
    let error = send(&service, request()).await.expect_err("silence");
    assert_eq!(error.kind(), ran_out(TimeoutClock::Response));
    assert_eq!(error.message(), "no answer within 90s");
    assert_eq!(began.elapsed(), SECOND * 90);
    assert_eq!((model.in_progress(), log.ends().len()), (0, 1));
}

/// S13: a whole answer has no time to first token, and none takes its place.
#[tokio::test(start_paused = true)]
async fn the_clocks_of_streams_do_not_run() {
    let model = model(Script::answer("Hello!").head_after(SECOND * 30));
    let limits = Timeouts::none().first_token(SECOND * 10).idle(SECOND);
    assert!(send(&around(&model, limits), request()).await.is_ok());
}

/// What is there in the same moment as the clock is taken.
#[tokio::test(start_paused = true)]
async fn at_the_very_moment_the_answer_wins() {
    let limits = Timeouts::none().response(SECOND * 10);
    let answered = model(Script::answer("Hello!").head_after(SECOND * 10));
    assert!(send(&around(&answered, limits), request()).await.is_ok());
    let late = SECOND * 10 + std::time::Duration::from_millis(1);
    let late = model(Script::answer("Hello!").head_after(late));
    assert!(send(&around(&late, limits), request()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_total_is_over_the_whole_call() {
    let log = EndLog::new();
    let model = model(Script::hang()).observed_by(&log);
    let service = around(&model, Timeouts::none().total(SECOND * 120));
    let mut call = request();
    call.call.begin();
    // Time that was spent before this attempt counts.
    tokio::time::advance(SECOND * 100).await;
    let began = Instant::now();
    let error = send(&service, call).await.expect_err("silence");
    assert_eq!(error.kind(), ran_out(TimeoutClock::Total));
    assert!(error.message().contains("120s"), "{error}");
    assert_eq!(began.elapsed(), SECOND * 20);
    // Those inside hear a failure, and not a caller who left.
    let total = HeardEnd::Failure(ran_out(TimeoutClock::Total));
    assert_eq!(log.ends(), [total]);
}

#[tokio::test(start_paused = true)]
async fn the_earlier_deadline_holds() {
    let model = model(Script::hang());
    for (own, layers, expected) in [(5, 120, 5), (120, 5, 5)] {
        let service = around(&model, Timeouts::none().total(SECOND * layers));
        let began = Instant::now();
        let call = request().with_timeout(SECOND * own);
        let error = send(&service, call).await.expect_err("silence");
        assert_eq!(error.kind(), ran_out(TimeoutClock::Total));
        assert_eq!(began.elapsed(), SECOND * expected);
    }
    // One that nobody but the caller set holds too.
    let call = request().with_timeout(SECOND);
    let error = send(&around(&model, Timeouts::none()), call).await;
    assert_eq!(
        error.expect_err("silence").kind(),
        ran_out(TimeoutClock::Total)
    );
}

#[tokio::test(start_paused = true)]
async fn without_limits_it_waits() {
    let slow = model(Script::answer("Hello!").head_after(SECOND * 100_000));
    assert!(
        send(&around(&slow, Timeouts::none()), request())
            .await
            .is_ok()
    );
}
