//! The calls of one state that records.

use std::time::Duration;

use super::{Change, Verdict, nanos};
use crate::{
    policy::{Exceeded, Rules},
    sync::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    window::Calls,
};

/// What is known of the calls of one state that records.
#[derive(Debug)]
pub(super) struct Period {
    pub(super) calls: Calls,
    /// How many failed one after the other at last.
    pub(super) streak: AtomicU32,
    /// When the last call was recorded, where that matters.
    pub(super) last: AtomicU64,
    pub(super) told_failures: AtomicBool,
    pub(super) told_slow: AtomicBool,
}

impl Period {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            calls: Calls::new(rules.window),
            streak: AtomicU32::new(0),
            last: AtomicU64::new(0),
            told_failures: AtomicBool::new(false),
            told_slow: AtomicBool::new(false),
        }
    }

    pub(super) fn clear(&self) {
        self.calls.clear();
        self.streak.store(0, Relaxed);
        self.last.store(0, Relaxed);
        self.told_failures.store(false, Relaxed);
        self.told_slow.store(false, Relaxed);
    }

    /// Forgets what is there if nothing was recorded for so long.
    pub(super) fn forget(&self, after: Duration, now: u64) {
        let last = self.last.load(Acquire);
        // 0 stands for never.
        let now = now.max(1);
        if last == 0 || now.saturating_sub(last) <= nanos(after) {
            self.last.fetch_max(now, AcqRel);
            return;
        }
        // One of those who come first forgets.
        if self
            .last
            .compare_exchange(last, now, AcqRel, Acquire)
            .is_ok()
        {
            self.calls.clear();
            self.streak.store(0, Relaxed);
        }
    }

    /// Tells that a threshold was reached, the first time that it is.
    pub(super) fn tell_once(
        told: &AtomicBool,
        exceeds: impl FnOnce() -> Option<Exceeded>,
        tell: impl Fn(Change),
    ) {
        if !told.load(Acquire)
            && let Some(exceeded) = exceeds()
            && !told.swap(true, AcqRel)
        {
            tell(Change::Exceeded(exceeded));
        }
    }

    /// The latest failures in a row, after this call.
    pub(super) fn streak(&self, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Counts(mark) if mark.failed() => self.streak.fetch_add(1, AcqRel) + 1,
            Verdict::Counts(_) => {
                if self.streak.load(Acquire) != 0 {
                    self.streak.store(0, Relaxed);
                }
                0
            }
            Verdict::Superseded | Verdict::Nothing => self.streak.load(Acquire),
        }
    }
}
