//! Every fault of an upstream, at every moment, on any of up to three targets, unary and streamed, over
//! real HTTP on both sides: what the caller gets and when, and what each upstream sees.

mod faults;
mod front;
mod weather;

use std::time::Duration;

use donjon::{
    Preset,
    failover::{Resume, Target},
    timeout::TimeoutLayer,
};
use donjon_testkit::upstream::Upstream;

use self::{
    faults::{
        Due, FIRST_TOKEN, Fault, IDLE, RESPONSE, RESUMED, TOTAL, WORDS, faults, reckon, words,
    },
    front::{Front, Mode},
};
use crate::{Http, always, provider};

/// What backoff and its jitter may add to a call: hints of a second are waited for.
const BACKOFF: Duration = Duration::from_secs(8);

fn preset(upstreams: &[Upstream]) -> Preset<Http> {
    let timeout = TimeoutLayer::builder()
        .first_token(Duration::from_millis(FIRST_TOKEN))
        .idle(Duration::from_millis(IDLE))
        .response(Duration::from_millis(RESPONSE))
        .build()
        .expect("a good configuration");
    let preset = Preset::new()
        .timeout(timeout)
        .total_timeout(Duration::from_millis(TOTAL));
    let targets = upstreams.iter().enumerate();
    targets.fold(preset, |preset, (at, upstream)| {
        preset.target(Target::new(format!("t{at}"), provider(upstream)))
    })
}

/// Asks once where the targets have these faults, and holds both sides against what was reckoned.
async fn judge(targets: &[&Fault], mode: Mode, resumed: bool) -> Result<(), String> {
    let upstreams: Vec<_> = targets.iter().map(|f| always((f.script)())).collect();
    let resume = resumed.then(|| Resume::new().most(RESUMED));
    let stack = preset(&upstreams).resume(resume).build();
    let stack = stack.expect("a good configuration");
    let due = reckon(targets, mode, resumed);
    let reply = Front::new(&stack).ask(mode).await;
    for upstream in &upstreams {
        // What was given up is closed, and nothing goes on.
        upstream.wait_for(|seen| seen.in_progress == 0).await;
    }
    let seen: Vec<_> = upstreams.iter().map(Upstream::count).collect();
    // Attempt by attempt: how each ended, and that none began before the one before it had.
    let mut before = None;
    let orderly = targets.iter().zip(&upstreams).all(|(fault, upstream)| {
        upstream.calls().iter().all(|call| {
            let began = call.request.at;
            let ended = call.ended.map(|ended| ended.at);
            let in_turn = before.is_none_or(|before| before <= began);
            before = ended;
            in_turn
                && call.end() == Some(fault.ends(mode))
                && call.request.streamed() == (mode == Mode::Streamed)
        })
    });
    let got = match due.due {
        Due::Whole => reply.is_whole(&words(WORDS)),
        Due::Error(status) => reply.is_error(status),
        Due::Cut(shown) => reply.is_cut(&words(shown)),
    };
    let timely = |due, at| (due..=due + BACKOFF).contains(&at);
    let timely = timely(due.head, reply.head_after) && timely(due.end, reply.ended_after);
    if got && orderly && seen == due.attempts && timely {
        return Ok(());
    }
    let names: Vec<_> = targets.iter().map(|fault| fault.name).collect();
    Err(format!(
        "{mode:?} {names:?} resumed: {resumed}\n  due: {due:?}\n  seen: {seen:?}, orderly: {orderly}\n  got: {reply:?}\n"
    ))
}

/// Judges every case, and tells of all that went otherwise.
async fn judge_all<'a>(cases: impl IntoIterator<Item = Vec<&'a Fault>>) {
    let mut wrong = Vec::new();
    for targets in cases {
        for (mode, resumed) in [
            (Mode::Unary, false),
            (Mode::Streamed, false),
            (Mode::Streamed, true),
        ] {
            wrong.extend(judge(&targets, mode, resumed).await.err());
        }
    }
    assert!(
        wrong.is_empty(),
        "{} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_an_only_target() {
    judge_all(faults().iter().map(|fault| vec![fault])).await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_two_targets() {
    let faults = faults();
    let pairs = faults
        .iter()
        .flat_map(|a| faults.iter().map(move |b| vec![a, b]));
    judge_all(pairs).await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_two_targets_before_a_good_one() {
    let faults = faults();
    let good = &faults[0];
    let pairs = faults
        .iter()
        .flat_map(|a| faults.iter().map(move |b| vec![a, b, good]));
    judge_all(pairs).await;
}
