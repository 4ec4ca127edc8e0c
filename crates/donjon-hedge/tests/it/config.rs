//! What cannot be built.

use std::time::Duration;

use donjon_hedge::{ConfigError, HedgeDelay, HedgeLayer};

use crate::SECOND;

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let builder = HedgeLayer::builder;
    let p = HedgeDelay::percentile;
    for (built, name) in [
        (builder().delay(Duration::ZERO), "delay"),
        (builder().delay(p(0.5).until_known(Duration::ZERO)), "delay"),
        (builder().delay(p(0.0)), "percentile"),
        (builder().delay(p(1.0)), "percentile"),
        (builder().delay(p(f64::NAN)), "percentile"),
        (builder().delay(p(0.5).minimum_calls(0)), "minimum_calls"),
        (
            builder().delay(p(0.5).at_least(2 * SECOND).at_most(SECOND)),
            "at_least",
        ),
        (builder().max_hedges(0), "max_hedges"),
        (builder().max_hedges(4), "max_hedges"),
        (builder().budget(0.0), "budget"),
        (builder().budget(1.01), "budget"),
        (builder().budget(f64::NAN), "budget"),
        (builder().burst(0), "burst"),
        (builder().nearly_out(-0.1), "nearly_out"),
        (builder().nearly_out(f64::NAN), "nearly_out"),
        (builder().pause(Duration::ZERO), "pause"),
        (builder().longest_pause(SECOND), "pause"),
    ] {
        let error = built.build().expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = builder().max_hedges(9).build().expect_err("too many");
    assert_eq!(error, ConfigError::MaxHedges(9));
}
