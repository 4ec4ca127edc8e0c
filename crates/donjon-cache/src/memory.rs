//! Entries in memory: bounded by bytes, released when they are good for nothing.

use std::{
    collections::{BTreeMap, HashSet, hash_set},
    fmt,
    hash::BuildHasherDefault,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};
use smallvec::SmallVec;

use crate::{
    entry::{Entry, Moment},
    key::{ByPrefix, CacheKey, Prefix},
};

/// The most that one call releases, so that none pays for all.
const SWEEP: usize = 32;

/// Answers in memory.
///
/// The table is quick_cache's (S3-FIFO, shards, weights). It knows no expiry: a calendar beside it
/// does, which is moved on by whoever comes along.
pub(crate) struct Memory {
    table: Cache<CacheKey, Arc<Entry>, Weigh, BuildHasherDefault<ByPrefix>, Evictions>,
    calendar: Calendar,
}

impl Memory {
    /// Holds up to `max_bytes`, of which no entry takes more than `max_entry_bytes`.
    pub(crate) fn new(max_bytes: u64, max_entry_bytes: u64) -> Self {
        let items = usize::try_from(max_bytes / 4_096).unwrap_or(usize::MAX);
        // Each shard has room for several of the largest.
        let shards = (max_bytes / max_entry_bytes.saturating_mul(8).max(1)).clamp(1, 32);
        let shards = 1 << shards.ilog2();
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items.max(64))
            .weight_capacity(max_bytes)
            .shards(shards)
            .build();
        let options = options.expect("capacity and weight are given, and nothing else can fail");
        Self {
            table: Cache::with_options(options, Weigh, BuildHasherDefault::new(), Evictions),
            calendar: Calendar::default(),
        }
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.table.get(key)
    }

    /// Keeps `entry`, and tells how many others had to go.
    pub(crate) fn insert(&self, key: CacheKey, entry: &Arc<Entry>) -> usize {
        let dead = entry.times.dead();
        let mut gone = self.table.insert_with_lifecycle(key, entry.clone());
        // Out of the shard's lock: an answer may take its time to be dropped. What was replaced is
        // among them; it did not have to go for others, and its place in the calendar is taken.
        let replaced = |(other, old): &(CacheKey, _)| *other == key && !Arc::ptr_eq(old, entry);
        let at = gone.iter().position(replaced);
        let replaced = at.map(|at| gone.swap_remove(at).1);
        self.calendar
            .note(replaced.map(|old| old.times.dead()), dead, key, &gone);
        gone.len()
    }

    /// Takes `entry` out if it is still the one under `key`.
    pub(crate) fn remove_entry(&self, key: &CacheKey, entry: &Arc<Entry>) -> bool {
        self.remove_if(key, |kept| Arc::ptr_eq(kept, entry))
    }

    pub(crate) fn remove(&self, key: &CacheKey) -> bool {
        self.remove_if(key, |_| true)
    }

    fn remove_if(&self, key: &CacheKey, condition: impl FnOnce(&Arc<Entry>) -> bool) -> bool {
        let removed = self.table.remove_if(key, condition);
        self.calendar.forget(removed.as_slice());
        removed.is_some()
    }

    /// Takes out all that `which` picks, and tells how many they were.
    pub(crate) fn remove_all(&self, which: impl Fn(&CacheKey, &Entry) -> bool) -> usize {
        let picked = Mutex::new(Vec::new());
        self.table.retain(|key, entry| {
            let goes = which(key, entry);
            if goes {
                let mut picked = picked.lock().unwrap_or_else(PoisonError::into_inner);
                picked.push((*key, entry.clone()));
            }
            !goes
        });
        let picked = picked.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.calendar.forget(&picked);
        picked.len()
    }

    /// Releases some of what is good for nothing at `now`, and tells how many they were. It costs
    /// one load where there is nothing.
    #[inline]
    pub(crate) fn sweep(&self, now: Moment) -> usize {
        if !self.calendar.is_due(now) {
            return 0;
        }
        self.release(now, SWEEP)
    }

    /// Releases all that is good for nothing at `now`.
    pub(crate) fn sweep_all(&self, now: Moment) -> usize {
        let mut released = 0;
        while self.calendar.is_due(now) {
            released += self.release(now, usize::MAX);
        }
        released
    }

    #[cold]
    fn release(&self, now: Moment, most: usize) -> usize {
        let due = self.calendar.take_due(now, most);
        let dead = |entry: &Arc<Entry>| entry.times.dead() <= now;
        let released = due
            .iter()
            .filter(|key| self.table.remove_if(*key, dead).is_some());
        released.count()
    }

    pub(crate) fn entries(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.table.weight()
    }

    #[cfg(test)]
    fn in_calendar(&self) -> usize {
        let days = self.calendar.lock();
        days.passed.len() + days.seconds.values().map(HashSet::len).sum::<usize>()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("entries", &self.entries())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Weigh;

impl Weighter<CacheKey, Arc<Entry>> for Weigh {
    fn weight(&self, _: &CacheKey, entry: &Arc<Entry>) -> u64 {
        entry.weight
    }
}

/// What is in memory no more.
type Gone = (CacheKey, Arc<Entry>);

/// Collects what is evicted, so that it is dropped outside the lock.
#[derive(Clone)]
struct Evictions;

impl Lifecycle<CacheKey, Arc<Entry>> for Evictions {
    /// One makes room for one, mostly.
    type RequestState = SmallVec<[Gone; 2]>;

    fn begin_request(&self) -> Self::RequestState {
        SmallVec::new()
    }

    fn on_evict(&self, evicted: &mut Self::RequestState, key: CacheKey, entry: Arc<Entry>) {
        evicted.push((key, entry));
    }
}

/// Which entries are good for nothing from when on, by the second. It is a hint: what it names may
/// have been replaced since, and is looked at before it is released.
struct Calendar {
    days: Mutex<Days>,
    /// The second of the first.
    due: AtomicU64,
    sweeping: AtomicUsize,
}

#[derive(Default)]
struct Days {
    seconds: BTreeMap<u64, HashSet<Prefix, BuildHasherDefault<ByPrefix>>>,
    /// What is left of a second that has passed.
    passed: hash_set::IntoIter<Prefix>,
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            days: Mutex::default(),
            due: AtomicU64::new(u64::MAX),
            sweeping: AtomicUsize::new(0),
        }
    }
}

