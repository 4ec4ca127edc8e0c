//! The interleavings of a few threads, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p donjon-circuit-breaker --lib --release model`.

use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use super::*;
use crate::{OpenDelay, Window};

const FAILURE: Verdict = Verdict::Counts(Mark::Failure);
const SUCCESS: Verdict = Verdict::Counts(Mark::Success);
const SECOND: u64 = 1_000_000_000;

fn rules() -> Rules {
    Rules {
        window: Window::count(2),
        failures: Failures::Fixed(1.0),
        slow_rate: None,
        consecutive: None,
        minimum_calls: 2,
        delay: OpenDelay::fixed(Duration::from_secs(1)).jitter(0.0),
        probes: 1,
        probe_deadline: Duration::from_secs(1),
        forget_after: None,
    }
}

/// A circuit that several threads use, and how often it went to each state.
struct Bench {
    circuit: Circuit,
    rules: Rules,
    went: [AtomicUsize; CircuitState::ALL.len()],
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self {
            circuit: Circuit::new(&rules),
            rules,
            went: Default::default(),
        }
    }

    fn tell(&self, change: Change) {
        if let Change::State { to, .. } = change {
            self.went[to as usize].fetch_add(1, SeqCst);
        }
    }

    fn admit(&self, now: u64) -> Result<Admitted, Refusal> {
        self.circuit
            .admit(&self.rules, || now, |change| self.tell(change))
    }

    fn end(&self, admitted: &Admitted, verdict: Verdict) -> Recorded {
        let tell = |change| self.tell(change);
        self.circuit
            .record(&self.rules, admitted, verdict, None, || 0, tell)
    }

    fn force(&self, to: CircuitState) {
        self.circuit
            .force(&self.rules, to, 0, |change| self.tell(change));
    }

    fn half_open(&self) {
        self.force(CircuitState::Open);
        assert!(
            self.circuit
                .probe_now(&self.rules, |change| self.tell(change))
        );
    }

    fn went(&self, to: CircuitState) -> usize {
        self.went[to as usize].load(SeqCst)
    }

    fn state(&self) -> CircuitState {
        self.circuit.word().state()
    }

    fn window(&self) -> WindowCalls {
        self.circuit.calls(&self.rules, 0)
    }
}

/// Runs `one` and `other` in two threads, in every order with up to three preemptions, and hands
/// what they came to to `check`.
fn race<T: 'static, A: 'static, B: 'static>(
    make: impl Fn() -> T + Sync + Send + 'static,
    one: fn(&T) -> A,
    other: fn(&T) -> B,
    check: fn(&T, A, B),
) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new(make());
        let spawned = {
            let shared = shared.clone();
            thread::spawn(move || one(&shared))
        };
        let here = other(&shared);
        let there = spawned.join().expect("no panic");
        check(&shared, there, here);
    });
}

#[test]
fn two_failures_that_reach_the_threshold_make_one_transition() {
    let fail = |bench: &Bench| {
        let call = bench.admit(0);
        call.is_ok_and(|call| bench.end(&call, FAILURE) == Recorded::Counted)
    };
    race(
        || Bench::new(rules()),
        fail,
        fail,
        |bench, _, _| {
            assert_eq!(bench.went(CircuitState::Open), 1);
            assert_eq!(bench.state(), CircuitState::Open);
        },
    );
}

#[test]
fn two_slow_calls_that_reach_the_threshold_make_one_transition() {
    let make = || {
        Bench::new(Rules {
            slow_rate: Some(1.0),
            ..rules()
        })
    };
    let slow = |bench: &Bench| {
        let call = bench.admit(0).expect("closed");
        bench.end(&call, Verdict::Counts(Mark::SlowSuccess))
    };
    race(make, slow, slow, |bench, _, _| {
        assert_eq!(bench.went(CircuitState::Open), 1);
        assert_eq!(bench.state(), CircuitState::Open);
    });
}

#[test]
fn a_success_beside_a_failure_opens_nothing() {
    race(
        || Bench::new(rules()),
        |bench| bench.end(&bench.admit(0).expect("closed"), FAILURE),
        |bench| bench.end(&bench.admit(0).expect("closed"), SUCCESS),
        |bench, _, _| {
            assert_eq!(bench.state(), CircuitState::Closed);
            assert_eq!((bench.window().calls, bench.window().failures), (2, 1));
        },
    );
}

#[test]
fn there_are_never_more_probes_than_may_be() {
    let make = || {
        let bench = Bench::new(rules());
        bench.force(CircuitState::Open);
        bench
    };
    // The delay is over, and both come at once.
    let come = |bench: &Bench| bench.admit(SECOND).is_ok();
    race(make, come, come, |bench, one, other| {
        assert!(one != other, "one of them passes");
        assert_eq!(bench.went(CircuitState::HalfOpen), 1);
        assert_eq!(bench.circuit.probes_under_way(), 1);
    });
}

