//! The token bucket of a retry budget: atomics alone, with time passed in.
//!
//! It stands by itself, so that the model checker can build it without the rest of the crate.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

use Ordering::{AcqRel, Acquire};

/// What one retry costs; a request earns its share of this. Fine enough that no ratio worth having
/// is lost to rounding.
pub(crate) const RETRY: u64 = 1_000_000;

#[cfg(not(all(test, loom)))]
type Deposits = donjon_core::Counts<1>;

/// Retries that are earned by requests, and a reserve in each window of time.
///
/// The happy path adds one to a counter. All else is worked out when a retry is withdrawn: what was
/// earned is the count times the share of each, and `spent` follows behind it. The difference is
/// the balance, which counts only up to the burst.
///
/// The reserve lets the first retries of each window pass though nothing was earned for them. They
/// are spent all the same: the debt is paid by what the window's requests earn, and what is left of
/// it is forgiven when the next window begins. So a window has the larger of both, not their sum.
#[derive(Debug)]
pub(crate) struct Bucket {
    share: u64,
    burst: u64,
    reserve: u32,
    deposits: Deposits,
    spent: AtomicU64,
    /// The current window, and how many retries were let through in it.
    window: AtomicU64,
}

impl Bucket {
    /// `share` is earned by each request, `burst` the most that is kept, both in parts of
    /// [`RETRY`]; `reserve` is how many retries may pass in each window though nothing was earned.
    pub(crate) fn new(share: u64, burst: u64, reserve: u32) -> Self {
        Self {
            share,
            burst,
            reserve,
            deposits: Deposits::new(),
            spent: AtomicU64::new(0),
            window: AtomicU64::new(0),
        }
    }

    /// A request came.
    pub(crate) fn deposit(&self) {
        self.deposits.add(0, 1);
    }

    /// Withdraws one retry in the window of this number; `None` if there is none.
    pub(crate) fn withdraw(&self, window: u32) -> Option<Withdrawal> {
        self.roll(window);
        let mut spent = self.spent.load(Acquire);
        loop {
            let earned = self.earned();
            // What was earned beyond the burst is lost.
            let from = spent.max(earned.saturating_sub(self.burst));
            if from.saturating_add(RETRY) > earned {
                return self.borrow();
            }
            match self
                .spent
                .compare_exchange_weak(spent, from + RETRY, AcqRel, Acquire)
            {
                Ok(_) => {
                    let window = number(self.window.fetch_add(1, AcqRel));
                    let borrowed = false;
                    return Some(Withdrawal { window, borrowed });
                }
                Err(now) => spent = now,
            }
        }
    }

    /// Gives back a retry that was withdrawn and not made: its place among those of its window, if
    /// that is still current, and what it cost. What was borrowed in an earlier window is not owed
    /// any more.
    pub(crate) fn refund(&self, withdrawal: Withdrawal) {
        let is_current = self
            .window
            .fetch_update(AcqRel, Acquire, |window| {
                (number(window) == withdrawal.window && passed(window) > 0).then(|| window - 1)
            })
            .is_ok();
        if is_current || !withdrawal.borrowed {
            let _ = self
                .spent
                .fetch_update(AcqRel, Acquire, |spent| Some(spent.saturating_sub(RETRY)));
        }
    }

    /// How much could be withdrawn now without the reserve, in parts of [`RETRY`].
    pub(crate) fn balance(&self) -> u64 {
        let spent = self.spent.load(Acquire);
        self.earned().saturating_sub(spent).min(self.burst)
    }

    fn earned(&self) -> u64 {
        self.deposits.get(0).saturating_mul(self.share)
    }

    /// Begins the window if it is a new one; whoever begins it forgives what is owed.
    fn roll(&self, window: u32) {
        // A retry that comes or goes meanwhile must not keep it in the old one.
        let began = self.window.fetch_update(AcqRel, Acquire, |seen| {
            (number(seen) < window).then(|| begin(window))
        });
        if began.is_ok() {
            let earned = self.earned();
            let _ = self
                .spent
                .fetch_update(AcqRel, Acquire, |spent| Some(spent.min(earned)));
        }
    }

