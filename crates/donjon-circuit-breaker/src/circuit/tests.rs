//! The behaviours that resilience4j's state machine is tested for, and the traps of others.

mod by_hand;
mod probes;

use std::cell::{Cell, RefCell};

use super::*;
use crate::{OpenDelay, Window};

const SECOND: u64 = 1_000_000_000;
const SUCCESS: Verdict = Verdict::Counts(Mark::Success);
const FAILURE: Verdict = Verdict::Counts(Mark::Failure);
const SLOW: Verdict = Verdict::Counts(Mark::SlowSuccess);
const SLOW_FAILURE: Verdict = Verdict::Counts(Mark::SlowFailure);

/// Half of five calls in 5 s, failed or slow; 5 s open; four probes.
pub(super) fn rules() -> Rules {
    Rules {
        window: Window::time(Duration::from_secs(5)).buckets(5),
        failures: Failures::Fixed(0.5),
        slow_rate: Some(0.5),
        consecutive: None,
        minimum_calls: 5,
        delay: OpenDelay::fixed(Duration::from_secs(5)).jitter(0.0),
        probes: 4,
        probe_deadline: Duration::from_secs(10),
        forget_after: None,
    }
}

/// A circuit with a clock, and what it told.
pub(super) struct Bench {
    pub(super) circuit: Circuit,
    pub(super) rules: Rules,
    pub(super) now: Cell<u64>,
    pub(super) told: RefCell<Vec<Change>>,
}

impl Bench {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            circuit: Circuit::new(&rules),
            rules,
            now: Cell::new(0),
            told: RefCell::default(),
        }
    }

    fn after(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * SECOND);
    }

    pub(super) fn admit(&self) -> Result<Admitted, Refusal> {
        let half_open = self.circuit.word().state() == CircuitState::HalfOpen;
        let peeked = self.circuit.peek(|| self.now.get());
        let admitted = self.circuit.admit(
            &self.rules,
            || self.now.get(),
            |change| self.told.borrow_mut().push(change),
        );
        // Those who peek do not judge the probes that have passed.
        if peeked.is_err() || !half_open {
            let refused = admitted.as_ref().err().copied();
            assert_eq!(peeked.err(), refused, "peek and admit agree");
        }
        admitted
    }

    /// Admits a call that is not refused.
    #[track_caller]
    fn call(&self) -> Admitted {
        self.admit().expect("it passes")
    }

    pub(super) fn end(&self, admitted: &Admitted, verdict: Verdict) -> Recorded {
        self.hinted(admitted, verdict, None)
    }

    pub(super) fn hinted(
        &self,
        admitted: &Admitted,
        verdict: Verdict,
        hint: Option<Duration>,
    ) -> Recorded {
        let tell = |change| self.told.borrow_mut().push(change);
        let now = || self.now.get();
        self.circuit
            .record(&self.rules, admitted, verdict, hint, now, tell)
    }

    /// Admits calls and ends each with its verdict.
    #[track_caller]
    fn run(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            self.end(&self.call(), *verdict);
        }
    }

    fn force(&self, state: CircuitState) {
        let tell = |change| self.told.borrow_mut().push(change);
        self.circuit.force(&self.rules, state, self.now.get(), tell);
    }

    fn half_open(&self) {
        self.force(CircuitState::Open);
        let tell = |change| self.told.borrow_mut().push(change);
        assert!(self.circuit.probe_now(&self.rules, tell));
    }

    fn state(&self) -> CircuitState {
        self.circuit.word().state()
    }

    fn reset(&self) {
        self.circuit
            .reset(&self.rules, |change| self.told.borrow_mut().push(change));
    }

    /// Calls and failures of the window.
    fn window(&self) -> (u32, u32) {
        let calls = self.circuit.calls(&self.rules, self.now.get());
        (calls.calls, calls.failures)
    }

    fn transitions(&self) -> Vec<CircuitState> {
        let told = self.told.borrow();
        let states = told.iter().filter_map(|change| match change {
            Change::State { to, .. } => Some(*to),
            Change::Exceeded(_) => None,
        });
        states.collect()
    }

    fn exceeded(&self) -> usize {
        let told = self.told.borrow();
        let exceeded = told.iter().filter(|c| matches!(c, Change::Exceeded(_)));
        exceeded.count()
    }
}

fn bench() -> Bench {
    Bench::new(rules())
}

