//! Half-open, and what belongs to an earlier state.

use super::*;

#[test]
fn a_half_open_one_lets_as_many_probes_pass_as_it_may() {
    let bench = bench();
    for _ in 0..2 {
        bench.half_open();
        let probes: Vec<_> = (0..4).map(|_| bench.call()).collect();
        assert_eq!(bench.admit().expect_err("four"), Refusal::NoProbe);
        assert_eq!(bench.admit().expect_err("four"), Refusal::NoProbe);
        assert_eq!(bench.circuit.probes_under_way(), 4);
        drop(probes);
    }
}

#[test]
fn a_probe_that_is_given_back_lets_another_one_pass() {
    let bench = bench();
    bench.half_open();
    let probes: Vec<_> = (0..4).map(|_| bench.call()).collect();
    assert!(bench.admit().is_err());
    bench.end(&probes[1], Verdict::Nothing);
    bench.call();
    assert!(bench.admit().is_err());
}

#[test]
fn it_becomes_half_open_when_its_delay_is_over_and_a_call_comes() {
    let bench = bench();
    bench.force(CircuitState::Open);
    assert!(bench.admit().is_err());
    bench.after(3);
    assert!(bench.admit().is_err());
    bench.after(2);
    assert_eq!(bench.state(), CircuitState::Open, "nobody came yet");
    bench.call();
    assert_eq!(bench.state(), CircuitState::HalfOpen);
    assert_eq!(bench.window(), (0, 0));
}

