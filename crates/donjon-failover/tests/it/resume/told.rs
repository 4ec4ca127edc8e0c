//! What is told of what was used, and to whom.

use std::sync::{Arc, Mutex};

use donjon_core::{
    Account, End, ErrorKind, Estimate, LlmRequest, Observer, Reservation, Settlement, Usage,
};
use donjon_failover::Failover;
use donjon_testkit::{
    Script, ScriptedLlm,
    probe::{EndLog, HeardEnd},
};

use super::{continuing, cut, observed, read, resuming, words};
use crate::{ask, model, request};

#[tokio::test(start_paused = true)]
async fn each_target_is_heard_apart_and_the_caller_once() {
    let (first, second, outer) = (EndLog::new(), EndLog::new(), EndLog::new());
    let (a, b) = (
        observed(cut(40), &first),
        observed(Script::words(60), &second),
    );
    let failover = resuming(&[(&a, false), (&b, false)]);
    let answer = ask(&failover, request().streamed())
        .await
        .expect("it begins");
    let got = read(answer.observe(outer.observer())).await;
    assert_eq!(got.text(), words(60));
    assert_eq!(first.ends(), [HeardEnd::Failure(ErrorKind::Incomplete)]);
    assert_eq!(second.ends(), [HeardEnd::Success]);
    assert_eq!(outer.ends(), [HeardEnd::Success]);
}

/// What was settled.
#[derive(Clone, Debug, Default)]
struct Books(Arc<Mutex<Vec<Settlement>>>);

impl Account for Books {
    fn settle(self, settlement: Settlement) {
        self.0.lock().expect("no panic").push(settlement);
    }
}

