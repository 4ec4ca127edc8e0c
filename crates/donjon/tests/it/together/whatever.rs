//! Whatever targets and callers do.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Mutex,
    time::Duration,
};

use donjon::{
    AttemptCause, ErrorKind, LlmRequest, Role,
    failover::{Failover, Resume, Target},
    retry::{Backoff, RetryBudget, RetryLayer},
};
use donjon_testkit::{Script, ScriptedLlm, probe::EndLog};
use tower::{Layer, ServiceExt};

use super::{MILLI, NAMES, after_a_second, assert_idle, built, read, request, whole, words};

/// Goes on with what was begun if it `continues`, and else rejects that; else plays these scripts, then fails.
fn scripted(scripts: Vec<Script>, continues: bool) -> ScriptedLlm {
    let scripts = Mutex::new(scripts);
    let model = ScriptedLlm::from_fn(move |request: &LlmRequest| {
        let last = request.as_chat().and_then(|chat| chat.messages.last());
        match last.filter(|last| last.role == Role::Assistant) {
            Some(begun) if continues => Script::answer(&words(60)[begun.text().len()..]),
            Some(_) => ErrorKind::InvalidRequest.into(),
            None => {
                let next = scripts.lock().expect("no panic").pop();
                next.unwrap_or_else(|| ErrorKind::Unavailable.into())
            }
        }
    });
    model.commits()
}

fn any_script(random: &mut fastrand::Rng) -> Script {
    let wait = Duration::from_millis(random.u64(0..4) * 500 + random.u64(0..3));
    let after = random.usize(0..=60);
    match random.u8(0..6) {
        0 => whole(wait),
        1 => Script::fail(ErrorKind::CircuitOpen).head_after(wait),
        2 | 3 => whole(wait).cut_after(after),
        4 => whole(wait).fail_after(after, ErrorKind::Overloaded),
        _ => Script::fail(ErrorKind::Unavailable).head_after(wait),
    }
}

/// One call to targets that do whatever they do, through hedges, failover and retries, by a caller who may leave;
/// whether it was answered whole, `None` if it was left.
async fn whatever(random: &mut fastrand::Rng) -> Option<bool> {
    let (log, outer) = (EndLog::new(), EndLog::new());
    let models: Vec<_> = (0..random.usize(1..=3))
        .map(|at| {
            let scripts = (0..3).map(|_| any_script(random)).collect();
            scripted(scripts, at == 1).observed_by(&log)
        })
        .collect();
    let retry = RetryLayer::builder().backoff(Backoff::fixed(100 * MILLI));
    let retry = retry.budget(RetryBudget::unlimited()).max_attempts(3);
    let retry = retry.build().expect("sensible");
    let room = random.bool().then_some(1);
    let targets = NAMES.iter().zip(&models).map(|(name, model)| {
        let target = Target::new(*name, retry.layer(model.clone()));
        target.continues(true).max_in_flight(room)
    });
    let failover = Failover::builder().targets(targets).resume(Resume::new());
    let failover = failover.build().expect("sensible");
    let handle = failover.handle();
    let layer = built(after_a_second().max_hedges(random.usize(1..=2)));
    let mut request = request();
    let ledger = request.call.begin().clone();
    let cap = random.u32(0..8);
    if cap > 0 {
        ledger.limit_attempts(cap);
    }
    let leave = random.u8(0..4) == 0;
    let within = Duration::from_millis(if leave {
        random.u64(0..5000)
    } else {
        3_600_000
    });
    let all = async {
        match layer.layer(failover).oneshot(request).await {
            Ok(answer) => read(answer.observe(outer.observer())).await,
            Err(error) => (String::new(), Some(error)),
        }
    };
    let got = tokio::time::timeout(within, all).await.ok();
    assert!(leave || got.is_some(), "it hangs");
    let is_whole = got.map(|(text, error)| {
        let part = error.is_some() && words(60).starts_with(&text);
        assert!(part || text == words(60), "{text} {error:?}");
        error.is_none()
    });
    // What goes on with a stream is asked beside what the call may make, unless that was capped.
    let resumed = ledger
        .attempts()
        .filter(|a| a.cause == AttemptCause::Resume);
    let usual = 3 + models.len() - 1 + ledger.hedges() as usize;
    let most = match cap {
        0 => usual + resumed.count().min(2 * 2 * models.len()),
        cap => cap as usize,
    };
    assert!(
        ledger.sent() as usize <= most,
        "{} of {most}",
        ledger.sent()
    );
    // All that was kept for attempts is given back or used, and places are free.
    let again = ledger.reserve_hedge(0);
    assert!(again.is_some() || ledger.sent() == cap, "{ledger:?}");
    assert!(
        handle
            .targets()
            .iter()
            .all(|target| target.in_flight() == 0)
    );
    assert_idle(&models);
    log.assert_one_each();
    outer.assert_one_each();
    is_whole
}

#[test]
fn whatever_targets_do_an_answer_is_whole_or_says_that_it_is_not() {
    let (mut whole, mut left) = (0, 0);
    for round in 0..1000 {
        let mut random = fastrand::Rng::with_seed(round);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let told = AssertUnwindSafe(|| runtime.block_on(whatever(&mut random)));
        match catch_unwind(told) {
            Ok(Some(is_whole)) => whole += u32::from(is_whole),
            Ok(None) => left += 1,
            Err(panic) => {
                eprintln!("in round {round}");
                resume_unwind(panic)
            }
        }
    }
    assert!(whole > 300 && left > 20, "{whole} whole, {left} left");
}
