//! The state of limits in memory.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use donjon_core::Key;
use smallvec::SmallVec;

use crate::{
    limit::Unit,
    meter::{Meter, Obstacle, Obstructs, Settled, Store, Told},
    quota::{Quota, Quotas, nanos},
    window::Window,
};

/// Keeps the state of limits in the memory of this process.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct InMemory;

impl Store for InMemory {
    type Meter = LocalMeter;

    fn open(&self, _: &Key, quotas: &Arc<Quotas>, now: u64) -> LocalMeter {
        let ring = |quota: &Quota| Ring {
            window: Window::new(quota.slot(now)),
            told: AtomicU64::new(u64::MAX),
            told_until: AtomicU64::new(0),
        };
        LocalMeter {
            rings: quotas.iter().map(ring).collect(),
            next: AtomicU64::new(0),
            quotas: quotas.clone(),
        }
    }
}

/// The state of the limits of one key, in memory.
#[derive(Debug)]
#[repr(C)]
pub struct LocalMeter {
    quotas: Arc<Quotas>,
    /// When the next request may come, by the least time between two.
    next: AtomicU64,
    // The only one beside the rest, so that a call reaches it at once.
    rings: SmallVec<[Ring; 1]>,
}

#[derive(Debug)]
#[repr(C)]
struct Ring {
    /// Until when what the provider said counts, and what it said is allowed, in grains.
    told_until: AtomicU64,
    told: AtomicU64,
    window: Window,
}

/// What was charged for a call, and in which sub-windows.
// Of the first two limits word by word: a list is written in words and then moved in larger pieces,
// which the processor must wait for.
#[derive(Debug)]
pub struct Charges {
    first: Charge,
    second: Charge,
    others: SmallVec<[Charge; 2]>,
}

impl Charges {
    #[inline]
    fn none() -> Self {
        Self {
            first: Charge::UNCOUNTED,
            second: Charge::UNCOUNTED,
            others: SmallVec::new(),
        }
    }

    /// Adds that of the limit at place `at`, which is the next.
    #[inline]
    fn add(&mut self, at: usize, charge: Charge) {
        match at {
            0 => self.first = charge,
            1 => self.second = charge,
            _ => self.others.push(charge),
        }
    }

