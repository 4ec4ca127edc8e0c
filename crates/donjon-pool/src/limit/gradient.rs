//! Following the gradient of the time to first token.

use std::{ops::RangeInclusive, time::Duration};

use super::{Bounds, Limit, Sample, Signal, check_backoff, whole, window::Window};
use crate::error::ConfigError;

/// A limit that follows how much later the first token comes than it could: it grows while that is
/// within the tolerance, and shrinks in proportion when it is not; after the gradient limits of
/// Netflix's concurrency-limits.
///
/// * It works in windows: the median of some ten to a hundred first tokens, all of calls that were
///   admitted since the limit was last changed, so that each step sees what the step before it did.
/// * What the first token could take, the baseline, is looked for: in the beginning, and then every
///   [`look_every`](Self::look_every), if the limit is what binds, it is lowered by a quarter for one
///   window. Otherwise it would take its own queue at the server for the server's speed, as the second
///   gradient limit of Netflix's does in the long run; and of several clients the one that erred most
///   would take from the others. In the beginning it goes on down for as long as that makes the first
///   token come sooner, in case that it started too high.
/// * Until the first time that it has to shrink it grows by half of itself; afterwards by one slot,
///   and by one more for every two times in a row. It grows only when nearly all slots were in use;
///   while less than half of them is, it stays.
/// * An overload error or a timeout cuts it, at most once for the calls that were in flight together.
/// * A whole answer has no time to first token, and moves nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Gradient {
    bounds: Bounds,
    tolerance: f64,
    backoff: f64,
    look_every: Duration,
}

/// From 8 slots, between 1 and 1,000; tolerance 1.5; cut to 0.9; a look every 30 s.
impl Default for Gradient {
    fn default() -> Self {
        Self::new()
    }
}

impl Gradient {
    /// The default.
    pub fn new() -> Self {
        Self {
            bounds: Bounds::default(),
            tolerance: 1.5,
            backoff: 0.9,
            look_every: Duration::from_secs(30),
        }
    }

    /// Sets where it starts; default 8.
    pub fn initial(mut self, slots: u32) -> Self {
        self.bounds.initial = slots;
        self
    }

    /// Sets the least and the most slots; default 1 to 1,000.
    pub fn between(mut self, bounds: RangeInclusive<u32>) -> Self {
        self.bounds.set_between(bounds);
        self
    }

    /// Sets how many times the time that the first token could take is still good, from 1 to 10;
    /// default 1.5. A lower one keeps the queue at the server shorter, and takes noise for load sooner.
    ///
    /// It is meant for 32 slots; what is above 1 of it falls with the root of the limit, and is at
    /// most a third more for less.
    pub fn tolerance(mut self, times: f64) -> Self {
        self.tolerance = times;
        self
    }

    /// Sets what is left of the limit after an overload error, from 0.1 to below 1; default 0.9.
    pub fn backoff(mut self, left: f64) -> Self {
        self.backoff = left;
        self
    }

    /// Sets how often it looks for what the first token could take; default 30 s. While the limit does
    /// not bind, it looks at no cost, and all the time.
    pub fn look_every(mut self, every: Duration) -> Self {
        self.look_every = every;
        self
    }

    pub(crate) fn start(self) -> Result<GradientLimit, ConfigError> {
        self.bounds.check()?;
        check_backoff(self.backoff)?;
        if !(1.0..=10.0).contains(&self.tolerance) {
            return Err(ConfigError::Tolerance(self.tolerance));
        }
        if self.look_every < Duration::from_secs(1) {
            return Err(ConfigError::LookEvery(self.look_every));
        }
        Ok(GradientLimit {
            limit: f64::from(self.bounds.initial),
            config: self,
            window: Window::new(),
            baseline: None,
            growth: None,
            looking: None,
            next_look: Duration::ZERO,
            shrunk: 0,
        })
    }
}

/// The state of a [`Gradient`].
#[derive(Clone, Debug)]
pub(crate) struct GradientLimit {
    config: Gradient,
    limit: f64,
    window: Window,
    /// What the first token could take, in seconds.
    baseline: Option<f64>,
    /// How often in a row it grew; none before it had to shrink for the first time.
    growth: Option<u32>,
    looking: Option<Look>,
    next_look: Duration,
    /// How often in a row it shrank.
    shrunk: u32,
}