/// The second in which `moment` lies, roughly.
fn second(moment: Moment) -> u64 {
    moment >> 30
}

impl Days {
    fn add(&mut self, dead: Moment, key: CacheKey) {
        let keys = self.seconds.entry(second(dead)).or_default();
        keys.insert(key.prefix());
    }

    fn remove(&mut self, dead: Moment, key: CacheKey) {
        let second = second(dead);
        if let Some(keys) = self.seconds.get_mut(&second) {
            keys.remove(&key.prefix());
            if keys.is_empty() {
                self.seconds.remove(&second);
            }
        }
    }

    fn take_due(&mut self, now: Moment) -> Option<Prefix> {
        loop {
            if let Some(key) = self.passed.next() {
                return Some(key);
            }
            let first = self.seconds.first_entry()?;
            if *first.key() >= second(now) {
                return None;
            }
            self.passed = first.remove().into_iter();
        }
    }

    /// The second of the first.
    fn due(&self) -> u64 {
        if self.passed.len() > 0 {
            return 0;
        }
        let first = self.seconds.first_key_value();
        first.map_or(u64::MAX, |(second, _)| *second)
    }
}

impl Calendar {
    fn lock(&self) -> MutexGuard<'_, Days> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn is_due(&self, now: Moment) -> bool {
        self.due.load(Relaxed) < second(now)
    }

    /// Something is kept under `key`, in the place of something old perhaps, and others had to go.
    fn note(&self, old: Option<Moment>, dead: Moment, key: CacheKey, gone: &[Gone]) {
        let mut days = self.lock();
        if let Some(old) = old {
            days.remove(old, key);
        }
        days.add(dead, key);
        // What was kept may be among them.
        for (key, entry) in gone {
            days.remove(entry.times.dead(), *key);
        }
        self.due.store(days.due(), Relaxed);
    }

    fn forget(&self, gone: &[Gone]) {
        if gone.is_empty() {
            return;
        }
        let mut days = self.lock();
        for (key, entry) in gone {
            days.remove(entry.times.dead(), *key);
        }
        self.due.store(days.due(), Relaxed);
    }

    /// Takes up to `most` keys out whose second has passed.
    fn take_due(&self, now: Moment, most: usize) -> Vec<Prefix> {
        let mut taken = Vec::new();
        // One sweeps at a time; nobody waits for that.
        if self.sweeping.swap(1, Relaxed) == 1 && most != usize::MAX {
            return taken;
        }
        let mut days = self.lock();
        while taken.len() < most
            && let Some(key) = days.take_due(now)
        {
            taken.push(key);
        }
        self.due.store(days.due(), Relaxed);
        self.sweeping.store(0, Relaxed);
        taken
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