    /// That of the limit at place `at`, if it came so far.
    #[inline]
    fn of(&self, at: usize) -> Charge {
        match at {
            0 => self.first,
            1 => self.second,
            _ => self
                .others
                .get(at - 2)
                .copied()
                .unwrap_or(Charge::UNCOUNTED),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Charge {
    slot: u64,
    grains: u64,
}

impl Charge {
    /// Of a limit that did not count when the call came: neither what it used does.
    const UNCOUNTED: Self = Self {
        slot: u64::MAX,
        grains: 0,
    };
}

impl Ring {
    /// What is allowed now, in grains; `None` as long as nobody told of a limit that is only learned.
    fn allowed(&self, quota: &Quota, now: u64) -> Option<u64> {
        match self.told_until.load(Acquire) {
            0 if quota.is_learned() => None,
            until if until > now => Some(quota.grains_allowed().min(self.told.load(Acquire))),
            _ => Some(quota.grains_allowed()),
        }
    }

    fn fits(&self, quota: &Quota, need: u64, now: u64) -> bool {
        let Some(allowed) = self.allowed(quota, now) else {
            return true;
        };
        self.window.turn(quota.slot(now));
        self.window.used().saturating_add(quota.grains(need)) <= allowed
    }

    #[inline]
    fn reserve(&self, quota: &Quota, need: u64, now: u64) -> Option<Charge> {
        let Some(allowed) = self.allowed(quota, now) else {
            return Some(Charge::UNCOUNTED);
        };
        let grains = quota.grains(need);
        let slot = quota.slot(now);
        // Nothing is charged for nothing; it passes even while there is debt.
        if grains == 0 {
            return Some(Charge { slot, grains });
        }
        let slot = self.window.reserve(grains, allowed, slot)?;
        Some(Charge { slot, grains })
    }

    /// When so many grains fit; `None` if never.
    fn fits_at(&self, quota: &Quota, need: u64, alone: bool, now: u64) -> Option<u64> {
        let Some(allowed) = self.allowed(quota, now) else {
            return Some(now);
        };
        let grains = quota.grains(need);
        if grains == 0 {
            return Some(now);
        }
        if alone && grains > allowed {
            // It may fit when the provider's limit does not count any more.
            let until = self.told_until.load(Acquire);
            let may = grains <= quota.grains_allowed() && until != u64::MAX && until > now;
            return may.then_some(until);
        }
        self.window.turn(quota.slot(now));
        Some(quota.begins(self.window.fits_at(grains, allowed)))
    }

    fn learn(&self, quota: &Quota, told: Told, now: u64) {
        let slot = quota.slot(now);
        self.window.turn(slot);
        let window = nanos(quota.window());
        let reset = told.reset.unwrap_or(now.saturating_add(window));
        if let Some(limit) = told.limit {
            // Rounded down.
            let limit = quota
                .grains(limit.saturating_add(1))
                .saturating_sub(1)
                .max(1);
            if quota.is_learned() || limit < quota.grains_allowed() {
                self.told.store(limit, Release);
                let until = match quota.is_learned() {
                    true => u64::MAX,
                    false => reset.max(now.saturating_add(window)),
                };
                self.told_until.fetch_max(until, AcqRel);
            } else if self.told_until.load(Acquire) > 0 {
                self.told_until.store(0, Release);
            }
        }
        let (Some(remaining), Some(allowed)) = (told.remaining, self.allowed(quota, now)) else {
            return;
        };
        let left = allowed.saturating_sub(self.window.used());
        let lost = left.saturating_sub(quota.grains(remaining));
        if lost > 0 {
            self.window
                .force_until(lost, quota.slot(reset).saturating_add(1));
        }
    }
}

impl LocalMeter {
    fn each(&self) -> impl Iterator<Item = (&Ring, &Quota)> {
        self.rings.iter().zip(self.quotas.all())
    }

    fn one(&self, limit: usize) -> Option<(&Ring, &Quota)> {
        Some((self.rings.get(limit)?, self.quotas.all().get(limit)?))
    }

    fn all_fit(&self, need: &[u64], now: u64) -> bool {
        let mut each = self.each().zip(need);
        each.all(|((ring, quota), need)| ring.fits(quota, *need, now))
    }

    /// Gives back what was charged of the first limits when one of the others refuses.
    #[cold]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "else it is in memory from the start"
    )]
    fn undo(&self, charges: Charges) -> bool {
        let mut freed = false;
        for (at, ring) in self.rings.iter().enumerate() {
            let charge = charges.of(at);
            freed |= ring.window.refund(charge.grains, charge.slot);
        }
        freed
    }

    /// Charges all of `need`, or nothing; says then whether something was charged for a moment.
    #[inline]
    fn charge(&self, need: &[u64], now: u64) -> Result<Charges, bool> {
        let spacing = self.quotas.spacing();
        let mut charges = Charges::none();
        for (at, ((ring, quota), need)) in self.each().zip(need).enumerate() {
            let Some(charge) = ring.reserve(quota, *need, now) else {
                return Err(self.undo(charges));
            };
            charges.add(at, charge);
        }
        if spacing > 0 {
            if !self.space(spacing, now) {
                return Err(self.undo(charges));
            }
            // Its place, for the case that it is not sent.
            charges.add(
                self.rings.len(),
                Charge {
                    slot: now,
                    grains: 0,
                },
            );
        }
        Ok(charges)
    }

    /// Gives a place in the sequence back, if it is still the last.
    #[cold]
    fn unspace(&self, spacing: u64, charges: &Charges) -> bool {
        let taken = charges.of(self.rings.len()).slot;
        let next = taken.saturating_add(spacing);
        let given = self.next.compare_exchange(next, taken, AcqRel, Acquire);
        given.is_ok()
    }

    /// Takes the next place in the sequence of requests that are kept apart.
    fn space(&self, spacing: u64, now: u64) -> bool {
        let after = |next: u64| (next <= now).then(|| now.saturating_add(spacing));
        self.next.fetch_update(AcqRel, Acquire, after).is_ok()
    }
}

impl Meter for LocalMeter {
    type Charges = Charges;

    #[inline]
    fn reserve(&self, need: &[u64], now: u64) -> Result<Charges, Obstacle> {
        let spacing = self.quotas.spacing();
        // With more than one, look first: who charges and gives back may get in the way of others.
        if self.rings.len() + usize::from(spacing > 0) > 1
            && (!self.all_fit(need, now) || self.next.load(Acquire) > now)
        {
            return Err(self.fits_at(need, 0, now));
        }
        self.charge(need, now).map_err(|disturbed| Obstacle {
            disturbed,
            ..self.fits_at(need, 0, now)
        })
    }

