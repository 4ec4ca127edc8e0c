//! The memory against a map that forgets nothing by itself.

use std::{collections::HashMap, sync::Arc};

use donjon_core::{ChatCompletion, Head, Identity};
use proptest::prelude::*;

use super::Memory;
use crate::{
    entry::{Entry, Kept, Moment, Times},
    key::CacheKey,
};

const SECOND: Moment = 1 << 30;
const MAX: u64 = 64 << 10;
const MAX_ENTRY: u64 = 8 << 10;

fn key(n: u8) -> CacheKey {
    let mut bytes = [0; 32];
    // Spread over the shards.
    bytes[0] = n.wrapping_mul(151);
    bytes[7] = n;
    bytes.into()
}

fn entry(text: usize, dead: Moment) -> Arc<Entry> {
    let times = Times {
        made: 0,
        fresh: dead,
        stale: dead,
        on_error: dead,
    };
    let kept = Kept::Whole(ChatCompletion::text("m", "w".repeat(text)).into());
    let identity = Arc::new(Identity::default());
    Arc::new(Entry::new(
        Head::new("m"),
        "m".into(),
        identity,
        kept,
        times,
    ))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, usize, Moment),
    Remove(u8),
    RemoveOdd,
    Wait(Moment),
    SweepAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (KEYS, 0..6_000_usize, 1..100 * SECOND).prop_map(|(k, t, d)| Step::Insert(k, t, d)),
        2 => KEYS.prop_map(Step::Remove),
        1 => Just(Step::RemoveOdd),
        2 => (0..20 * SECOND).prop_map(Step::Wait),
        1 => Just(Step::SweepAll),
    ]
}

const KEYS: std::ops::Range<u8> = 0..64;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing is found that was not put there, or was taken out, or replaced; bytes stay within what
    /// they may be, and the calendar names exactly what the table holds.
    #[test]
    fn it_is_a_map_that_may_forget(steps in proptest::collection::vec(step(), 1..200)) {
        let memory = Memory::new(MAX, MAX_ENTRY);
        let mut model: HashMap<u8, Arc<Entry>> = HashMap::new();
        let mut now = SECOND;
        for step in steps {
            match step {
                Step::Insert(n, text, lives) => {
                    let entry = entry(text, now + lives);
                    let held = memory.entries() + usize::from(memory.get(&key(n)).is_none());
                    let evicted = memory.insert(key(n), &entry);
                    prop_assert_eq!(memory.entries(), held - evicted);
                    model.insert(n, entry);
                }
                Step::Remove(n) => {
                    let there = memory.get(&key(n)).is_some();
                    prop_assert_eq!(memory.remove(&key(n)), there);
                    model.remove(&n);
                }
                Step::RemoveOdd => {
                    let held = memory.entries();
                    let gone = memory.remove_all(|key, _| key.as_bytes()[7] % 2 == 1);
                    prop_assert_eq!(memory.entries(), held - gone);
                    model.retain(|n, _| n % 2 == 0);
                }
                Step::Wait(time) => {
                    now += time;
                    memory.sweep(now);
                }
                Step::SweepAll => {
                    memory.sweep_all(now);
                    model.retain(|_, entry| entry.times.dead() >> 30 >= now >> 30);
                }
            }
            prop_assert!(memory.bytes() <= MAX);
            prop_assert_eq!(memory.in_calendar(), memory.entries());
            let mut bytes = 0;
            for n in KEYS {
                if let Some(found) = memory.get(&key(n)) {
                    let expected = model.get(&n);
                    prop_assert!(expected.is_some_and(|put| Arc::ptr_eq(put, &found)), "{n}");
                    bytes += found.weight;
                }
            }
            prop_assert_eq!(memory.bytes(), bytes);
        }
    }
}

#[test]
fn one_call_releases_a_few_and_a_sweep_all() {
    let memory = Memory::new(8 << 20, MAX_ENTRY);
    for n in 0..100 {
        memory.insert(key(n), &entry(10, 10 * SECOND));
    }
    assert_eq!(memory.sweep(10 * SECOND), 0, "their second is not over");
    assert_eq!(memory.sweep(11 * SECOND), super::SWEEP);
    assert_eq!(memory.sweep_all(11 * SECOND), 100 - super::SWEEP);
    assert_eq!(
        (memory.entries(), memory.bytes(), memory.in_calendar()),
        (0, 0, 0)
    );
}

/// A hint that names what has been renewed since releases nothing.
#[test]
fn what_was_renewed_is_not_released() {
    let memory = Memory::new(MAX, MAX_ENTRY);
    memory.insert(key(1), &entry(10, 10 * SECOND));
    memory.insert(key(1), &entry(10, 20 * SECOND));
    assert_eq!(memory.sweep_all(15 * SECOND), 0);
    assert_eq!((memory.entries(), memory.in_calendar()), (1, 1));
    assert_eq!(memory.sweep_all(21 * SECOND), 1);
}

#[test]
fn only_the_entry_that_is_meant_is_taken_out() {
    let memory = Memory::new(MAX, MAX_ENTRY);
    let (old, new) = (entry(10, SECOND), entry(10, SECOND));
    memory.insert(key(1), &old);
    memory.insert(key(1), &new);
    assert!(!memory.remove_entry(&key(1), &old));
    assert!(memory.remove_entry(&key(1), &new));
    assert_eq!((memory.entries(), memory.in_calendar()), (0, 0));
}
