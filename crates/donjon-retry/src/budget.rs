//! How many retries there may be for so many requests.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    bucket::{Bucket, RETRY, Withdrawal},
    error::ConfigError,
};

/// How many retries there may be for so many requests, so that retries never multiply the load of a
/// provider that is down: when every call fails, steady traffic is at most 1.2 times what it would
/// be without retries.
///
/// Each request earns a share of a retry (0.2 by default), whether it succeeds or not; each retry
/// costs one. What was earned is kept up to the burst (100 retries). So that little traffic can
/// retry at all, 10 retries in every 10 s pass even if nothing was earned for them; those count
/// against what the requests of the same 10 s earn, so that busy traffic gains nothing by it.
///
/// Clones share one budget; give one to several layers to bound them together.
#[derive(Clone)]
pub struct RetryBudget {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    bucket: Bucket,
    epoch: Instant,
}

/// The windows of the reserve.
const WINDOW: Duration = Duration::from_secs(10);

impl RetryBudget {
    /// Builds a budget that differs from the default.
    pub const fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder {
            ratio: 0.2,
            burst: 100,
            reserve: 10,
        }
    }

    /// No bound but the number of attempts.
    pub const fn unlimited() -> Self {
        Self { shared: None }
    }

    /// How many retries requests have earned that were not made yet; infinite without a bound.
    pub fn balance(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
        self.shared.as_ref().map_or(f64::INFINITY, |shared| {
            shared.bucket.balance() as f64 / RETRY as f64
        })
    }

    pub(crate) fn deposit(&self) {
        if let Some(shared) = &self.shared {
            shared.bucket.deposit();
        }
    }

    /// Withdraws a retry, if there is one; it is to be made, or given back.
    pub(crate) fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let Some(shared) = &self.shared else {
            return Some(Withdrawal::default());
        };
        let age = now.saturating_duration_since(shared.epoch);
        let window = u32::try_from(age.as_secs() / WINDOW.as_secs()).unwrap_or(u32::MAX);
        shared.bucket.withdraw(window)
    }

    pub(crate) fn refund(&self, withdrawal: Withdrawal) {
        if let Some(shared) = &self.shared {
            shared.bucket.refund(withdrawal);
        }
    }
}

/// One retry for five requests, 100 kept at most, at least 10 in every 10 s.
impl Default for RetryBudget {
    fn default() -> Self {
        Self::builder().make()
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("balance", &self.balance())
            .finish_non_exhaustive()
    }
}

/// Builds a [`RetryBudget`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryBudgetBuilder {
    ratio: f64,
    burst: u32,
    reserve: u32,
}

impl RetryBudgetBuilder {
    /// Sets how many retries each request earns, from 0 to 10; default 0.2. Exact to a millionth.
    pub const fn ratio(mut self, retries: f64) -> Self {
        self.ratio = retries;
        self
    }

    /// Sets how many retries that were earned and not made are kept at most; default 100.
    pub const fn burst(mut self, retries: u32) -> Self {
        self.burst = retries;
        self
    }

    /// Sets how many retries may pass in every 10 s even if nothing was earned for them; default
    /// 10, and 0 for none.
    pub const fn reserve(mut self, retries: u32) -> Self {
        self.reserve = retries;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A ratio that is no number from 0 to 10; a burst of zero with a ratio above zero.
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        if !(0.0..=10.0).contains(&self.ratio) {
            return Err(ConfigError::BudgetRatio(self.ratio));
        }
        if self.burst == 0 && self.ratio > 0.0 {
            return Err(ConfigError::ZeroBurst);
        }
        Ok(self.make())
    }