#[test]
fn a_place_that_is_given_back_is_given_out_once() {
    let make = || {
        let bench = Bench::new(rules());
        bench.half_open();
        let probe = bench.admit(0).expect("a place");
        (bench, probe)
    };
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new(make());
        let come = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.admit(0).is_ok())
        };
        let gives = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.end(&shared.1, Verdict::Nothing))
        };
        let here = shared.0.admit(0).is_ok();
        let there = come.join().expect("no panic");
        gives.join().expect("no panic");
        assert!(!(here && there), "one place");
        let after = shared.0.admit(0).is_ok();
        assert!(after != (here || there), "and it is not lost");
    });
}

#[test]
fn two_probes_that_end_at_once_are_judged_once() {
    let make = || {
        let bench = Bench::new(Rules {
            probes: 2,
            ..rules()
        });
        bench.half_open();
        let probes = [bench.admit(0), bench.admit(0)].map(|probe| probe.expect("two places"));
        (bench, probes)
    };
    race(
        make,
        |(bench, probes)| bench.end(&probes[0], FAILURE),
        |(bench, probes)| bench.end(&probes[1], FAILURE),
        |(bench, _), _, _| {
            assert_eq!(bench.state(), CircuitState::Open);
            assert_eq!(bench.went(CircuitState::Open), 2, "by hand, and again");
        },
    );
    race(
        make,
        |(bench, probes)| bench.end(&probes[0], SUCCESS),
        |(bench, probes)| bench.end(&probes[1], SUCCESS),
        |(bench, _), _, _| {
            assert_eq!(bench.state(), CircuitState::Closed);
            assert_eq!(bench.went(CircuitState::Closed), 1);
        },
    );
}

/// Whoever was admitted by an earlier state changes nothing, however late in recording they are.
#[test]
fn a_straggler_changes_nothing() {
    let make = || {
        let bench = Bench::new(Rules {
            minimum_calls: 1,
            ..rules()
        });
        let straggler = bench.admit(0).expect("closed");
        (bench, straggler)
    };
    race(
        make,
        |(bench, straggler)| bench.end(straggler, FAILURE),
        |(bench, _)| {
            // It opens, by the straggler or by hand, and recovers.
            bench.half_open();
            let probe = bench.admit(0).expect("a place");
            bench.end(&probe, SUCCESS)
        },
        |(bench, _), _, _| {
            assert_eq!(bench.state(), CircuitState::Closed);
            assert_eq!(bench.window(), WindowCalls::default());
        },
    );
}

#[test]
fn a_probe_of_an_earlier_time_does_not_decide() {
    let make = || {
        let bench = Bench::new(rules());
        bench.half_open();
        let old = bench.admit(0).expect("a place");
        (bench, old)
    };
    race(
        make,
        |(bench, old)| bench.end(old, SUCCESS),
        |(bench, _)| {
            // Whatever it came to, it is another time now.
            bench.force(CircuitState::ForcedOpen);
            assert!(
                bench
                    .circuit
                    .probe_now(&bench.rules, |change| bench.tell(change))
            );
            let probe = bench.admit(0).expect("a place");
            bench.end(&probe, FAILURE)
        },
        |(bench, _), _, there| {
            assert_eq!(there, Recorded::Counted);
            assert_eq!(bench.state(), CircuitState::Open);
        },
    );
}

#[test]
fn a_probe_that_is_late_and_the_one_that_takes_its_place_are_one() {
    let make = || {
        let bench = Bench::new(rules());
        bench.half_open();
        let late = bench.admit(0).expect("a place");
        (bench, late)
    };
    race(
        make,
        |(bench, late)| bench.end(late, FAILURE),
        |(bench, _)| bench.admit(SECOND),
        |(bench, _), ended, next| match ended {
            Recorded::Counted => {
                // The one that comes may have found it open, and its delay over.
                let state = bench.state();
                let probe = matches!(next, Ok(Admitted::Probe(..)));
                assert_eq!(probe, state == CircuitState::HalfOpen);
            }
            _ => assert!(matches!(next, Ok(Admitted::Probe(..))), "it took the place"),
        },
    );
}

#[test]
fn a_server_that_asks_for_time_while_it_opens_gets_it() {
    let make = || {
        let bench = Bench::new(Rules {
            minimum_calls: 1,
            ..rules()
        });
        let calls = [bench.admit(0), bench.admit(0)].map(|call| call.expect("closed"));
        (bench, calls)
    };
    race(
        make,
        |(bench, calls)| bench.end(&calls[0], FAILURE),
        |(bench, calls)| {
            let hint = Some(Duration::from_secs(9));
            let tell = |change| bench.tell(change);
            bench
                .circuit
                .record(&bench.rules, &calls[1], FAILURE, hint, || 0, tell)
        },
        |(bench, _), _, _| {
            assert_eq!(bench.went(CircuitState::Open), 1);
            assert_eq!(bench.circuit.word().until(), 9 * SECOND);
        },
    );
}
