//! What makes no sense is refused, and the error names it.

use std::time::Duration;

use donjon_circuit_breaker::{
    Adaptive, BreakerBuilder, BreakerLayer, ConfigError, OpenDelay, Window,
};

const SECOND: Duration = Duration::from_secs(1);

fn refused(set: impl FnOnce(BreakerBuilder) -> BreakerBuilder) -> ConfigError {
    let built = set(BreakerLayer::builder()).build();
    built.expect_err("it makes no sense")
}

#[test]
fn each_value_that_makes_no_sense_is_named() {
    let cases: Vec<(ConfigError, &str)> = vec![
        (refused(|b| b.window(Window::count(0))), "window"),
        (refused(|b| b.window(Window::count(1_000_001))), "window"),
        (
            refused(|b| b.window(Window::time(Duration::ZERO))),
            "window",
        ),
        (
            refused(|b| b.window(Window::time(SECOND).buckets(0))),
            "window",
        ),
        (
            refused(|b| b.window(Window::time(SECOND).buckets(1_001))),
            "window",
        ),
        (refused(|b| b.failure_rate(0.0)), "failure_rate"),
        (refused(|b| b.failure_rate(1.1)), "failure_rate"),
        (refused(|b| b.failure_rate(f64::NAN)), "failure_rate"),
        (refused(|b| b.slow_rate(0.5)), "slow_rate"),
        (
            refused(|b| b.slow_rate(-1.0).slow_first_token(SECOND)),
            "slow_rate",
        ),
        (
            refused(|b| b.slow_first_token(Duration::ZERO)),
            "slow_first_token",
        ),
        (refused(|b| b.slow_answer(Duration::ZERO)), "slow_answer"),
        (
            refused(|b| b.consecutive_failures(0)),
            "consecutive_failures",
        ),
        (refused(|b| b.minimum_calls(0)), "minimum_calls"),
        (refused(|b| b.failure_rate(None)), "failure_rate"),
        (refused(|b| b.probes(0)), "probes"),
        (refused(|b| b.probes(1_001)), "probes"),
        (
            refused(|b| b.probe_deadline(Duration::ZERO)),
            "probe_deadline",
        ),
        (
            refused(|b| b.open_delay(OpenDelay::fixed(Duration::ZERO))),
            "open_delay",
        ),
        (
            refused(|b| b.open_delay(OpenDelay::default().factor(0.9))),
            "open_delay",
        ),
        (
            refused(|b| b.open_delay(OpenDelay::default().jitter(1.5))),
            "open_delay",
        ),
        (
            refused(|b| b.open_delay(OpenDelay::default().cap(SECOND))),
            "open_delay",
        ),
        (refused(|b| b.forget_after(Duration::ZERO)), "forget_after"),
        (
            refused(|b| b.adaptive(Adaptive::new().floor(0.9))),
            "adaptive",
        ),
        (
            refused(|b| b.adaptive(Adaptive::new().deviations(0.0))),
            "adaptive",
        ),
        (
            refused(|b| b.adaptive(Adaptive::new().memory(0))),
            "adaptive",
        ),
        (refused(|b| b.max_keys(0)), "max_keys"),
    ];
    for (error, field) in cases {
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
}

#[test]
fn what_makes_sense_is_built() {
    let builders = [
        BreakerLayer::builder(),
        BreakerLayer::builder().failure_rate(1.0),
        BreakerLayer::builder()
            .failure_rate(None)
            .consecutive_failures(3),
        BreakerLayer::builder()
            .failure_rate(None)
            .slow_answer(SECOND),
        BreakerLayer::builder().adaptive(Adaptive::new()),
        BreakerLayer::builder().window(Window::time(60 * SECOND)),
        BreakerLayer::builder().forget_after(SECOND).probes(1_000),
    ];
    for builder in builders {
        assert!(builder.build().is_ok());
    }
}
