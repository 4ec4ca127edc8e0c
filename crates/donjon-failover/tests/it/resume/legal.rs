//! Any script of failures on any topology: what the caller gets is one answer, spliced legally or not at
//! all, or ends in an error.

use std::time::Duration;

use donjon_core::{ErrorKind, LlmRequest};
use donjon_failover::{Failover, Resume, Target};
use donjon_testkit::{Script, ScriptedLlm, probe::EndLog};
use proptest::prelude::*;

use super::{begun, read};
use crate::{NAMES, ask, request};

/// What a target says.
const ANSWERS: [&str; 3] = [
    "a keep is a tower and a tower is a keep of stone",
    "a keep is a tower and a tower is high",
    "das ist die größte Burg 🏰 weit und breit",
];

/// How a target goes on with what was begun.
#[derive(Clone, Copy, Debug)]
enum Prefilled {
    GoesOn,
    Echoes,
    Rejects,
    /// It answers anew, so that what it says does not follow.
    Ignores,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Cut,
    Error,
    Silence,
}

#[derive(Clone, Debug)]
struct Plan {
    answer: usize,
    /// The size of its pieces, in letters.
    piece: usize,
    fault: Fault,
    after: usize,
    /// It fails at once.
    down: bool,
    continues: bool,
    prefilled: Prefilled,
    /// So many of its streams have the fault.
    broken: usize,
}

impl Plan {
    fn script(&self, text: &str, number: usize) -> Script {
        let letters: Vec<char> = text.chars().collect();
        let pieces = letters
            .chunks(self.piece)
            .map(|piece| piece.iter().collect::<String>());
        let script = Script::tokens(pieces);
        let fault = if number < self.broken {
            self.fault
        } else {
            Fault::None
        };
        match fault {
            Fault::None => script,
            Fault::Cut => script.cut_after(self.after),
            Fault::Error => script.fail_after(self.after, ErrorKind::StreamBroken),
            Fault::Silence => script.stall_after(self.after, None),
        }
    }

    fn model(&self, log: &EndLog) -> ScriptedLlm {
        let plan = self.clone();
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let model = ScriptedLlm::from_fn(move |request: &LlmRequest| {
            let number = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let text = ANSWERS[plan.answer];
            if plan.down {
                return Script::fail(ErrorKind::ServerError);
            }
            let Some(begun) = begun(request) else {
                return plan.script(text, number);
            };
            let rest = rest_of(text, &begun);
            match plan.prefilled {
                Prefilled::GoesOn => plan.script(&rest, number),
                Prefilled::Echoes => plan.script(&format!("{begun}{rest}"), number),
                Prefilled::Rejects => Script::fail(ErrorKind::InvalidRequest),
                Prefilled::Ignores => plan.script(text, number),
            }
        });
        model.commits().observed_by(log)
    }
}

/// What a target that says `text` says after `begun`, which another may have begun.
fn rest_of(text: &str, begun: &str) -> String {
    match text.strip_prefix(begun) {
        Some(rest) => rest.into(),
        None => format!(" — {text}"),
    }
}

/// Whether `got` is what came of legal splices: a beginning of what one target says, and whatever another
/// says after exactly that.
fn is_legal(plans: &[Plan], got: &str, whole: bool) -> bool {
    // All texts that can have been shown in whole, and the beginnings of which can have been.
    fn follow(
        plans: &[Plan],
        left: &[usize],
        shown: &str,
        got: &str,
        whole: bool,
        depth: usize,
    ) -> bool {
        left.iter().any(|&at| {
            let plan = &plans[at];
            let text = ANSWERS[plan.answer];
            let mut wholes = Vec::new();
            if text.starts_with(shown) {
                wholes.push(text.to_owned());
            }
            if depth > 0 && plan.continues && !shown.trim().is_empty() {
                let begun = shown.trim_end();
                let blanks = &shown[begun.len()..];
                let rest = match plan.prefilled {
                    Prefilled::GoesOn => Some(rest_of(text, begun)),
                    Prefilled::Echoes => Some(format!("{begun}{}", rest_of(text, begun))),
                    Prefilled::Ignores => Some(text.to_owned()),
                    Prefilled::Rejects => None,
                };
                let new = rest.map(|rest| {
                    // A few letters are no echo; what is longer is one, be it by chance.
                    let rest = match rest.strip_prefix(begun) {
                        Some(rest) if begun.len() >= 8 => rest.to_owned(),
                        _ => rest,
                    };
                    let again = blanks.chars().zip(rest.chars());
                    let again = again.take_while(|(a, b)| a == b).count();
                    rest[again..].to_owned()
                });
                wholes.extend(new.map(|new| format!("{shown}{new}")));
            }
            let others: Vec<_> = left.iter().copied().filter(|other| *other != at).collect();
            wholes.iter().any(|text| {
                if text == got {
                    return true;
                }
                // It may break after all its text, before its end.
                let cuts = text.char_indices().map(|(at, _)| at);
                let mut cuts = cuts.chain([text.len()]);
                cuts.any(|cut| {
                    let cut = &text[..cut];
                    cut.len() > shown.len()
                        && got.starts_with(cut)
                        && (!whole && cut == got
                            || follow(plans, &others, cut, got, whole, depth + 1))
                })
            })
        })
    }
    let all: Vec<_> = (0..plans.len()).collect();
    follow(plans, &all, "", got, whole, 0)
}