    fn make(self) -> RetryBudget {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "0 to 10 millions"
        )]
        let share = (self.ratio * RETRY as f64).round() as u64;
        let burst = u64::from(self.burst) * RETRY;
        RetryBudget {
            shared: Some(Arc::new(Shared {
                bucket: Bucket::new(share, burst, self.reserve),
                epoch: Instant::now(),
            })),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn withdrawn(budget: &RetryBudget, at: Instant, most: usize) -> usize {
        (0..most)
            .take_while(|_| budget.withdraw(at).is_some())
            .count()
    }

    fn without_reserve(ratio: f64) -> RetryBudget {
        let builder = RetryBudget::builder().ratio(ratio).reserve(0).burst(1_000);
        builder.build().expect("sensible")
    }

    #[test]
    fn small_ratios_are_not_truncated_and_requests_earn() {
        for (ratio, requests, retries) in [
            (0.2, 1_000, 200),
            (0.001, 1_000, 1),
            (0.001, 999, 0),
            (0.35, 1_000, 350),
            (1.5, 10, 15),
            (0.0, 1_000, 0),
        ] {
            let budget = without_reserve(ratio);
            (0..requests).for_each(|_| budget.deposit());
            let got = withdrawn(&budget, Instant::now(), 10_000);
            assert_eq!(got, retries, "{requests} requests at {ratio}");
        }
    }

    #[test]
    fn a_long_calm_saves_no_more_than_the_burst() {
        let builder = RetryBudget::builder().burst(7).reserve(0);
        let budget = builder.build().expect("sensible");
        (0..1_000_000).for_each(|_| budget.deposit());
        assert!((budget.balance() - 7.0).abs() < f64::EPSILON);
        assert_eq!(withdrawn(&budget, Instant::now(), 100), 7);
        (0..5).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, Instant::now(), 100), 1);
    }

    #[test]
    fn the_reserve_comes_back_with_every_window_and_does_not_add_up() {
        let budget = RetryBudget::default();
        let start = Instant::now();
        assert_eq!(withdrawn(&budget, start, 100), 10);
        assert_eq!(withdrawn(&budget, start + WINDOW / 2, 100), 0);
        assert_eq!(withdrawn(&budget, start + WINDOW, 100), 10);
        assert_eq!(withdrawn(&budget, start + WINDOW * 50, 100), 10);
        // Those ten were borrowed from what this window's requests earn.
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, start + WINDOW * 50, 100), 0);
        (0..5).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, start + WINDOW * 50, 100), 1);
        // What is owed is forgiven with the next one, and what was earned is kept.
        assert_eq!(withdrawn(&budget, start + WINDOW * 51, 100), 10);
    }

    #[test]
    fn what_was_not_made_is_given_back() {
        let budget = without_reserve(1.0);
        budget.deposit();
        let earned = budget.withdraw(Instant::now()).expect("one was earned");
        assert!(budget.withdraw(Instant::now()).is_none());
        budget.refund(earned);
        assert!(budget.withdraw(Instant::now()).is_some());
    }

    #[test]
    fn what_was_borrowed_is_given_back_to_its_window_alone() {
        let builder = RetryBudget::builder().ratio(1.0).reserve(1);
        let budget = builder.build().expect("sensible");
        let start = Instant::now();
        let borrowed = budget.withdraw(start).expect("the reserve");
        assert!(budget.withdraw(start).is_none());
        budget.refund(borrowed);
        let borrowed = budget.withdraw(start).expect("it was given back");

        // What was owed in the last window is forgiven, not earned.
        let next = start + WINDOW;
        assert_eq!(withdrawn(&budget, next, 100), 1);
        budget.refund(borrowed);
        budget.deposit();
        assert_eq!(withdrawn(&budget, next, 100), 0, "it pays what is owed");
        budget.deposit();
        assert_eq!(withdrawn(&budget, next, 100), 1);
    }

    #[test]
    fn what_was_earned_is_given_back_in_a_later_window_too() {
        let budget = without_reserve(1.0);
        budget.deposit();
        let start = Instant::now();
        let earned = budget.withdraw(start).expect("it was earned");
        assert_eq!(withdrawn(&budget, start + WINDOW, 100), 0);
        budget.refund(earned);
        assert_eq!(withdrawn(&budget, start + WINDOW, 100), 1);
    }

    #[test]
    fn senseless_values_are_refused() {
        for ratio in [f64::NAN, -0.1, 10.1, f64::INFINITY] {
            assert!(RetryBudget::builder().ratio(ratio).build().is_err());
        }
        assert!(RetryBudget::builder().burst(0).build().is_err());
        assert!(RetryBudget::builder().ratio(0.0).burst(0).build().is_ok());
    }

    proptest! {
        /// In whatever order requests, retries and time come: never more retries than were earned
        /// and the reserve of each window allow.
        #[test]
        fn never_more_than_was_earned(
            ratio in 0.0..2.0_f64, reserve in 0..5_u32, steps in prop::collection::vec(0..4_u8, 1..400),
        ) {
            let builder = RetryBudget::builder().ratio(ratio).reserve(reserve).burst(10_000);
            let budget = builder.build().expect("sensible");
            let (mut at, mut windows) = (Instant::now(), 1_u32);
            let (mut requests, mut retries) = (0_u32, 0_u32);
            for step in steps {
                match step {
                    0 => { requests += 1; budget.deposit(); }
                    1 | 2 => retries += u32::from(budget.withdraw(at).is_some()),
                    _ => { at += WINDOW; windows += 1; }
                }
            }
            let earned = f64::from(requests) * ratio + 1e-3;
            prop_assert!(f64::from(retries) <= earned + f64::from(reserve * (windows + 1)));
        }
    }
}
