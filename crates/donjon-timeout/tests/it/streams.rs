//! Answers that come chunk by chunk.

use std::sync::Arc;

use donjon_core::{AttemptCause, ChoiceDelta, Chunk, FinishReason, TimeoutClock};
use donjon_testkit::{
    Script,
    probe::{EndLog, HeardEnd},
};
use donjon_timeout::{TimeoutLayer, Timeouts};
use tokio::time::{Instant, sleep};
use tower::Layer;

use crate::{SECOND, around, model, open, ran_out, read, send, streamed};

fn first_token() -> Timeouts {
    Timeouts::none().first_token(SECOND * 10)
}

fn idle() -> Timeouts {
    Timeouts::none().idle(SECOND * 15)
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_first_token_is_an_error_of_the_call() {
    for script in [
        Script::hang(),
        Script::words(3).role_then_silence(),
        Script::words(3).first_token_after(SECOND * 20),
        Script::words(3).pings_at(0, 100, SECOND),
        Script::words(3).empty_deltas_at(0, 100, SECOND),
    ] {
        let model = model(script);
        let began = Instant::now();
        let error = send(&around(&model, first_token()), streamed()).await;
        let error = error.expect_err("nothing was shown");
        assert_eq!(error.kind(), ran_out(TimeoutClock::FirstToken));
        assert_eq!(error.message(), "no first token within 10s");
        assert_eq!((began.elapsed(), model.in_progress()), (SECOND * 10, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_token_in_time_commits_and_the_clock_stops() {
    let model = model(
        Script::words(3)
            .first_token_after(SECOND * 10)
            .gap(SECOND * 300),
    );
    let stream = open(&around(&model, first_token()), streamed()).await;
    assert!(matches!(read(stream).await, (3, None)));
}

#[tokio::test(start_paused = true)]
async fn silence_in_the_middle_is_told_in_band() {
    let log = EndLog::new();
    let model = model(Script::words(5).stall_after(2, None)).observed_by(&log);
    let began = Instant::now();
    let stream = open(&around(&model, idle()), streamed()).await;
    let (words, error) = read(stream).await;
    let error = error.expect("silence");
    assert_eq!((words, error.kind()), (2, ran_out(TimeoutClock::Idle)));
    assert!(error.message().contains("15s"), "{error}");
    assert_eq!((began.elapsed(), model.in_progress()), (SECOND * 15, 0));
    log.assert_one_each();
}

/// Those around hear of the silence as a failure, and the stream below is gone by then.
#[tokio::test(start_paused = true)]
async fn what_is_below_is_let_go_of_before_anybody_hears_of_it() {
    struct Looks(
        donjon_testkit::ScriptedLlm,
        Arc<std::sync::Mutex<Vec<usize>>>,
    );
    impl donjon_core::Observer for Looks {
        fn end(&mut self, end: &donjon_core::End<'_>) {
            let failed = matches!(end.outcome, donjon_core::Outcome::Failure(_));
            assert!(failed, "{end:?}");
            self.1.lock().expect("no panic").push(self.0.in_progress());
        }
    }
    let model = model(Script::words(5).stall_after(2, None));
    let answer = send(&around(&model, idle()), streamed()).await;
    let running = Arc::default();
    let answer = answer.expect("it commits");
    let answer = answer.observe(Looks(model.clone(), Arc::clone(&running)));
    assert!(answer.collect().await.is_err());
    assert_eq!(*running.lock().expect("no panic"), [0]);
}

#[tokio::test(start_paused = true)]
async fn each_word_begins_the_idle_time_anew() {
    let model = model(Script::words(20).gap(SECOND * 14));
    let stream = open(&around(&model, idle()), streamed()).await;
    assert!(matches!(read(stream).await, (20, None)));
}

/// S5: keep-alives and empty deltas are no sign of life.
#[tokio::test(start_paused = true)]
async fn what_carries_nothing_does_not_begin_it_anew() {
    for script in [
        Script::words(5).pings_at(2, 100, SECOND * 4),
        Script::words(5).empty_deltas_at(2, 100, SECOND * 4),
        // A role said once more.
        (0..100).fold(Script::words(5), |script, _| {
            let script = script.stall_after(2, SECOND * 4);
            script.chunk_at(2, Chunk::role())
        }),
    ] {
        let began = Instant::now();
        // At the head, so that pings reach the layer too.
        let model = donjon_testkit::ScriptedLlm::new(script);
        let stream = open(&around(&model, idle()), streamed()).await;
        let (words, error) = read(stream).await;
        assert_eq!(words, 2);
        assert_eq!(error.expect("silence").kind(), ran_out(TimeoutClock::Idle));
        assert_eq!(began.elapsed(), SECOND * 15);
    }
}

#[tokio::test(start_paused = true)]
async fn reasoning_tool_calls_and_what_is_unknown_are_signs_of_life() {
    let gap = SECOND * 10;
    let rich = Script::answer("one two")
        .reasoning("so it is")
        .tool_call("look_up", r#"{"what": "the keep"}"#)
        .gap(gap);
    let unknown = Script::words(2)
        .stall_after(1, gap)
        .unknown_at(1)
        .stall_after(1, gap);
    for script in [rich, unknown] {
        let stream = open(&around(&model(script), idle()), streamed()).await;
        assert!(matches!(read(stream).await, (2, None)));
    }
}

/// S5: whoever reads slowly is not taken for a silent provider, and what came is not lost.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_never_blamed() {
    for script in [
        Script::words(5).gap(SECOND * 10),
        Script::words(5).pings_at(3, 3, SECOND * 4),
    ] {
        let model = donjon_testkit::ScriptedLlm::new(script);
        let mut stream = open(&around(&model, idle()), streamed()).await;
        let mut words = 0;
        while let Some(chunk) = stream.next_chunk().await {
            words += usize::from(chunk.expect("no clock ran out").text().is_some());
            sleep(SECOND * 60).await;
        }
        assert_eq!(words, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_very_moment_the_chunk_wins() {
    let millisecond = std::time::Duration::from_millis(1);
    for (gap, expected) in [(SECOND * 15, 5), (SECOND * 15 + millisecond, 1)] {
        let model = model(Script::words(5).gap(gap));
        let stream = open(&around(&model, idle()), streamed()).await;
        assert_eq!(read(stream).await.0, expected);
    }
}

/// Once every choice had its finish reason only the end is waited for.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_whole_is_no_failure() {
    let finish = |index| Chunk::new([ChoiceDelta::finish(index, FinishReason::Stop)]);
    let script = |choices: u32| {
        let script = Script::words(2).no_finish_reason();
        let script = (0..choices).fold(script, |script, index| script.chunk_at(2, finish(index)));
        script.stall_after(2, None)
    };
    for (finished, whole) in [(2, true), (1, false)] {
        let log = EndLog::new();
        let model = model(script(finished)).observed_by(&log);
        let layer = TimeoutLayer::new(idle()).expect("sensible");
        let service = layer.layer(model);
        let mut two = streamed();
        two.edit_chat().expect("a chat").n = Some(2);
        let (_, error) = read(open(&service, two).await).await;
        assert_eq!(error.is_none(), whole, "{error:?}");
        let counted = layer.handle().timeouts(TimeoutClock::Idle);
        assert_eq!(counted, u64::from(!whole));
        if whole {
            assert_eq!(log.ends(), [HeardEnd::Success]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_in_the_middle_of_a_stream() {
    let log = EndLog::new();
    let model = model(Script::words(100).gap(SECOND)).observed_by(&log);
    let limits = Timeouts::none().idle(SECOND * 15).total(SECOND * 30);
    let began = Instant::now();
    let stream = open(&around(&model, limits), streamed()).await;
    let (words, error) = read(stream).await;
    assert_eq!(
        error.expect("no time left").kind(),
        ran_out(TimeoutClock::Total)
    );
    assert_eq!(words, 31, "the one of the very moment included");
    assert_eq!(began.elapsed(), SECOND * 30);
    let total = HeardEnd::Failure(ran_out(TimeoutClock::Total));
    assert_eq!(log.ends(), [total], "those inside hear a failure");
}

#[tokio::test(start_paused = true)]
async fn the_ledger_knows_what_an_attempt_ended_with() {
    for (script, clock) in [
        (Script::words(5).stall_after(2, None), TimeoutClock::Idle),
        (Script::hang(), TimeoutClock::FirstToken),
    ] {
        let service = around(&model(script), Timeouts::default());
        let mut call = streamed();
        call.call.open_attempt(AttemptCause::First);
        let ledger = call.call.begin().clone();
        if let Ok(answer) = send(&service, call).await {
            assert!(answer.collect().await.is_err());
        }
        let attempt = ledger.attempts().next().expect("one");
        let error = attempt.error.expect("it failed");
        assert_eq!(error.kind(), ran_out(clock));
    }
}
