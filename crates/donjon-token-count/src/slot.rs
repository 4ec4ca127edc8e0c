//! A place that remembers one number, read without waiting.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// A key of 128 bits and what is remembered under it. Whoever reads while it is written finds
/// nothing; whoever writes while it is written gives up. Nobody waits.
pub(crate) struct Slot {
    /// Odd while it is written; zero: never written.
    version: AtomicU64,
    key: [AtomicU64; 2],
    value: AtomicU64,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            key: [AtomicU64::new(0), AtomicU64::new(0)],
            value: AtomicU64::new(0),
        }
    }

    /// What is remembered, if it is under `key`.
    #[inline]
    pub(crate) fn get(&self, key: [u64; 2]) -> Option<u64> {
        let before = self.version.load(Acquire);
        if before & 1 == 1 || before == 0 {
            return None;
        }
        let found = [self.key[0].load(Relaxed), self.key[1].load(Relaxed)];
        let value = self.value.load(Relaxed);
        // What was read is of one writing, if no other began meanwhile.
        fence(Acquire);
        (found == key && self.version.load(Relaxed) == before).then_some(value)
    }

    /// Whether it never remembered anything.
    pub(crate) fn is_free(&self) -> bool {
        self.version.load(Relaxed) == 0
    }

    /// Remembers `value` under `key` instead of what it remembered; false if somebody else writes.
    pub(crate) fn set(&self, key: [u64; 2], value: u64) -> bool {
        let before = self.version.load(Relaxed);
        if before & 1 == 1 {
            return false;
        }
        let begun = self
            .version
            .compare_exchange(before, before + 1, Acquire, Relaxed);
        if begun.is_err() {
            return false;
        }
        // Whoever sees any of the following sees that a writing has begun.
        fence(Release);
        self.key[0].store(key[0], Relaxed);
        self.key[1].store(key[1], Relaxed);
        self.value.store(value, Relaxed);
        self.version.store(before + 2, Release);
        true
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p donjon-token-count --lib --release model`
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::{sync::Arc, thread};

    /// A key and the only value that belongs to it.
    fn pair(n: u64) -> ([u64; 2], u64) {
        ([n, n + 10], n + 100)
    }

    #[test]
    fn a_value_is_found_under_its_own_key_alone() {
        loom::model(|| {
            let slot = Arc::new(Slot::new());
            let (key, value) = pair(1);
            assert!(slot.set(key, value), "nobody else writes");
            let writer = {
                let slot = slot.clone();
                thread::spawn(move || {
                    let (key, value) = pair(2);
                    assert!(slot.set(key, value), "nobody else writes");
                })
            };
            assert!(slot.get(key).is_none_or(|found| found == value));
            let (key, value) = pair(2);
            assert!(slot.get(key).is_none_or(|found| found == value));
            writer.join().expect("no panic");
            assert_eq!(slot.get(key), Some(value));
        });
    }

    #[test]
    fn of_two_who_write_one_writes_all() {
        loom::model(|| {
            let slot = Arc::new(Slot::new());
            let writers = [1, 2].map(|n| {
                let slot = slot.clone();
                thread::spawn(move || {
                    let (key, value) = pair(n);
                    slot.set(key, value)
                })
            });
            let wrote = writers.map(|writer| writer.join().expect("no panic"));
            assert!(wrote[0] || wrote[1], "one of them writes");
            let left = [1, 2].map(|n| (slot.get(pair(n).0), pair(n).1));
            let left = left.map(|(found, value)| found.map(|found| found == value));
            assert!(
                matches!(left, [Some(true), None] | [None, Some(true)]),
                "{left:?}"
            );
        });
    }
}
