//! The token bucket of the budget: atomics alone.
//!
//! It stands by itself, so that the model checker can build it without the rest of the crate.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

use Ordering::{AcqRel, Acquire};

/// What one hedge costs; a call earns its share of this.
pub(crate) const HEDGE: u64 = 1_000_000;

#[cfg(not(all(test, loom)))]
type Deposits = donjon_core::Counts<1>;

/// Hedges that are earned by calls. It begins full, and keeps no more than the burst.
///
/// The happy path adds one to a counter. What was earned is the count times the share of each, and
/// `spent` follows behind it; the difference is the balance, which counts only up to the burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    share: u64,
    burst: u64,
    deposits: Deposits,
    spent: AtomicU64,
}

impl Bucket {
    /// `share` is earned by each call, `burst` the most that is kept, both in parts of [`HEDGE`].
    pub(crate) fn new(share: u64, burst: u64) -> Self {
        Self {
            share,
            burst,
            deposits: Deposits::new(),
            spent: AtomicU64::new(0),
        }
    }

    /// A call came.
    #[inline]
    pub(crate) fn deposit(&self) {
        self.deposits.add(0, 1);
    }

    /// How many calls came.
    pub(crate) fn deposits(&self) -> u64 {
        self.deposits.get(0)
    }

    /// Withdraws one hedge, if there is one.
    pub(crate) fn withdraw(&self) -> bool {
        let mut spent = self.spent.load(Acquire);
        loop {
            let earned = self.earned();
            // What was earned beyond the burst is lost.
            let from = spent.max(earned.saturating_sub(self.burst));
            if from.saturating_add(HEDGE) > earned {
                return false;
            }
            match self
                .spent
                .compare_exchange_weak(spent, from + HEDGE, AcqRel, Acquire)
            {
                Ok(_) => return true,
                Err(now) => spent = now,
            }
        }
    }

    /// Gives back a hedge that was withdrawn and never sent.
    pub(crate) fn refund(&self) {
        let _ = self
            .spent
            .fetch_update(AcqRel, Acquire, |spent| Some(spent.saturating_sub(HEDGE)));
    }

    /// How much could be withdrawn now, in parts of [`HEDGE`].
    pub(crate) fn balance(&self) -> u64 {
        let spent = self.spent.load(Acquire);
        self.earned().saturating_sub(spent).min(self.burst)
    }

    fn earned(&self) -> u64 {
        let earned = self.deposits.get(0).saturating_mul(self.share);
        earned.saturating_add(self.burst)
    }
}

/// One counter, which the model checker sees.
#[cfg(all(test, loom))]
#[derive(Debug)]
struct Deposits(AtomicU64);

#[cfg(all(test, loom))]
impl Deposits {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn add(&self, _: usize, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self, _: usize) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever order calls, hedges and refunds come, it is a bucket that begins full, earns
        /// with each call, and holds no more than the burst.
        #[test]
        fn it_is_a_token_bucket(share in 0..HEDGE, burst in 1..5_u64, steps in prop::collection::vec(0..5_u8, 1..400)) {
            let bucket = Bucket::new(share, burst * HEDGE);
            let (mut held, mut out) = (burst * HEDGE, 0_u32);
            for step in steps {
                match step {
                    0..=2 => { bucket.deposit(); held = (held + share).min(burst * HEDGE); }
                    3 => {
                        let may = held >= HEDGE;
                        prop_assert_eq!(bucket.withdraw(), may);
                        if may { held -= HEDGE; out += 1; }
                    }
                    _ if out > 0 => { bucket.refund(); out -= 1; held = (held + HEDGE).min(burst * HEDGE); }
                    _ => {}
                }
                prop_assert_eq!(bucket.balance(), held);
            }
        }
    }
}

/// The interleavings of a few threads, by the model checker:
/// `RUSTFLAGS="--cfg loom" cargo test -p donjon-hedge --lib --release bucket::model`.
#[cfg(all(test, loom))]
mod model {
    use loom::{model::Builder, sync::Arc, thread};

    use super::*;

    /// Runs `work` in two more threads and in this one, and hands the number of hedges that they got to
    /// `check`.
    fn race(make: fn() -> Bucket, work: fn(&Bucket) -> bool, check: fn(&Bucket, u32)) {
        let mut model = Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let bucket = Arc::new(make());
            let spawn = || {
                let bucket = bucket.clone();
                thread::spawn(move || work(&bucket))
            };
            let threads = [spawn(), spawn()];
            let mut hedges = u32::from(work(&bucket));
            for thread in threads {
                hedges += u32::from(thread.join().expect("no panic"));
            }
            check(&bucket, hedges);
        });
    }

    #[test]
    fn the_burst_is_spent_once() {
        race(
            || Bucket::new(0, 2 * HEDGE),
            Bucket::withdraw,
            |bucket, hedges| assert_eq!((hedges, bucket.balance()), (2, 0)),
        );
    }

    #[test]
    fn calls_that_come_meanwhile_earn_for_themselves() {
        let work = |bucket: &Bucket| {
            bucket.deposit();
            bucket.withdraw()
        };
        let make = || {
            let bucket = Bucket::new(HEDGE / 2, HEDGE);
            assert!(bucket.withdraw());
            bucket
        };
        race(make, work, |_, hedges| {
            assert!(hedges <= 1, "three halves make one");
        });
    }

    #[test]
    fn a_refund_loses_nothing() {
        let work = |bucket: &Bucket| {
            let withdrawn = bucket.withdraw();
            if withdrawn {
                bucket.refund();
            }
            withdrawn
        };
        race(
            || Bucket::new(0, HEDGE),
            work,
            |bucket, _| assert_eq!(bucket.balance(), HEDGE),
        );
    }
}