#[test]
fn an_open_one_lets_no_call_pass_and_says_for_how_long() {
    let bench = bench();
    bench.force(CircuitState::Open);
    bench.now.set(1);
    let refusal = bench.admit().expect_err("it is open");
    assert_eq!(refusal, Refusal::Open(Duration::from_nanos(5 * SECOND - 1)));
}

#[test]
fn it_opens_when_too_many_of_enough_calls_failed() {
    let bench = bench();
    for (verdict, window) in [
        (FAILURE, (1, 1)),
        (FAILURE, (2, 2)),
        (FAILURE, (3, 3)),
        (SUCCESS, (4, 3)),
    ] {
        bench.run(&[verdict]);
        assert_eq!(bench.state(), CircuitState::Closed);
        assert_eq!(bench.window(), window);
    }
    // A success can be the one that makes them enough.
    bench.run(&[SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Open);
    assert_eq!(
        bench.window(),
        (5, 3),
        "what it opened for stays to be seen"
    );
    assert!(bench.admit().is_err());
    let exceeded = Exceeded::FailureRate {
        rate: 0.6,
        threshold: 0.5,
        calls: 5,
    };
    let change = Change::State {
        from: CircuitState::Closed,
        to: CircuitState::Open,
        reason: Reason::Exceeded(exceeded),
    };
    assert_eq!(*bench.told.borrow(), [change]);
}

#[test]
fn the_threshold_itself_is_too_much_and_what_is_below_it_is_not() {
    for (failures, opens) in [(4, false), (5, true)] {
        let rules = Rules {
            minimum_calls: 10,
            ..rules()
        };
        let bench = Bench::new(rules);
        let verdict = |n| if n < failures { FAILURE } else { SUCCESS };
        (0..10).for_each(|n| bench.run(&[verdict(n)]));
        assert_eq!(
            bench.state() == CircuitState::Open,
            opens,
            "{failures} of 10"
        );
    }
}

#[test]
fn it_opens_when_too_many_of_enough_calls_were_slow() {
    let bench = bench();
    bench.run(&[SLOW_FAILURE, SLOW, FAILURE, SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.run(&[SLOW]);
    assert_eq!(bench.state(), CircuitState::Open);
    let told = bench.told.borrow();
    let reason = match told[..] {
        [Change::State { reason, .. }] => reason,
        _ => panic!("one change: {told:?}"),
    };
    let exceeded = Exceeded::SlowRate {
        rate: 0.6,
        threshold: 0.5,
        calls: 5,
    };
    assert_eq!(reason, Reason::Exceeded(exceeded));
}

#[test]
fn who_was_given_up_for_being_slow_counts_as_slow_and_interrupts_no_row_of_failures() {
    let bench = Bench::new(Rules {
        consecutive: Some(3),
        ..rules()
    });
    bench.run(&[FAILURE, FAILURE, Verdict::Superseded]);
    assert_eq!(bench.circuit.calls(&bench.rules, 0).slow, 1);
    bench.run(&[FAILURE]);
    assert_eq!(bench.state(), CircuitState::Open);
}

#[test]
fn it_opens_after_so_many_failures_in_a_row() {
    let bench = Bench::new(Rules {
        failures: Failures::Ignored,
        consecutive: Some(3),
        ..rules()
    });
    bench.run(&[
        FAILURE,
        FAILURE,
        SUCCESS,
        FAILURE,
        FAILURE,
        Verdict::Nothing,
    ]);
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.run(&[SLOW_FAILURE]);
    assert_eq!(bench.state(), CircuitState::Open);
    // And the probes go by half of them.
    bench.after(5);
    bench.run(&[SUCCESS, SUCCESS, FAILURE, FAILURE]);
    assert_eq!(bench.state(), CircuitState::Open);
}

#[test]
fn a_server_that_asks_for_more_time_gets_it_and_never_less() {
    let left = |bench: &Bench| match bench.circuit.peek(|| bench.now.get()) {
        Err(Refusal::Open(left)) => left.as_secs(),
        other => panic!("open: {other:?}"),
    };
    let asks = |seconds| Some(Duration::from_secs(seconds));
    for (hint, expected) in [(60, 60), (2, 5)] {
        let bench = bench();
        let calls: Vec<_> = (0..9).map(|_| bench.call()).collect();
        // It need not be the one that opens it.
        bench.hinted(&calls[0], FAILURE, asks(hint));
        for call in &calls[1..5] {
            bench.end(call, FAILURE);
        }
        assert_eq!(left(&bench), expected);
        // Who is late does not count, but has heard what the server says.
        bench.after(1);
        bench.hinted(&calls[5], FAILURE, asks(90));
        assert_eq!(left(&bench), 90);
        bench.hinted(&calls[6], FAILURE, asks(1));
        assert_eq!(left(&bench), 90);
        assert_eq!(bench.transitions(), [CircuitState::Open]);
        bench.reset();
        bench.force(CircuitState::Open);
        assert_eq!(left(&bench), 5, "a reset forgets it");
    }
}

/// It was asked for by who was late, or was cut short by hand.
#[test]
fn what_a_server_asked_for_before_it_recovered_does_not_lengthen_the_next_opening() {
    let bench = bench();
    let calls: Vec<_> = (0..6).map(|_| bench.call()).collect();
    for call in &calls[..5] {
        bench.end(call, FAILURE);
    }
    bench.hinted(&calls[5], FAILURE, Some(Duration::from_secs(60)));
    assert!(bench.circuit.probe_now(&bench.rules, |_| ()));
    bench.run(&[SUCCESS; 4]);
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.run(&[FAILURE; 5]);
    assert_eq!(bench.state(), CircuitState::Open);
    bench.after(5);
    bench.run(&[SUCCESS; 4]);
    assert_eq!(bench.state(), CircuitState::Closed, "after its own delay");
}

#[test]
fn what_is_old_is_forgotten_when_nothing_happened_for_so_long() {
    let rules = Rules {
        window: Window::count(100),
        forget_after: Some(Duration::from_secs(60)),
        consecutive: Some(5),
        ..rules()
    };
    let bench = Bench::new(rules);
    bench.run(&[FAILURE; 4]);
    bench.after(60);
    assert_eq!(bench.window(), (4, 4));
    bench.run(&[SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Open, "they still count");
    bench.reset();
    bench.run(&[FAILURE; 4]);
    bench.after(61);
    assert_eq!(bench.window(), (0, 0));
    bench.run(&[FAILURE; 4]);
    assert_eq!(bench.state(), CircuitState::Closed);
    assert_eq!(bench.window(), (4, 4));
}

#[test]
fn a_window_of_calls_slides() {
    let bench = Bench::new(Rules {
        window: Window::count(5),
        minimum_calls: 5,
        failures: Failures::Fixed(0.6),
        ..rules()
    });
    // Never three failures among the latest five.
    bench.run(&[FAILURE, FAILURE, SUCCESS, SUCCESS, SUCCESS].repeat(20));
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.run(&[FAILURE, FAILURE]);
    bench.run(&[SUCCESS]);
    assert_eq!(bench.window(), (5, 2));
    bench.run(&[FAILURE]);
    assert_eq!(bench.state(), CircuitState::Open);
}

#[test]
fn a_window_of_fewer_calls_than_the_minimum_is_judged_when_full() {
    let bench = Bench::new(Rules {
        window: Window::count(3),
        minimum_calls: 100,
        probes: 2,
        ..rules()
    });
    bench.run(&[FAILURE, FAILURE]);
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.run(&[SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Open);
    bench.after(5);
    bench.run(&[SUCCESS, SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Closed);
}

#[test]
fn a_learned_threshold_opens_it_for_what_is_unusual_here() {
    let adaptive = crate::Adaptive::new();
    let rules = Rules {
        window: Window::count(50),
        failures: Failures::Learned(adaptive),
        slow_rate: None,
        minimum_calls: 50,
        ..rules()
    };
    let outage = |usual: &[Verdict]| {
        let bench = Bench::new(rules.clone());
        (0..200).for_each(|_| bench.run(usual));
        assert_eq!(bench.state(), CircuitState::Closed, "what is usual");
        // Every second call fails now.
        let mut calls = 0;
        while bench.state() == CircuitState::Closed && calls < 1_000 {
            bench.run(&[if calls % 2 == 0 { FAILURE } else { SUCCESS }]);
            calls += 1;
        }
        calls
    };
    let rare = outage(&[SUCCESS; 10]);
    let common = outage(&[FAILURE, SUCCESS, SUCCESS, FAILURE, SUCCESS]);
    assert!(rare <= 21, "{rare} calls");
    assert!(common > rare, "{common} calls");
}