    /// Takes a retry from the reserve.
    fn borrow(&self) -> Option<Withdrawal> {
        let took = self.window.fetch_update(AcqRel, Acquire, |window| {
            (passed(window) < self.reserve).then(|| window + 1)
        });
        let window = number(took.ok()?);
        self.spent.fetch_add(RETRY, AcqRel);
        let borrowed = true;
        Some(Withdrawal { window, borrowed })
    }
}

/// Where a retry was taken from, to give it back there if it is not made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Withdrawal {
    window: u32,
    borrowed: bool,
}

/// The number of the window is the upper half.
const fn begin(number: u32) -> u64 {
    (number as u64) << 32
}

const fn number(window: u64) -> u32 {
    (window >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn passed(window: u64) -> u32 {
    window as u32
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

/// The interleavings of a few threads, by the model checker:
/// `RUSTFLAGS="--cfg loom" cargo test -p donjon-retry --lib --release bucket::model`.
#[cfg(all(test, loom))]
mod model {
    use loom::{model::Builder, sync::Arc, thread};

    use super::*;

    /// Runs `work` in two more threads and in this one, in every order with up to three
    /// preemptions, and hands the number of retries that they got to `check`.
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
            let mut retries = u32::from(work(&bucket));
            for thread in threads {
                retries += u32::from(thread.join().expect("no panic"));
            }
            check(&bucket, retries);
        });
    }

    #[test]
    fn what_was_earned_is_spent_once() {
        let make = || {
            let bucket = Bucket::new(RETRY, 10 * RETRY, 0);
            bucket.deposit();
            bucket.deposit();
            bucket
        };
        race(
            make,
            |bucket| bucket.withdraw(0).is_some(),
            |bucket, retries| {
                assert_eq!(retries, 2);
                assert_eq!(bucket.balance(), 0);
            },
        );
    }

    #[test]
    fn requests_that_come_meanwhile_earn_for_themselves() {
        let work = |bucket: &Bucket| {
            bucket.deposit();
            bucket.withdraw(0).is_some()
        };
        race(
            || Bucket::new(RETRY / 2, 10 * RETRY, 0),
            work,
            |_, retries| assert!(retries <= 1, "three halves make one"),
        );
    }

    #[test]
    fn the_reserve_of_a_new_window_is_given_out_once() {
        race(
            || Bucket::new(0, 0, 1),
            |bucket| bucket.withdraw(1).is_some(),
            |_, retries| assert_eq!(retries, 1),
        );
    }

    #[test]
    fn a_refund_loses_nothing() {
        let make = || {
            let bucket = Bucket::new(RETRY, 10 * RETRY, 0);
            bucket.deposit();
            bucket
        };
        race(make, leave, |bucket, _| assert_eq!(bucket.balance(), RETRY));
    }

    #[test]
    fn a_refund_of_the_reserve_loses_nothing() {
        race(
            || Bucket::new(0, 0, 1),
            leave,
            |bucket, _| {
                assert!(bucket.withdraw(0).is_some(), "its place is free again");
                assert!(bucket.withdraw(0).is_none(), "and is one");
            },
        );
    }

    /// Nobody gets more than one while another one gives back, and the next window has its own.
    #[test]
    fn a_refund_adds_nothing_to_the_next_window() {
        let make = || {
            let bucket = Bucket::new(0, 0, 1);
            let borrowed = bucket.withdraw(0).expect("the reserve");
            (bucket, borrowed)
        };
        let mut model = Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let (bucket, borrowed) = make();
            let bucket = Arc::new(bucket);
            let gives = {
                let bucket = bucket.clone();
                thread::spawn(move || bucket.refund(borrowed))
            };
            let asks = {
                let bucket = bucket.clone();
                thread::spawn(move || u32::from(bucket.withdraw(1).is_some()))
            };
            let mut retries = u32::from(bucket.withdraw(1).is_some());
            gives.join().expect("no panic");
            retries += asks.join().expect("no panic");
            retries += u32::from(bucket.withdraw(1).is_some());
            assert_eq!(retries, 1);
        });
    }

    /// Withdraws a retry and does not make it.
    fn leave(bucket: &Bucket) -> bool {
        let withdrawn = bucket.withdraw(0);
        if let Some(withdrawal) = withdrawn {
            bucket.refund(withdrawal);
        }
        withdrawn.is_some()
    }
}