/// A look below the limit.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// The limit to come back to.
    limit: f64,
    /// The median there.
    median: f64,
}

/// The limit at which the tolerance is what was set.
const TYPICAL: f64 = 32.0;

/// How far below its limit it looks.
const BELOW: f64 = 0.75;

/// After so many times in a row it was no use to shrink.
const FUTILE: u32 = 6;

/// A first token that comes so much sooner there came later for the load that the limit allowed.
const SOONER: f64 = 0.85;

impl GradientLimit {
    /// Goes on from `limit`, with samples of calls that are admitted from now on.
    fn change(&mut self, limit: f64, now: Duration) {
        self.limit = self.config.bounds.clamp(limit);
        self.window.restart(now);
    }

    fn overload(&mut self, sample: &Sample) {
        if sample.admitted_at >= self.window.since {
            self.growth = Some(0);
            self.looking = None;
            self.change(self.limit * self.config.backoff, sample.at);
        }
    }

    /// A window is full.
    fn step(&mut self, now: Duration) {
        let median = self.window.median();
        let peak = f64::from(self.window.peak);
        let bound = 2.0 * peak >= self.limit;
        if let Some(look) = self.looking.take() {
            let sooner = median < SOONER * look.median;
            if sooner && self.growth.is_none() {
                self.baseline = Some(median);
                self.look(median, now);
                return;
            }
            let near = |baseline: f64| SOONER * median < baseline;
            if self.baseline.is_none_or(near) {
                self.learn(median, 0.25);
            } else if !sooner && SOONER * median < look.median {
                // It does not depend on the load: the server has become slower.
                self.learn(median, 0.5);
            }
            self.change(look.limit, now);
            return;
        }
        // What it does not bind is not slow for its sake.
        if !bound {
            self.learn(median, 0.25);
        } else if self.baseline.is_none_or(|baseline| median < baseline) {
            self.learn(median, 0.125);
        }
        // While it shrinks the load is changing, and a look shows nothing; where that does not help, it
        // is not the load.
        let settled = self.shrunk == 0 || self.shrunk >= FUTILE;
        if bound && settled && now >= self.next_look {
            self.shrunk = 0;
            self.next_look = now + self.config.look_every;
            self.look(median, now);
            return;
        }
        let ratio = self.tolerance() * self.baseline.unwrap_or(median) / median;
        if ratio < 1.0 && bound {
            self.growth = Some(0);
            self.shrunk += 1;
            // A small excess is halved: it may be noise, and others may see it too.
            let left = if ratio > 0.7 { ratio.sqrt() } else { ratio };
            self.change(self.limit * left.max(0.5), now);
            return;
        }
        self.shrunk = 0;
        let grows = ratio >= 1.0 && peak >= 0.9 * self.limit.floor();
        let growth = if grows { self.grow() } else { 0.0 };
        self.change(self.limit + growth, now);
    }

    /// How many times the baseline is still good. It falls as the limit grows: the medians of more
    /// samples are surer, and of several clients of a server the largest gives way first.
    fn tolerance(&self) -> f64 {
        1.0 + (self.config.tolerance - 1.0) * (TYPICAL / self.limit).sqrt().min(1.3)
    }

    /// Looks below the limit, at which the median is this.
    fn look(&mut self, median: f64, now: Duration) {
        let limit = self.limit;
        self.change(limit * BELOW, now);
        self.looking = (self.limit < limit).then_some(Look { limit, median });
    }

    /// Moves the baseline towards a median by a part of the difference: one window alone is noise.
    fn learn(&mut self, median: f64, part: f64) {
        let baseline = self.baseline.get_or_insert(median);
        *baseline += (median - *baseline) * part;
    }

    /// By how much it grows: the same for small limits and large ones, so that several clients of a
    /// server come to equal shares.
    fn grow(&mut self) -> f64 {
        match &mut self.growth {
            None => (self.limit / 2.0).max(1.0),
            Some(in_a_row) => {
                *in_a_row += 1;
                let rounds = (self.window.len() / (self.limit / 2.0)).clamp(1.0, 2.0);
                let growth = f64::from(in_a_row.div_ceil(2)) * rounds;
                growth.min((self.limit / 8.0).max(1.0))
            }
        }
    }
}

