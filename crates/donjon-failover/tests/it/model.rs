//! Any script of errors comes out as a naive model of failover says.

use donjon_core::{ErrorKind, LlmError};
use proptest::prelude::*;

use crate::{ask, counts, failover, model, reasons, request};

/// What one target does, and whether it is enabled.
type Plan = (Option<ErrorKind>, bool);

/// Who serves, or the kind of the error and those of the reasons in it.
type Outcome = Result<usize, (ErrorKind, Vec<ErrorKind>)>;

/// What a naive failover does: whom it asks, and what comes of it.
fn naive(plans: &[Plan]) -> (Vec<usize>, Outcome) {
    let mut asked = vec![0; plans.len()];
    let mut why = Vec::new();
    // Those that are passed over stand last.
    let off = plans.iter().filter(|(_, enabled)| !enabled);
    let off = off.map(|_| ErrorKind::Unsent);
    for (at, (does, enabled)) in plans.iter().enumerate() {
        if !enabled {
            continue;
        }
        asked[at] = 1;
        match does {
            None => return (asked, Ok(at)),
            Some(kind)
                if LlmError::new(*kind, "").disposition().failover
                    || *kind == ErrorKind::AllTargetsFailed =>
            {
                why.push(*kind);
            }
            Some(kind) => {
                let late = *kind == ErrorKind::Timeout(donjon_core::TimeoutClock::Total);
                let failed = !why.is_empty();
                why.extend(off);
                return (
                    asked,
                    Err((*kind, if late && failed { why } else { vec![] })),
                );
            }
        }
    }
    why.extend(off);
    match (plans, &why[..]) {
        ([(Some(only), true)], _) => (asked, Err((*only, vec![]))),
        _ => (asked, Err((ErrorKind::AllTargetsFailed, why))),
    }
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let kind = proptest::sample::select(ErrorKind::ALL);
    // `Unsent` stands for a disabled target here.
    let kind = kind.prop_filter("is not told apart", |kind| *kind != ErrorKind::Unsent);
    let does = prop_oneof![1 => Just(None), 5 => kind.prop_map(Some)];
    proptest::collection::vec((does, prop::bool::weighted(0.8)), 1..=5)
}

proptest! {
    #[test]
    fn the_outcome_is_that_of_a_naive_model(plans in plans(), streamed in any::<bool>()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let models: Vec<_> = plans
                .iter()
                .map(|(does, _)| does.map_or_else(|| model("hi"), model))
                .collect();
            let failover = failover(&models);
            for (name, (_, enabled)) in crate::NAMES.iter().zip(&plans) {
                if !enabled {
                    failover.handle().disable(name).expect("it is there");
                }
            }
            let mut request = if streamed { request().streamed() } else { request() };
            request.call.begin();
            let ledger = request.call.ledger().expect("it began").clone();
            let (asked, outcome) = naive(&plans);

            let answer = ask(&failover, request).await;
            prop_assert_eq!(counts(&models), asked.clone());
            prop_assert_eq!(ledger.opened() as usize, asked.iter().sum::<usize>());
            let unsent = |at: &usize| plans[*at].0.is_some_and(ErrorKind::is_unsent);
            let sent = (0..plans.len()).filter(|at| asked[*at] == 1 && !unsent(at)).count();
            prop_assert_eq!(ledger.sent() as usize, sent);
            match (answer, outcome) {
                (Ok(answer), Ok(at)) => {
                    prop_assert_eq!(answer.head.target.as_deref(), Some(crate::NAMES[at]));
                }
                (Err(error), Err((kind, why))) => {
                    prop_assert_eq!(error.kind(), kind);
                    let kinds: Vec<_> = reasons(&error).into_iter().map(|(_, kind)| kind).collect();
                    prop_assert_eq!(kinds, why);
                }
                (answer, outcome) => prop_assert!(false, "{answer:?} is not {outcome:?}"),
            }
            let ends: Vec<_> = failover.handle().targets();
            for (target, times) in ends.iter().zip(&asked) {
                prop_assert_eq!(target.calls, *times as u64);
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}

#[test]
fn the_naive_model_knows_the_difference() {
    let down = (Some(ErrorKind::Overloaded), true);
    assert_eq!(naive(&[down, (None, true)]), (vec![1, 1], Ok(1)));
    let policy = (Some(ErrorKind::ContentPolicy), true);
    assert_eq!(
        naive(&[policy, down]),
        (vec![1, 0], Err((ErrorKind::ContentPolicy, vec![])))
    );
}
