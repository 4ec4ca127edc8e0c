//! Correcting estimates by what providers report.

use std::fmt;

use crate::{
    count::Count,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// How much of what it said so far a tokenizer forgets with each report.
const FORGETS: f32 = 1.0 / 32.0;
/// From how many reports on their own spread is stated as the error.
const ENOUGH: u16 = 32;
/// How many mean deviations are stated: four of them are more than three standard deviations.
const DEVIATIONS: f32 = 4.0;
/// The least error that is stated of an estimate.
const LEAST: f32 = 0.02;
/// How far off a report may be before it is taken for something else than a count of these texts.
const FURTHEST: f32 = 4.0;
/// Prompts of fewer tokens say more about overheads than about the tokenizer.
const SHORTEST: u64 = 32;

/// The ratio of reported to estimated tokens: a mean that follows what was reported last, and the mean
/// deviation from it. One word, so that both are of the same reports.
pub(crate) struct Calibration(AtomicU64);

#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    factor: f32,
    /// In 1/65,536, up to one.
    deviation: u16,
    /// As many as fit.
    reports: u16,
}

impl State {
    fn of(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "taken apart")]
        Self {
            factor: f32::from_bits((word >> 32) as u32),
            deviation: (word >> 16) as u16,
            reports: word as u16,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.factor.to_bits()) << 32
            | u64::from(self.deviation) << 16
            | u64::from(self.reports)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates"
    )]
    fn after(self, ratio: f32) -> Self {
        // The first reports count for more; what the estimate says at first is worth four of them.
        let share = (1.0 / (f32::from(self.reports) + 5.0)).max(FORGETS);
        let off = (ratio - self.factor).abs() / self.factor;
        let deviation = f32::from(self.deviation) / 65_536.0;
        let deviation = deviation + (off - deviation) * share;
        Self {
            factor: self.factor + (ratio - self.factor) * share,
            deviation: (deviation * 65_536.0) as u16,
            reports: self.reports.saturating_add(1),
        }
    }
}

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

impl Calibration {
    pub(crate) fn new() -> Self {
        let state = State {
            factor: 1.0,
            deviation: 0,
            reports: 0,
        };
        Self(AtomicU64::new(state.word()))
    }

    fn state(&self) -> State {
        State::of(self.0.load(Relaxed))
    }

    /// The ratio of reported to estimated tokens.
    pub(crate) fn factor(&self) -> f32 {
        self.state().factor
    }

    /// How many reports it is made of, up to 65,535.
    pub(crate) fn reports(&self) -> u64 {
        self.state().reports.into()
    }

    /// An estimate, corrected. One that is exact stays as it is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub(crate) fn correct(&self, raw: Count) -> Count {
        let Count::Estimate { tokens, error } = raw else {
            return raw;
        };
        let state = self.state();
        if state.reports == 0 {
            return raw;
        }
        let mut corrected = error;
        if state.reports >= ENOUGH {
            let spread = f32::from(state.deviation) / 65_536.0 * DEVIATIONS;
            corrected = spread.max(LEAST).min(error);
        }
        Count::Estimate {
            tokens: (tokens as f64 * f64::from(state.factor)).round() as u64,
            error: corrected,
        }
    }

    /// Learns that what was estimated as `raw` were `reported` tokens.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a ratio"
    )]
    pub(crate) fn learn(&self, raw: Count, reported: u64) {
        let Count::Estimate { tokens, .. } = raw else {
            return;
        };
        if tokens < SHORTEST || reported == 0 {
            return;
        }
        let ratio = (reported as f64 / tokens as f64) as f32;
        if !(1.0 / FURTHEST..=FURTHEST).contains(&ratio) {
            return;
        }
        let mut word = self.0.load(Relaxed);
        loop {
            let next = State::of(word).after(ratio).word();
            match self.0.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const RAW: Count = Count::Estimate {
        tokens: 1_000,
        error: 0.3,
    };

    #[test]
    fn it_comes_to_what_is_reported() {
        let calibration = Calibration::new();
        assert_eq!(calibration.correct(RAW), RAW);
        for _ in 0..200 {
            calibration.learn(RAW, 1_250);
        }
        let corrected = calibration.correct(RAW);
        assert!((1_240..=1_250).contains(&corrected.tokens()), "{corrected}");
        assert!(corrected.error() < 0.05, "{corrected}");
        // And follows when that changes.
        for _ in 0..200 {
            calibration.learn(RAW, 900);
        }
        assert!((895..=910).contains(&calibration.correct(RAW).tokens()));
    }

    #[test]
    fn reports_that_differ_leave_the_error_large() {
        let calibration = Calibration::new();
        for n in 0..400_u64 {
            calibration.learn(RAW, if n.is_multiple_of(2) { 900 } else { 1_100 });
        }
        let corrected = calibration.correct(RAW);
        assert!(
            corrected.least() <= 900 && corrected.most() >= 1_100,
            "{corrected}"
        );
    }

    #[test]
    fn what_is_no_count_of_these_texts_is_not_believed() {
        let calibration = Calibration::new();
        for reported in [0, 1, 5_000, u64::MAX] {
            calibration.learn(RAW, reported);
        }
        calibration.learn(Count::within(20, 5), 40);
        calibration.learn(Count::Exact(1_000), 1_100);
        assert_eq!(calibration.reports(), 0);
        assert_eq!(calibration.correct(Count::Exact(7)), Count::Exact(7));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::{sync::Arc, thread};

    #[test]
    fn no_report_is_lost() {
        loom::model(|| {
            let calibration = Arc::new(Calibration::new());
            let raw = Count::within(1_000, 100);
            let learners = [1_100, 900].map(|reported| {
                let calibration = calibration.clone();
                thread::spawn(move || calibration.learn(raw, reported))
            });
            for learner in learners {
                learner.join().expect("no panic");
            }
            assert_eq!(calibration.reports(), 2);
            assert!((0.9..1.1).contains(&calibration.factor()));
        });
    }
}