fn plan() -> impl Strategy<Value = Plan> {
    let prefilled = prop_oneof![
        3 => Just(Prefilled::GoesOn),
        1 => Just(Prefilled::Echoes),
        1 => Just(Prefilled::Rejects),
        1 => Just(Prefilled::Ignores),
    ];
    let fault = prop_oneof![
        2 => Just(Fault::None),
        4 => Just(Fault::Cut),
        2 => Just(Fault::Error),
        1 => Just(Fault::Silence),
    ];
    let odds = (prop::bool::weighted(0.1), any::<bool>());
    (
        0..3_usize,
        1..6_usize,
        fault,
        0..14_usize,
        odds,
        prefilled,
        0..3_usize,
    )
        .prop_map(
            |(answer, piece, fault, after, (down, continues), prefilled, broken)| Plan {
                // Mostly the same.
                answer: answer.saturating_sub(usize::from(piece > 2)),
                piece,
                fault,
                after,
                down,
                continues,
                prefilled,
                broken,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_the_caller_gets_is_an_answer_a_legal_splice_or_an_error(
        plans in proptest::collection::vec(plan(), 1..=4), most in 1..4_u32, polls in prop::option::of(0..60_usize),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let log = EndLog::new();
            let models: Vec<_> = plans.iter().map(|plan| plan.model(&log)).collect();
            let targets = NAMES.iter().zip(&models).zip(&plans);
            let targets = targets.map(|((name, model), plan)| {
                Target::new(*name, model.clone()).continues(plan.continues)
            });
            let resume = Resume::new().most(most).within(Duration::from_secs(9));
            let failover = Failover::builder().targets(targets).resume(resume);
            let failover = failover.build().expect("good");
            let mut asked = request().streamed().with_timeout(Duration::from_secs(60));
            let ledger = asked.call.begin().clone();
            let answer = tokio::time::timeout(Duration::from_secs(61), ask(&failover, asked)).await;
            if let Ok(Ok(answer)) = answer {
                let answer = answer.observe(log.observer());
                // Nobody but the first one's clocks ends its silence, which are not here.
                let reads = tokio::time::timeout(Duration::from_secs(100), read(answer));
                let got = match polls {
                    Some(polls) => donjon_testkit::probe::poll_at_most(reads, polls).await,
                    None => Some(reads.await),
                };
                if let Some(Ok(got)) = got {
                    if !got.chunks.is_empty() {
                        got.assert_one();
                    }
                    let whole = got.error.is_none();
                    prop_assert!(is_legal(&plans, &got.text(), whole), "{:?} {:?}", got.text(), got.error);
                }
            }
            for model in &models {
                prop_assert_eq!(model.in_progress(), 0);
            }
            for target in failover.handle().targets() {
                prop_assert_eq!(target.in_flight(), 0);
            }
            prop_assert_eq!(log.fault(), None);
            // For each time that it broke every target once, and once more for all of it.
            let bound = plans.len() * 2 * (most as usize + 1);
            prop_assert!(ledger.opened() as usize <= bound);
            Ok::<_, TestCaseError>(())
        })?;
    }
}

#[test]
fn the_naive_model_knows_what_is_legal() {
    let plan = |answer, continues| Plan {
        answer,
        piece: 1,
        fault: Fault::None,
        after: 0,
        down: false,
        continues,
        prefilled: Prefilled::GoesOn,
        broken: 0,
    };
    let plans = [plan(0, false), plan(1, true)];
    assert!(is_legal(&plans, ANSWERS[0], true));
    assert!(is_legal(&plans, ANSWERS[1], true));
    assert!(is_legal(&plans, "a keep is", false));
    assert!(!is_legal(&plans, "a keep is", true));
    assert!(!is_legal(&plans, "a keep is of stone", false));
    // The second goes on with what the first had begun.
    assert!(is_legal(
        &plans,
        &format!("a keep is a tower and a tower is a — {}", ANSWERS[1]),
        true
    ));
    // The first does not.
    let plans = [plan(0, false), plan(1, false)];
    assert!(!is_legal(
        &plans,
        &format!("a keep is a tower and a tower is a — {}", ANSWERS[1]),
        true
    ));
}
