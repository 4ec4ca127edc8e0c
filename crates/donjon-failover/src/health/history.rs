//! What faults add up to.

use std::{collections::VecDeque, time::Duration};

use super::HealthPolicy;
use crate::event::DownReason;

/// The faults of one target. It is looked at only when one happens, so that a success costs nothing
/// but its count.
#[derive(Debug, Default)]
pub(crate) struct History {
    faults: u64,
    /// Counts as they stood when a fault came, an eighth of the window apart.
    samples: VecDeque<Sample>,
    /// How often it was taken out since it last stayed in.
    level: u32,
    /// When it came back last.
    returned_at: Option<u64>,
    /// Why it was taken out last.
    pub(crate) reason: Option<DownReason>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: u64,
    faults: u64,
    successes: u64,
}

/// What a fault leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stays,
    /// Faults in a row.
    Consecutive,
    /// The share of its faults.
    Rate,
}

impl History {
    /// Takes in a fault, the `streak`-th in a row, of a target that has had so many `successes`.
    pub(crate) fn fault(
        &mut self,
        policy: &HealthPolicy,
        now: u64,
        streak: u32,
        successes: u64,
    ) -> Verdict {
        let rate = self.rate(policy, now, successes);
        if policy.consecutive.is_some_and(|most| streak >= most) {
            return Verdict::Consecutive;
        }
        match (policy.failure_rate, rate) {
            (Some(most), Some(rate)) if rate >= most => Verdict::Rate,
            _ => Verdict::Stays,
        }
    }

    /// The share of faults within the window, this one included; `None` while that is too few calls.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn rate(&mut self, policy: &HealthPolicy, now: u64, successes: u64) -> Option<f64> {
        let window = nanos(policy.window);
        let step = window / 8;
        while self
            .samples
            .front()
            .is_some_and(|sample| now.saturating_sub(sample.at) > window)
        {
            self.samples.pop_front();
        }
        let last = self.samples.back();
        if last.is_none_or(|last| now.saturating_sub(last.at) >= step) {
            self.samples.push_back(Sample {
                at: now,
                faults: self.faults,
                successes,
            });
        }
        self.faults += 1;
        let from = self.samples.front()?;
        let faults = self.faults - from.faults;
        let calls = faults + successes.saturating_sub(from.successes);
        (calls >= u64::from(policy.minimum_calls)).then(|| faults as f64 / calls as f64)
    }

    /// How long it is out that is taken out at `now`.
    pub(crate) fn sentence(&mut self, policy: &HealthPolicy, now: u64) -> Duration {
        let longest = nanos(policy.longest);
        if self
            .returned_at
            .is_some_and(|at| now.saturating_sub(at) >= longest)
        {
            self.level = 0;
        }
        let factor = 1_u32.checked_shl(self.level).unwrap_or(u32::MAX);
        self.level = self.level.saturating_add(1);
        self.samples.clear();
        policy.out_for.saturating_mul(factor).min(policy.longest)
    }

    /// It works again.
    pub(crate) fn returned(&mut self, now: u64) {
        self.samples.clear();
        self.returned_at = Some(now);
    }
}

/// More than five hundred years are that.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn faults_in_a_row_are_told_apart_from_those_that_are_not() {
        let policy = HealthPolicy::new().failure_rate(None);
        let mut history = History::default();
        for streak in 1..5 {
            assert_eq!(history.fault(&policy, 0, streak, 0), Verdict::Stays);
        }
        assert_eq!(history.fault(&policy, 0, 5, 0), Verdict::Consecutive);
        assert_eq!(history.fault(&policy, 0, 1, 9), Verdict::Stays);
    }

    #[test]
    fn the_rate_is_that_of_the_window_and_of_enough_calls() {
        let policy = HealthPolicy::new()
            .consecutive_failures(None)
            .minimum_calls(10);
        let mut history = History::default();
        // A thousand successes before the first fault are long ago.
        for fault in 0..9 {
            let is = history.fault(&policy, fault, 1, 1_000);
            assert_eq!(is, Verdict::Stays, "nine calls are too few");
        }
        assert_eq!(history.fault(&policy, 9, 1, 1_000), Verdict::Rate);
        let mut history = History::default();
        for fault in 0..100 {
            // Two successes for each fault.
            let is = history.fault(&policy, fault * SECOND, 1, fault * 2);
            assert_eq!(is, Verdict::Stays);
        }
        // The window moves on: what was good is forgotten, within an eighth of it.
        let turned = (100..140)
            .position(|at| history.fault(&policy, at * SECOND, 1, 200) == Verdict::Rate)
            .expect("it turned bad");
        assert!((5..=20).contains(&turned), "after {turned} s");
        assert!(history.samples.len() <= 9);
    }

    #[test]
    fn each_time_out_is_twice_the_one_before_until_it_stayed_in() {
        let policy = HealthPolicy::new();
        let mut history = History::default();
        let mut times = |at: u64| history.sentence(&policy, at * SECOND).as_secs();
        let all: Vec<_> = (0..7).map(|_| times(0)).collect();
        assert_eq!(all, [10, 20, 40, 80, 160, 300, 300]);
        history.returned(0);
        assert_eq!(history.sentence(&policy, 299 * SECOND).as_secs(), 300);
        history.returned(300 * SECOND);
        assert_eq!(history.sentence(&policy, 600 * SECOND).as_secs(), 10);
        history.level = u32::MAX;
        assert_eq!(history.sentence(&policy, 600 * SECOND).as_secs(), 10);
        history.level = u32::MAX;
        history.returned(600 * SECOND);
        assert_eq!(history.sentence(&policy, 601 * SECOND).as_secs(), 300);
    }
}