impl Limit for GradientLimit {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn set(&mut self, limit: u32, now: Duration) {
        self.growth = Some(0);
        self.looking = None;
        self.change(f64::from(limit), now);
    }

    fn sample(&mut self, sample: &Sample) {
        let first_token = match sample.signal {
            Signal::Overload => {
                self.overload(sample);
                return;
            }
            Signal::Success => return,
            Signal::FirstToken(after) => after.as_secs_f64(),
            Signal::NoTokenAfter(after) => {
                // It would have taken longer; where that is no news it says nothing.
                let after = after.as_secs_f64();
                if after <= self.tolerance() * self.baseline.unwrap_or(after) {
                    return;
                }
                after
            }
        };
        // Whoever was admitted since has seen no more in flight than the limit allows, also where it
        // was lowered.
        if sample.admitted_at >= self.window.since
            && self
                .window
                .push(first_token, sample.in_flight, self.limit())
        {
            self.step(sample.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Calls one after the other, a second apart, that come to their first token after so long.
    struct Calls(GradientLimit, u64);

    impl Calls {
        fn new(config: Gradient) -> Self {
            Self(config.start().expect("sensible"), 0)
        }

        fn make(&mut self, calls: usize, in_flight: impl Fn(u32) -> u32, signal: Signal) -> u32 {
            for _ in 0..calls {
                self.1 += 1_000;
                let in_flight = in_flight(self.0.limit());
                let sample = Sample::new(at(self.1), at(self.1 - 900), in_flight, signal);
                self.0.sample(&sample);
            }
            self.0.limit()
        }
    }

    const GOOD: Signal = Signal::FirstToken(Duration::from_millis(300));
    const LATE: Signal = Signal::FirstToken(Duration::from_millis(900));

    #[test]
    fn it_looks_first_then_grows_by_half_while_it_binds() {
        let seldom = Gradient::new().look_every(Duration::from_secs(3_600));
        let mut calls = Calls::new(seldom.initial(8));
        assert_eq!(calls.make(10, |limit| limit, GOOD), 6, "it looks");
        assert_eq!(calls.make(10, |limit| limit, GOOD), 8);
        assert_eq!(calls.make(10, |limit| limit, GOOD), 12);
        // Three times as late, of which 1.65 is good at this size.
        assert_eq!(calls.make(10, |limit| limit, LATE), 7);
        assert_eq!(calls.make(10, |limit| limit, GOOD), 8, "slowly now");
    }

    #[test]
    fn idle_it_stays_whatever_the_first_token() {
        let mut calls = Calls::new(Gradient::new().initial(8));
        for signal in [GOOD, LATE, GOOD] {
            assert_eq!(calls.make(300, |_| 3, signal), 8);
        }
        // Half of the slots in use: it would shrink, but does not grow.
        assert_eq!(calls.make(300, |_| 6, GOOD), 8);
    }

    #[test]
    fn calls_in_flight_together_cut_once() {
        let mut limit = Gradient::new().initial(100).start().expect("sensible");
        for n in 0..50 {
            let sample = Sample::new(at(60 + n), at(n), 100, Signal::Overload);
            limit.sample(&sample);
        }
        assert_eq!(limit.limit(), 90);
    }

    #[test]
    fn losing_to_a_hedge_counts_only_where_it_was_late() {
        let mut calls = Calls::new(Gradient::new().initial(8).between(8..=8));
        calls.make(40, |limit| limit, GOOD);
        let soon = Signal::NoTokenAfter(at(200));
        calls.make(1, |limit| limit, soon);
        let before = calls.0.window.len();
        calls.make(1, |limit| limit, soon);
        assert_eq!(calls.0.window.len(), before);
        calls.make(1, |limit| limit, Signal::NoTokenAfter(at(2_000)));
        assert!(calls.0.window.len() > before);
    }

    #[test]
    fn it_goes_on_from_what_was_set_within_its_bounds() {
        let mut limit = Gradient::new().between(4..=64).start().expect("sensible");
        limit.set(1_000, at(1));
        assert_eq!(limit.limit(), 64);
        limit.set(1, at(2));
        assert_eq!(limit.limit(), 4);
    }
}
