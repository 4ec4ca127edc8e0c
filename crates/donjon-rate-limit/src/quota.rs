//! Limits as rings of sub-windows keep them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use smallvec::SmallVec;

use crate::{
    error::ConfigError,
    limit::{Limit, Unit},
    window::{MOST, SLOTS},
};

/// How much is needed of each limit, in the order of the [`Quotas`].
pub(crate) type Need = SmallVec<[u64; 4]>;

/// The limits of a layer, the same for each of its keys.
#[derive(Debug)]
pub struct Quotas {
    all: Box<[Quota]>,
    /// The least time between two requests, in nanoseconds; 0 for none.
    spacing: u64,
}

impl Quotas {
    pub(crate) fn new(all: Vec<Quota>, spacing: Duration) -> Self {
        Self {
            all: all.into(),
            spacing: nanos(spacing),
        }
    }

    /// The limits.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Quota> {
        self.all.iter()
    }

    /// The least time between two requests; zero for none.
    pub fn min_spacing(&self) -> Duration {
        Duration::from_nanos(self.spacing)
    }

    pub(crate) fn all(&self) -> &[Quota] {
        &self.all
    }

    pub(crate) fn spacing(&self) -> u64 {
        self.spacing
    }
}

/// One limit. Its amount can be changed while it is in use.
#[derive(Debug)]
pub struct Quota {
    limit: Limit,
    learned: bool,
    /// What is allowed in the ring, in grains.
    capacity: AtomicU64,
    /// The length of a sub-window in nanoseconds.
    width: u64,
    /// Amounts in a ring are counted in grains of two to the power of this: one each, or as coarse as
    /// it takes for the limit to fit.
    grain: u32,
}

/// Sub-windows before the layer was built.
const BEFORE: u64 = SLOTS + 1;

/// The longest window: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

impl Quota {
    pub(crate) fn new(limit: Limit) -> Result<Self, ConfigError> {
        let capacity = limit.burst.unwrap_or(limit.amount);
        if limit.amount == 0 {
            return Err(ConfigError::ZeroLimit(limit.unit));
        }
        if capacity == 0 {
            return Err(ConfigError::ZeroBurst(limit.unit));
        }
        let window = limit.window;
        if window < Duration::from_millis(1) || window > LONGEST {
            return Err(ConfigError::Window(limit.unit, window));
        }
        // The burst comes due in the same part of the window as it is of the amount.
        let ring = window.as_nanos().checked_mul(u128::from(capacity));
        let ring = ring.map(|ring| ring.div_ceil(u128::from(limit.amount)));
        let ring = ring.filter(|ring| *ring <= LONGEST.as_nanos());
        let Some(ring) = ring.and_then(|ring| u64::try_from(ring).ok()) else {
            return Err(ConfigError::Burst(limit.unit, capacity));
        };
        let grain = (u64::BITS - capacity.leading_zeros()).saturating_sub(47);
        Ok(Self {
            limit,
            learned: false,
            capacity: AtomicU64::new(capacity >> grain),
            width: ring.div_ceil(SLOTS),
            grain,
        })
    }

    /// A limit that a provider may tell of, over a minute; until then there is none.
    pub(crate) fn learned(limit: Limit) -> Self {
        Self {
            width: nanos(limit.window).div_ceil(SLOTS),
            limit,
            learned: true,
            capacity: AtomicU64::new(MOST),
            grain: 0,
        }
    }

    /// What it counts.
    pub fn unit(&self) -> &Unit {
        &self.limit.unit
    }

    /// The window that was stated for it.
    pub fn window(&self) -> Duration {
        self.limit.window
    }

    /// The limit as it was configured.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Whether it is not configured, and limits nothing until a provider tells of it.
    pub fn is_learned(&self) -> bool {
        self.learned
    }

    /// What is allowed at once: the burst, or the amount.
    pub fn capacity(&self) -> u64 {
        self.amount(self.capacity.load(Relaxed))
    }

    /// Over which time: the window, or the part of it that the burst is of the amount.
    pub fn ring(&self) -> Duration {
        Duration::from_nanos(self.width.saturating_mul(SLOTS))
    }

    pub(crate) fn set(&self, amount: u64) {
        let share = |of: u64| {
            let capacity = u128::from(amount) * u128::from(of) / u128::from(self.limit.amount);
            u64::try_from(capacity).unwrap_or(u64::MAX)
        };
        let capacity = self.limit.burst.map_or(amount, share);
        // A grain is as coarse as the first amount needed.
        self.capacity
            .store((capacity >> self.grain).clamp(1, MOST), Relaxed);
    }

    pub(crate) fn grains_allowed(&self) -> u64 {
        self.capacity.load(Relaxed)
    }

    pub(crate) fn grains(&self, amount: u64) -> u64 {
        let part = amount & !(u64::MAX << self.grain);
        (amount >> self.grain) + u64::from(part > 0)
    }

    pub(crate) fn amount(&self, grains: u64) -> u64 {
        let fits = grains.leading_zeros() >= self.grain;
        if fits { grains << self.grain } else { u64::MAX }
    }

    /// The sub-window of a moment. They are counted from a whole window before the layer was built, so
    /// that something can be charged as if it had been then.
    pub(crate) fn slot(&self, now: u64) -> u64 {
        now / self.width + BEFORE
    }

    /// When a sub-window begins.
    pub(crate) fn begins(&self, slot: u64) -> u64 {
        slot.saturating_sub(BEFORE).saturating_mul(self.width)
    }
}

/// As nanoseconds; what is longer than five centuries is taken for that.
pub(crate) fn nanos(duration: Duration) -> u64 {
    let secs = duration.as_secs().saturating_mul(1_000_000_000);
    secs.saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn quota(limit: Limit) -> Quota {
        Quota::new(limit).expect("sensible")
    }

    #[test]
    fn a_burst_is_kept_over_the_time_in_which_it_comes_due() {
        let plain = quota(Limit::requests(600).per_minute());
        assert_eq!(
            (plain.capacity(), plain.ring()),
            (600, Duration::from_secs(60))
        );
        let burst = quota(Limit::requests(600).per_minute().burst(10));
        assert_eq!(
            (burst.capacity(), burst.ring()),
            (10, Duration::from_secs(1))
        );
        burst.set(1_200);
        assert_eq!(
            (burst.capacity(), burst.ring()),
            (20, Duration::from_secs(1))
        );
    }

    #[test]
    fn wide_amounts_keep_their_size() {
        for amount in [1, 1_000, MOST / 2, MOST, MOST * 5, u64::MAX / 3, u64::MAX] {
            let quota = quota(Limit::tokens(amount));
            let capacity = quota.capacity();
            assert!(
                capacity <= amount && capacity >= amount - (amount >> 40),
                "{amount}"
            );
            assert!(quota.grains(1) >= 1);
            assert!(quota.grains_allowed() <= MOST);
        }
    }

    #[test]
    fn senseless_limits_are_refused() {
        let hour = Duration::from_secs(3_600);
        for limit in [
            Limit::requests(0),
            Limit::requests(1).burst(0),
            Limit::requests(1).per(Duration::ZERO),
            Limit::requests(1).per(Duration::MAX),
            Limit::requests(1).per(hour).burst(u64::MAX),
        ] {
            assert!(Quota::new(limit).is_err());
        }
    }
}