impl Books {
    fn read(&self) -> Vec<Settlement> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Asks with an account outside of failover, and with one around each target inside.
async fn settled(models: &[(&ScriptedLlm, bool)]) -> (super::Got, Settlement) {
    let failover: Failover<ScriptedLlm> = resuming(models);
    let mut asked: LlmRequest = request().streamed();
    asked.call.estimate = Some(Estimate::new(100, 1000));
    asked.call.begin();
    let books = Books::default();
    let reservation = Reservation::new(&asked.call, books.clone());
    let call = asked.call.clone();
    let answer = donjon_core::watch(&call, ask(&failover, asked), reservation).await;
    let got = read(answer.expect("it begins")).await;
    let [settlement] = books.read()[..] else {
        panic!("settled once")
    };
    (got, settlement)
}

#[tokio::test(start_paused = true)]
async fn whoever_stands_outside_pays_for_all_attempts_once() {
    let told = |input, output| Usage::new(input, output);
    let streamed = |n| words(n).len().div_ceil(4) as u64;
    // Cut, then continued.
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let (got, settlement) = settled(&[(&a, false), (&b, true)]).await;
    let sum = told(100 + 50, streamed(40) + 7);
    assert_eq!((got.fold.usage, settlement.usage()), (Some(sum), sum));
    // Cut, answered otherwise, then given anew.
    let other = model(Script::words(20).chunk_at(20, donjon_core::Chunk::text("no")));
    let c = model(Script::words(60).usage(told(90, 70)));
    let (got, settlement) = settled(&[(&a, false), (&other, false), (&c, false)]).await;
    let sum = told(
        100 + 100 + 90,
        streamed(40) + (words(20).len() + 2).div_ceil(4) as u64 + 70,
    );
    assert_eq!((got.fold.usage, settlement.usage()), (Some(sum), sum));
    // Cut, broken before it had said anything new, then given anew.
    let broken = model(cut(30));
    let (got, settlement) = settled(&[(&a, false), (&broken, false), (&c, false)]).await;
    let sum = told(100 + 100 + 90, streamed(40) + streamed(30) + 70);
    assert_eq!((got.fold.usage, settlement.usage()), (Some(sum), sum));
    // One that never says what it used.
    let silent = model(Script::words(60).no_usage());
    let (got, settlement) = settled(&[(&a, false), (&silent, false)]).await;
    let sum = told(200, streamed(40) + streamed(60));
    assert_eq!((got.fold.usage, settlement.usage()), (Some(sum), sum));
    // Nobody goes on; what the second did is told all the same.
    let (got, settlement) = settled(&[(&a, false), (&other, false)]).await;
    let sum = told(200, streamed(40) + (words(20).len() + 2).div_ceil(4) as u64);
    assert_eq!(got.kind(), Some(ErrorKind::Incomplete));
    assert_eq!((got.fold.usage, settlement.usage()), (Some(sum), sum));
    // Nobody could be asked: as it would be without.
    let (got, settlement) = settled(&[(&a, false)]).await;
    assert_eq!(
        (got.fold.usage, settlement.usage()),
        (None, told(100, streamed(40)))
    );
    // Refused before it was sent on: it costs nothing.
    let refuses = model(ErrorKind::Overloaded);
    let (got, settlement) = settled(&[(&a, false), (&refuses, false)]).await;
    assert_eq!(
        (got.fold.usage, settlement.usage()),
        (None, told(100, streamed(40)))
    );
}

#[tokio::test(start_paused = true)]
async fn usage_that_was_told_on_the_way_is_told_on() {
    let early = |usage| donjon_core::Chunk::usage(usage);
    let a = model(cut(40).chunk_at(0, early(Usage::new(30, 1))));
    let b = Script::words(60)
        .no_usage()
        .chunk_at(0, early(Usage::new(31, 1)));
    let b = model(b.chunk_at(60, early(Usage::new(31, 66))));
    let failover = resuming(&[(&a, false), (&b, false)]);
    let answer = ask(&failover, request().streamed())
        .await
        .expect("it begins");
    let got = read(answer).await;
    let sum = Usage::new(61, words(40).len().div_ceil(4) as u64 + 66);
    assert_eq!((got.text(), got.fold.usage), (words(60), Some(sum)));
}

/// Usage that came on its way is superseded by what is told later, in whichever chunk that comes.
#[tokio::test(start_paused = true)]
async fn usage_that_was_told_at_the_end_is_told_last() {
    let mut end = donjon_core::Chunk::finish(donjon_core::FinishReason::Stop);
    end.edit().usage = Some(Usage::new(30, 66));
    let a = Script::words(60).no_usage().no_finish_reason();
    let a = a.chunk_at(0, donjon_core::Chunk::usage(Usage::new(30, 1)));
    let (a, b) = (model(a.chunk_at(60, end)), model(Script::words(60)));
    let failover = resuming(&[(&a, false), (&b, false)]);
    let answer = ask(&failover, request().streamed())
        .await
        .expect("it begins");
    let got = read(answer).await;
    let told: Vec<_> = got.chunks.iter().filter_map(|chunk| chunk.usage).collect();
    assert_eq!(told, [Usage::new(30, 66)]);
}

/// What was held back while another might have gone on is told when nobody does.
#[tokio::test(start_paused = true)]
async fn usage_that_was_told_on_the_way_is_told_where_nobody_goes_on() {
    let a = model(cut(40).chunk_at(0, donjon_core::Chunk::usage(Usage::new(30, 1))));
    let sum = Usage::new(30, words(40).len().div_ceil(4) as u64);
    let refuses = model(ErrorKind::Overloaded);
    for models in [vec![(&a, false)], vec![(&a, false), (&refuses, false)]] {
        let (got, settlement) = settled(&models).await;
        assert_eq!(got.kind(), Some(ErrorKind::Incomplete));
        assert_eq!(got.fold.usage, Some(Usage::new(30, 1)));
        assert_eq!(settlement.usage(), sum);
    }
}

/// Counts chunks and hears its end.
struct Heard(Arc<Mutex<(usize, bool)>>);

impl Observer for Heard {
    fn chunk(&mut self, _: &donjon_core::Chunk) {
        self.0.lock().expect("no panic").0 += 1;
    }

    fn end(&mut self, _: &End<'_>) {
        self.0.lock().expect("no panic").1 = true;
    }
}

/// The end of the stream that broke is heard when it breaks, not when the answer ends.
#[tokio::test(start_paused = true)]
async fn what_the_broken_one_holds_is_let_go_of_before_the_next_is_asked() {
    let a = model(cut(40)).with_capacity(1);
    let b = model(Script::words(60).first_token_after(std::time::Duration::from_secs(9)));
    let failover = resuming(&[(&a, false), (&b, false)]);
    let heard = Arc::new(Mutex::new((0, false)));
    let answer = ask(&failover, request().streamed())
        .await
        .expect("it begins");
    let task = tokio::spawn(read(answer.observe(Heard(heard.clone()))));
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!((a.held(), a.in_progress(), b.in_progress()), (0, 0, 1));
    assert!(!heard.lock().expect("no panic").1);
    assert_eq!(task.await.expect("no panic").text(), words(60));
    assert!(heard.lock().expect("no panic").1);
}
