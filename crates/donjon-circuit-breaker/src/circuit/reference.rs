//! Against a naive reference that keeps every call with its time, and works everything out anew.

mod naive;

use std::fmt::Debug;

use naive::{Naive, Pass};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{tests::Bench, *};
use crate::{OpenDelay, Window};

const MS: u64 = 1_000_000;

/// What is done to a circuit.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A call comes.
    Call,
    /// The call under way of this place (round and round) ends so; its server may ask for so many
    /// milliseconds.
    End(usize, Verdict, Option<u64>),
    /// That call shows its first token.
    Commit(usize, bool),
    /// So many milliseconds pass.
    Wait(u64),
    Force(CircuitState),
    ProbeNow,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = select(vec![
        Verdict::Counts(Mark::Success),
        Verdict::Counts(Mark::Success),
        Verdict::Counts(Mark::Failure),
        Verdict::Counts(Mark::Failure),
        Verdict::Counts(Mark::SlowSuccess),
        Verdict::Counts(Mark::SlowFailure),
        Verdict::Superseded,
        Verdict::Nothing,
    ]);
    let hint = prop_oneof![9 => Just(None), 1 => (1_u64..3_000).prop_map(Some)];
    let end = (0_usize..8, verdict, hint).prop_map(|(at, v, hint)| Step::End(at, v, hint));
    let wait = prop_oneof![0_u64..30, 0_u64..400, 0_u64..5_000];
    prop_oneof![
        20 => Just(Step::Call),
        20 => end,
        2 => (0_usize..8, any::<bool>()).prop_map(|(at, slow)| Step::Commit(at, slow)),
        6 => wait.prop_map(Step::Wait),
        1 => select(CircuitState::ALL).prop_map(Step::Force),
        1 => Just(Step::ProbeNow),
        1 => Just(Step::Reset),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let window = prop_oneof![
        (1_u32..12).prop_map(Window::count),
        (1_u32..8, 20_u64..300).prop_map(|(buckets, each)| {
            Window::time(Duration::from_millis(each * u64::from(buckets))).buckets(buckets)
        }),
    ];
    let share = || select(vec![0.25, 0.5, 0.6, 1.0]);
    let failures = prop_oneof![
        3 => share().prop_map(Failures::Fixed),
        1 => Just(Failures::Ignored),
    ];
    let base = (1_u64..300).prop_map(Duration::from_millis);
    (
        window,
        failures,
        proptest::option::of(share()),
        proptest::option::of(1_u32..5),
        1_u32..8,
        base,
        1_u32..4,
        (1_u64..500).prop_map(Duration::from_millis),
        proptest::option::of((50_u64..1_000).prop_map(Duration::from_millis)),
    )
        .prop_map(
            |(window, failures, slow, consecutive, minimum, base, probes, deadline, forget)| {
                Rules {
                    window,
                    failures,
                    slow_rate: slow,
                    consecutive,
                    minimum_calls: minimum,
                    delay: OpenDelay::growing(base).cap(4 * base).jitter(0.0),
                    probes,
                    probe_deadline: deadline,
                    forget_after: forget,
                }
            },
        )
}

fn same<T: PartialEq + Debug>(what: &str, own: T, naive: T) -> Result<(), TestCaseError> {
    prop_assert_eq!(own, naive, "{}", what);
    Ok(())
}

fn play(rules: Rules, steps: &[Step]) -> Result<(), TestCaseError> {
    let bench = Bench::new(rules.clone());
    let mut naive = Naive::new(rules);
    let mut under_way: Vec<(Admitted, Pass)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let now = bench.now.get();
        let what = format!("step {at}: {step:?}");
        match *step {
            Step::Call => match (bench.admit(), naive.admit(now)) {
                (Ok(own), Ok(pass)) => {
                    let probe = matches!(own, Admitted::Probe(..));
                    same(&what, probe, pass.probe.is_some())?;
                    under_way.push((own, pass));
                }
                (own, pass) => same(&what, own.err(), pass.err())?,
            },
            Step::End(at, verdict, hint) if !under_way.is_empty() => {
                let (own, pass) = under_way.remove(at % under_way.len());
                let hint = hint.map(Duration::from_millis);
                let recorded = bench.hinted(&own, verdict, hint);
                same(&what, recorded, naive.end(pass, verdict, hint, now))?;
            }
            Step::Commit(at, slow) if !under_way.is_empty() => {
                let at = at % under_way.len();
                let (own, pass) = &mut under_way[at];
                bench.circuit.committed(own, slow);
                naive.commit(*pass, slow);
            }
            Step::End(..) | Step::Commit(..) => {}
            Step::Wait(ms) => bench.now.set(now + ms * MS),
            Step::Force(to) => {
                bench.circuit.force(&bench.rules, to, now, |_| ());
                naive.force(to, now);
            }
            Step::ProbeNow => {
                let own = bench.circuit.probe_now(&bench.rules, |_| ());
                let can = matches!(
                    naive.state,
                    CircuitState::Open | CircuitState::ForcedOpen | CircuitState::HalfOpen
                );
                same(&what, own, can)?;
                if can && naive.state != CircuitState::HalfOpen {
                    naive.go(CircuitState::HalfOpen);
                }
            }
            Step::Reset => {
                bench.circuit.reset(&bench.rules, |_| ());
                naive.hints.clear();
                naive.openings = 0;
                naive.go(CircuitState::Closed);
            }
        }
        let now = bench.now.get();
        let shows = bench.circuit.calls(&bench.rules, now);
        same(&what, bench.circuit.word().state(), naive.state)?;
        same(&what, shows, naive.shows(now))?;
        if naive.state == CircuitState::Open {
            same(&what, bench.circuit.word().until(), naive.until)?;
        }
    }
    let told = bench.told.borrow();
    let exceeded = told.iter().filter(|c| matches!(c, Change::Exceeded(_)));
    if naive.state == CircuitState::MetricsOnly {
        let told = usize::from(naive.told.0) + usize::from(naive.told.1);
        prop_assert!(exceeded.count() >= told, "each threshold was told of");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_does_what_the_reference_does(rules in rules(), steps in vec(step(), 1..120)) {
        play(rules, &steps)?;
    }
}