#[test]
fn its_delay_grows_until_it_recovers() {
    let delay = OpenDelay::growing(Duration::from_secs(5));
    let bench = Bench::new(Rules {
        delay: delay.factor(1.5).jitter(0.0),
        probes: 1,
        ..rules()
    });
    bench.force(CircuitState::Open);
    let left = || match bench.circuit.peek(|| bench.now.get()) {
        Err(Refusal::Open(left)) => left.as_millis(),
        other => panic!("open: {other:?}"),
    };
    for expected in [5_000, 7_500, 11_250] {
        assert_eq!(left(), expected);
        bench.after(12);
        bench.run(&[FAILURE]);
        assert_eq!(bench.state(), CircuitState::Open);
    }
    bench.after(30);
    bench.run(&[SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.force(CircuitState::Open);
    assert_eq!(left(), 5_000);
}

#[test]
fn a_half_open_one_opens_again_when_too_many_probes_failed() {
    let bench = bench();
    bench.half_open();
    bench.run(&[FAILURE, FAILURE, SUCCESS]);
    assert_eq!(bench.state(), CircuitState::HalfOpen);
    assert_eq!(bench.window(), (3, 2));
    bench.run(&[FAILURE]);
    assert_eq!(bench.state(), CircuitState::Open);
}

#[test]
fn a_half_open_one_opens_again_when_too_many_probes_were_slow() {
    let bench = bench();
    bench.half_open();
    bench.run(&[SLOW, SLOW, SLOW, SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Open);
}

#[test]
fn a_half_open_one_closes_with_an_empty_window_when_few_enough_probes_failed() {
    let bench = bench();
    bench.run(&[FAILURE; 5]);
    bench.after(5);
    bench.run(&[FAILURE, SUCCESS, SUCCESS, SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Closed);
    assert_eq!(bench.window(), (0, 0));
    bench.run(&[SUCCESS]);
    assert_eq!(bench.window(), (1, 0));
    let reasons: Vec<_> = bench.told.borrow().iter().skip(1).copied().collect();
    let reason = |at: usize| match reasons[at] {
        Change::State { reason, .. } => reason,
        Change::Exceeded(_) => panic!("a change of state"),
    };
    assert_eq!(reason(0), Reason::DelayOver);
    assert_eq!(reason(1), Reason::Recovered);
}

#[test]
fn probes_are_judged_as_soon_as_there_are_enough_calls() {
    let bench = Bench::new(Rules {
        minimum_calls: 2,
        ..rules()
    });
    bench.half_open();
    bench.run(&[SUCCESS, SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Closed);
}

#[test]
fn what_says_nothing_gives_the_place_of_its_probe_back() {
    let bench = bench();
    bench.half_open();
    bench.run(&[SUCCESS, SUCCESS, SUCCESS]);
    bench.run(&[Verdict::Nothing; 7]);
    assert_eq!(bench.state(), CircuitState::HalfOpen);
    assert_eq!(bench.window(), (3, 0));
    bench.run(&[FAILURE]);
    assert_eq!(bench.state(), CircuitState::Closed);
}

#[test]
fn a_closed_one_cannot_be_made_half_open() {
    let bench = bench();
    assert!(!bench.circuit.probe_now(&bench.rules, |_| ()));
    assert_eq!(bench.state(), CircuitState::Closed);
}

#[test]
fn a_half_open_one_does_not_stick_though_its_probes_never_end() {
    let bench = bench();
    bench.half_open();
    let probes: Vec<_> = (0..4).map(|_| bench.call()).collect();
    bench.after(9);
    assert!(bench.admit().is_err());
    bench.after(1);
    // Four others go, and it is they who decide.
    bench.run(&[SUCCESS, SUCCESS, SUCCESS]);
    assert_eq!(bench.end(&probes[0], FAILURE), Recorded::Late);
    bench.run(&[SUCCESS]);
    assert_eq!(bench.state(), CircuitState::Closed);
    assert_eq!(bench.end(&probes[3], FAILURE), Recorded::Late);
    assert_eq!(bench.window(), (0, 0));
}

#[test]
fn probes_that_have_shown_something_have_passed_when_their_deadline_is_over() {
    let bench = bench();
    bench.half_open();
    let mut probes: Vec<_> = (0..4).map(|_| bench.call()).collect();
    for probe in &mut probes {
        bench.circuit.committed(probe, false);
    }
    assert!(bench.admit().is_err());
    bench.after(10);
    bench
        .circuit
        .peek(|| bench.now.get())
        .expect("no reason to wait");
    let call = bench.call();
    assert_eq!(bench.state(), CircuitState::Closed);
    assert!(matches!(call, Admitted::Call(_)));
    assert_eq!(bench.end(&probes[0], FAILURE), Recorded::Late);
}

#[test]
fn a_straggler_changes_nothing() {
    let bench = bench();
    let stragglers: Vec<_> = (0..20).map(|_| bench.call()).collect();
    bench.run(&[FAILURE; 5]);
    assert_eq!(bench.end(&stragglers[0], FAILURE), Recorded::Late);
    assert_eq!(bench.window(), (5, 5));
    bench.after(5);
    let probes: Vec<_> = (0..4).map(|_| bench.call()).collect();
    // Neither does its success close the circuit,
    for straggler in &stragglers[1..6] {
        assert_eq!(bench.end(straggler, SUCCESS), Recorded::Late);
    }
    assert_eq!(bench.state(), CircuitState::HalfOpen);
    assert_eq!(bench.window(), (0, 0));
    for probe in &probes {
        bench.end(probe, SUCCESS);
    }
    // nor does its failure open the one that has recovered.
    for straggler in &stragglers[6..] {
        assert_eq!(bench.end(straggler, FAILURE), Recorded::Late);
    }
    assert_eq!(bench.state(), CircuitState::Closed);
    assert_eq!(bench.window(), (0, 0));
}

#[test]
fn a_probe_of_an_earlier_time_does_not_close_it() {
    let bench = Bench::new(Rules {
        probes: 1,
        ..rules()
    });
    bench.half_open();
    let old = bench.call();
    bench.half_open();
    let new = bench.call();
    assert_eq!(bench.end(&old, SUCCESS), Recorded::Late);
    assert_eq!(bench.state(), CircuitState::HalfOpen);
    assert_eq!(bench.end(&old, Verdict::Nothing), Recorded::Nothing);
    assert!(bench.admit().is_err(), "the place is another's");
    bench.end(&new, FAILURE);
    assert_eq!(bench.state(), CircuitState::Open);
}
