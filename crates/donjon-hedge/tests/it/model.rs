//! Random latencies and failures of two attempts, against a model of a few lines.

use donjon_core::{ErrorKind, Ledger, LlmError, LlmResponse};
use donjon_testkit::{Script, probe::EndLog};
use proptest::prelude::*;
use tokio::time::Instant;
use tower::Layer;

use crate::{MILLI, after_a_second, ask, layer, plays, request, slow};

/// How an attempt goes: after so many milliseconds, and whether well.
#[derive(Clone, Copy, Debug)]
struct Plan {
    after: u32,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Serves,
    Fails,
    /// In a way that another attempt does not help with.
    Final,
}

fn plan() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![3 => Just(Fate::Serves), 2 => Just(Fate::Fails), 1 => Just(Fate::Final)];
    (1..3000_u32, fate).prop_map(|(after, fate)| Plan { after, fate })
}

fn script(name: &str, plan: Plan) -> Script {
    let after = plan.after * MILLI;
    match plan.fate {
        Fate::Serves => slow(name, after),
        Fate::Fails => Script::fail(ErrorKind::Unavailable).head_after(after),
        Fate::Final => Script::fail(ErrorKind::InvalidRequest).head_after(after),
    }
}

/// When it ends, who wins, and how many were asked.
fn expected(first: Plan, second: Plan, allowed: bool) -> (u32, Option<&'static str>, usize) {
    let serves = |plan: Plan| plan.fate == Fate::Serves;
    let name = |one, plan| serves(plan).then_some(one);
    let at = match (first.after, first.fate) {
        // Of two at the same moment the first comes first.
        (after, _) if after > 1000 => 1000,
        (after, Fate::Fails) => after,
        (after, _) => return (after, name("first", first), 1),
    };
    if !allowed {
        return (first.after, name("first", first), 1);
    }
    let other = at + second.after;
    match (serves(first), serves(second)) {
        (true, true) if other < first.after => (other, Some("second"), 2),
        (true, _) => (first.after, Some("first"), 2),
        (false, true) => (other, Some("second"), 2),
        (false, false) => (first.after.max(other), None, 2),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_the_model_says(first in plan(), second in plan(), allowed: bool, stream: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let log = EndLog::new();
            let model = plays([script("first", first), script("second", second)]);
            let model = model.observed_by(&log);
            let mut request = if stream { request().streamed() } else { request() };
            let ledger = request.call.begin().clone();
            if !allowed {
                ledger.limit_attempts(1);
            }
            let begun = Instant::now();
            let built = layer(after_a_second());
            let answer = ask(&built.layer(model.clone()), request).await;
            let took = begun.elapsed();
            let (after, winner, count) = expected(first, second, allowed);
            check(&answer, &ledger, winner);
            assert_eq!((took, model.count()), (after * MILLI, count), "{answer:?}");
            if let Ok(answer) = answer {
                let text = donjon_testkit::probe::collect_text(answer).await;
                assert_eq!(text.ok().as_deref(), winner);
            }
            assert_eq!((model.in_progress(), model.held()), (0, 0));
            assert!(ledger.sent() as usize == count);
            log.assert_one_each();
            let handle = built.handle();
            let ended = handle.won_by_first() + handle.won_by_hedge() + handle.all_failed();
            assert_eq!(ended, u64::from(count == 2));
        });
    }
}

fn check(answer: &Result<LlmResponse, LlmError>, ledger: &Ledger, winner: Option<&str>) {
    assert_eq!(answer.is_ok(), winner.is_some());
    let served = ledger.served_by().map(|attempt| attempt.index);
    let expected = winner.map(|name| u32::from(name == "second"));
    assert_eq!(served, expected);
}