    #[inline]
    fn settle(
        &self,
        charges: Charges,
        used: impl Fn(&Unit) -> Option<u64>,
        now: impl FnOnce() -> u64,
    ) -> Settled {
        let mut settled = Settled::default();
        let spacing = self.quotas.spacing();
        if spacing > 0 && used(&Unit::Requests) == Some(0) {
            settled.freed = self.unspace(spacing, &charges);
        }
        let mut now = Some(now);
        let mut moment = 0;
        for (at, (ring, quota)) in self.each().enumerate() {
            let Some(used) = used(quota.unit()) else {
                continue;
            };
            let charge = charges.of(at);
            if charge.slot == u64::MAX {
                continue;
            }
            let grains = quota.grains(used);
            if grains <= charge.grains {
                settled.freed |= ring.window.refund(charge.grains - grains, charge.slot);
                continue;
            }
            if let Some(now) = now.take() {
                moment = now();
            }
            let excess = grains - charge.grains;
            ring.window.force(excess, quota.slot(moment));
            settled.excess = settled.excess.saturating_add(quota.amount(excess));
        }
        settled
    }

    fn fits_at(&self, need: &[u64], ahead: u64, now: u64) -> Obstacle {
        let spacing = self.quotas.spacing();
        let next = self.next.load(Acquire);
        let next = next.max(now).saturating_add(spacing.saturating_mul(ahead));
        let mut last = Obstacle::new(Obstructs::Spacing, Some(next));
        for (at, ((ring, quota), need)) in self.each().zip(need).enumerate() {
            let by = Obstructs::Limit(at);
            match ring.fits_at(quota, *need, ahead == 0, now) {
                None => return Obstacle::new(by, None),
                Some(until) => {
                    // A limit is the better answer where both would do.
                    if last.until.is_some_and(|last| until >= last) {
                        last = Obstacle::new(by, Some(until));
                    }
                }
            }
        }
        last
    }

    fn used(&self, limit: usize, now: u64) -> u64 {
        self.one(limit).map_or(0, |(ring, quota)| {
            ring.window.turn(quota.slot(now));
            quota.amount(ring.window.used())
        })
    }

    fn allowed(&self, limit: usize, now: u64) -> Option<u64> {
        let (ring, quota) = self.one(limit)?;
        ring.allowed(quota, now).map(|grains| quota.amount(grains))
    }

    fn learn(&self, limit: usize, told: Told, now: u64) {
        if let Some((ring, quota)) = self.one(limit) {
            ring.learn(quota, told, now);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limit::Limit;

    fn meter(spacing: Duration) -> LocalMeter {
        let quota = |limit| Quota::new(limit).expect("sensible");
        let quotas = vec![quota(Limit::requests(10)), quota(Limit::tokens(100))];
        InMemory.open(&Key::Global, &Arc::new(Quotas::new(quotas, spacing)), 0)
    }

    fn used(meter: &LocalMeter) -> [u64; 2] {
        [meter.used(0, 0), meter.used(1, 0)]
    }

    /// As when somebody else takes the rest between the look and the charge.
    #[test]
    fn what_was_charged_of_the_first_limit_is_given_back_if_the_second_refuses() {
        let one = meter(Duration::ZERO);
        assert!(one.charge(&[1, 60], 0).is_ok());
        assert_eq!(one.charge(&[1, 60], 0).err(), Some(true));
        assert_eq!(used(&one), [1, 60]);
        let spaced = meter(Duration::from_secs(1));
        assert!(spaced.charge(&[1, 10], 0).is_ok());
        assert_eq!(spaced.charge(&[1, 10], 0).err(), Some(true));
        assert_eq!(used(&spaced), [1, 10]);
    }

    #[test]
    fn the_place_of_a_request_that_was_not_sent_is_given_back_unless_one_came_after_it() {
        let one = meter(Duration::from_secs(1));
        let nothing = |_: &Unit| Some(0);
        let take = |now| one.reserve(&[1, 10], now).expect("room");
        let first = take(5);
        assert!(one.reserve(&[1, 10], 6).is_err());
        assert!(one.settle(first, nothing, || 6).freed);
        let second = take(6);
        let sent = take(6 + 1_000_000_000);
        assert!(one.settle(second, nothing, || 7).freed, "its tokens");
        assert!(one.reserve(&[1, 10], 7 + 1_000_000_000).is_err());
        one.settle(sent, |unit| (*unit == Unit::Tokens).then_some(0), || 8);
        assert!(
            one.reserve(&[1, 10], 8 + 1_000_000_000).is_err(),
            "it was sent"
        );
    }

    #[test]
    fn a_look_disturbs_nobody() {
        let one = meter(Duration::ZERO);
        assert!(one.reserve(&[1, 60], 0).is_ok());
        let obstacle = one.reserve(&[1, 60], 0).expect_err("too much");
        assert_eq!(obstacle.by, Obstructs::Limit(1));
        assert!(!obstacle.disturbed);
    }
}
