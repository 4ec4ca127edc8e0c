//! States that are set by hand.

use super::*;

#[test]
fn one_that_is_held_open_lets_no_call_pass_however_long() {
    let bench = bench();
    bench.force(CircuitState::ForcedOpen);
    for _ in 0..3 {
        assert_eq!(bench.admit().expect_err("held open"), Refusal::Forced);
        bench.after(6);
    }
    assert_eq!(bench.state(), CircuitState::ForcedOpen);
    assert_eq!(bench.window(), (0, 0));
}

#[test]
fn reset_it_is_closed_and_knows_nothing() {
    let bench = bench();
    bench.run(&[SUCCESS, FAILURE]);
    bench.reset();
    assert_eq!(bench.state(), CircuitState::Closed);
    assert_eq!(bench.window(), (0, 0));
    for state in CircuitState::ALL {
        bench.force(*state);
        bench.reset();
        assert_eq!(bench.state(), CircuitState::Closed);
        assert_eq!(bench.window(), (0, 0));
    }
}

#[test]
fn a_disabled_one_lets_all_pass_and_counts_none() {
    let bench = bench();
    bench.force(CircuitState::Disabled);
    bench.run(&[SUCCESS, FAILURE, FAILURE, FAILURE, FAILURE, FAILURE]);
    assert_eq!(bench.state(), CircuitState::Disabled);
    assert_eq!(bench.window(), (0, 0));
}

#[test]
fn one_that_is_held_closed_lets_all_pass_and_counts_them() {
    let bench = bench();
    bench.run(&[FAILURE]);
    bench.force(CircuitState::ForcedClosed);
    bench.run(&[SUCCESS]);
    bench.run(&[FAILURE; 9]);
    assert_eq!(bench.state(), CircuitState::ForcedClosed);
    assert_eq!(bench.window(), (10, 9));
}

#[test]
fn one_that_only_counts_tells_once_what_would_have_opened_it() {
    let bench = bench();
    bench.run(&[SUCCESS, SUCCESS]);
    bench.force(CircuitState::MetricsOnly);
    assert_eq!(bench.window(), (0, 0), "it begins anew");
    bench.run(&[FAILURE, FAILURE, FAILURE, SUCCESS]);
    assert_eq!(bench.exceeded(), 0);
    bench.run(&[SUCCESS]);
    assert_eq!(bench.exceeded(), 1);
    bench.run(&[FAILURE]);
    assert_eq!(bench.exceeded(), 1);
    bench.run(&[SLOW; 10]);
    assert_eq!(bench.exceeded(), 2, "and the other threshold");
    assert_eq!(bench.state(), CircuitState::MetricsOnly);
    assert_eq!(bench.transitions(), [CircuitState::MetricsOnly]);
    // In its next time as well.
    bench.reset();
    bench.force(CircuitState::MetricsOnly);
    bench.run(&[SLOW_FAILURE; 5]);
    assert_eq!(bench.exceeded(), 4);
}

#[test]
fn going_to_the_state_that_it_is_in_is_no_change() {
    let bench = bench();
    for state in CircuitState::ALL {
        bench.force(*state);
        let (changes, word) = (bench.told.borrow().len(), bench.circuit.word());
        bench.force(*state);
        assert_eq!(bench.told.borrow().len(), changes, "{state}");
        assert!(bench.circuit.word() == word);
        assert_eq!(bench.state(), *state);
    }
}
