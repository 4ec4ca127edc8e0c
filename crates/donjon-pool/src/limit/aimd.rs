//! Additive increase, multiplicative decrease.

use std::{ops::RangeInclusive, time::Duration};

use super::{Bounds, Limit, Sample, Signal, check_backoff, whole};
use crate::error::ConfigError;

/// A limit that grows by a slot a round and is cut by a tenth when the server has too much to do,
/// as the window of TCP does; after the `AIMDLimit` of Netflix's concurrency-limits.
///
/// * It is cut by an overload error or a timeout, or by a first token that came later than
///   [`first_token_within`](Self::first_token_within), where that is set; at most once for the calls that
///   were in flight together, since all of them tell of the same load.
/// * It grows only by calls that were admitted while at least half of the slots were in use. A round
///   is as many of them as there are slots. Until the first cut it doubles with each round; afterwards
///   it grows by one slot a round, and by one more for every four rounds without a cut, so that it
///   finds a limit that has moved far.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Aimd {
    bounds: Bounds,
    backoff: f64,
    first_token_within: Option<Duration>,
}

/// From 8 slots, between 1 and 1,000; cut to 0.9; no bound on the first token.
impl Default for Aimd {
    fn default() -> Self {
        Self::new()
    }
}

impl Aimd {
    /// The default.
    pub fn new() -> Self {
        Self {
            bounds: Bounds::default(),
            backoff: 0.9,
            first_token_within: None,
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

    /// Sets what is left of the limit after a cut, from 0.1 to below 1; default 0.9.
    pub fn backoff(mut self, left: f64) -> Self {
        self.backoff = left;
        self
    }

    /// Takes a first token that comes later for a sign of overload; default none is too late.
    pub fn first_token_within(mut self, within: Duration) -> Self {
        self.first_token_within = Some(within);
        self
    }

    pub(crate) fn start(self) -> Result<AimdLimit, ConfigError> {
        self.bounds.check()?;
        check_backoff(self.backoff)?;
        if self.first_token_within == Some(Duration::ZERO) {
            return Err(ConfigError::ZeroFirstToken);
        }
        Ok(AimdLimit {
            limit: f64::from(self.bounds.initial),
            config: self,
            cut_at: Duration::ZERO,
            rounds: None,
        })
    }
}

/// The state of an [`Aimd`].
#[derive(Clone, Debug)]
pub(crate) struct AimdLimit {
    config: Aimd,
    limit: f64,
    cut_at: Duration,
    /// Since the last cut; none before the first.
    rounds: Option<f64>,
}

impl AimdLimit {
    fn is_overload(&self, signal: Signal) -> bool {
        match signal {
            Signal::Overload => true,
            Signal::FirstToken(after) | Signal::NoTokenAfter(after) => self
                .config
                .first_token_within
                .is_some_and(|within| after > within),
            Signal::Success => false,
        }
    }
}

impl Limit for AimdLimit {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn set(&mut self, limit: u32, now: Duration) {
        self.limit = self.config.bounds.clamp(f64::from(limit));
        self.cut_at = now;
        self.rounds = Some(0.0);
    }

    fn wants_first_token(&self) -> bool {
        self.config.first_token_within.is_some()
    }

    fn sample(&mut self, sample: &Sample) {
        if self.is_overload(sample.signal) {
            // What was admitted before the last cut tells of the load before it.
            if sample.admitted_at >= self.cut_at {
                self.limit = self.config.bounds.clamp(self.limit * self.config.backoff);
                self.cut_at = sample.at;
                self.rounds = Some(0.0);
            }
            return;
        }
        let bound = sample.in_flight.saturating_mul(2) >= self.limit();
        if !bound || matches!(sample.signal, Signal::NoTokenAfter(_)) {
            return;
        }
        let growth = match &mut self.rounds {
            None => 1.0,
            Some(rounds) => {
                *rounds += 1.0 / self.limit;
                (1.0 + (*rounds / 4.0).floor()) / self.limit
            }
        };
        self.limit = self.config.bounds.clamp(self.limit + growth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(config: Aimd) -> AimdLimit {
        config.start().expect("sensible")
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn full(limit: &AimdLimit, admitted: u64, now: u64, signal: Signal) -> Sample {
        Sample::new(at(now), at(admitted), limit.limit(), signal)
    }

    #[test]
    fn calls_in_flight_together_cut_once() {
        let mut limit = limit(Aimd::new().initial(100));
        for n in 0..50 {
            limit.sample(&full(&limit, n, 60 + n, Signal::Overload));
        }
        assert_eq!(limit.limit(), 90);
        limit.sample(&full(&limit, 60, 200, Signal::Overload));
        assert_eq!(limit.limit(), 81);
    }

    #[test]
    fn it_doubles_then_adds_one_a_round() {
        let mut limit = limit(Aimd::new().initial(8));
        for _ in 0..8 {
            limit.sample(&full(&limit, 0, 1, Signal::Success));
        }
        assert_eq!(limit.limit(), 16);
        limit.sample(&full(&limit, 1, 2, Signal::Overload));
        assert_eq!(limit.limit(), 14);
        for _ in 0..16 {
            limit.sample(&full(&limit, 3, 4, Signal::Success));
        }
        assert_eq!(limit.limit(), 15);
    }

    #[test]
    fn idle_it_stays() {
        let mut limit = limit(Aimd::new().initial(8));
        for n in 0..1_000 {
            limit.sample(&Sample::new(at(n), at(n), 3, Signal::Success));
        }
        assert_eq!(limit.limit(), 8);
    }

    #[test]
    fn a_late_first_token_cuts_where_that_is_asked_for() {
        let late = Signal::FirstToken(at(900));
        let mut plain = limit(Aimd::new().initial(8).between(1..=8));
        plain.sample(&full(&plain, 0, 1, late));
        assert_eq!(plain.limit(), 8);
        let mut strict = limit(Aimd::new().initial(100).first_token_within(at(500)));
        strict.sample(&full(&strict, 0, 1, late));
        assert_eq!(strict.limit(), 90);
        strict.sample(&full(&strict, 2, 3, Signal::NoTokenAfter(at(501))));
        assert_eq!(strict.limit(), 81);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Aimd::new().backoff(1.0).start().is_err());
        assert!(Aimd::new().backoff(f64::NAN).start().is_err());
        assert!(Aimd::new().between(0..=4).start().is_err());
        assert!(Aimd::new().initial(9).between(1..=8).start().is_err());
        let zero = Aimd::new().first_token_within(Duration::ZERO).start();
        assert_eq!(zero.err(), Some(ConfigError::ZeroFirstToken));
    }
}
