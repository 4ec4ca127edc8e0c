//! Entries in memory: bounded by bytes, released when they are good for nothing.

use std::{
    collections::BTreeSet,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use crate::{
    entry::{Entry, Moment},
    key::CacheKey,
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
    pub(crate) fn insert(&self, key: CacheKey, entry: Arc<Entry>) -> usize {
        let dead = entry.times.dead();
        let mut gone = self.table.insert_with_lifecycle(key, entry.clone());
        // Out of the shard's lock: an answer may take its time to be dropped. What was replaced is
        // among them; it did not have to go for others, and its place in the calendar is taken.
        let replaced = |(other, old): &(CacheKey, _)| *other == key && !Arc::ptr_eq(old, &entry);
        let at = gone.iter().position(replaced);
        let replaced = at.map(|at| gone.swap_remove(at).1);
        self.calendar
            .replace(replaced.map(|old| old.times.dead()), dead, key);
        for (key, entry) in &gone {
            self.calendar.forget(entry.times.dead(), *key);
        }
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
        if let Some((key, entry)) = &removed {
            self.calendar.forget(entry.times.dead(), *key);
        }
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
        for (key, entry) in &picked {
            self.calendar.forget(entry.times.dead(), *key);
        }
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
        self.calendar.lock().len()
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

/// Collects what is evicted, so that it is dropped outside the lock.
#[derive(Clone)]
struct Evictions;

impl Lifecycle<CacheKey, Arc<Entry>> for Evictions {
    type RequestState = Vec<(CacheKey, Arc<Entry>)>;

    fn begin_request(&self) -> Self::RequestState {
        Vec::new()
    }

    fn on_evict(&self, evicted: &mut Self::RequestState, key: CacheKey, entry: Arc<Entry>) {
        evicted.push((key, entry));
    }
}

/// A key is a hash: its first bytes are as good as any.
#[derive(Default)]
pub(crate) struct ByPrefix(u64);

impl Hasher for ByPrefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Which entries are good for nothing from when on, by the second. It is a hint: what it names may
/// have been replaced since, and is looked at before it is released.
struct Calendar {
    keys: Mutex<BTreeSet<(u64, CacheKey)>>,
    /// The second of the first.
    due: AtomicU64,
    sweeping: AtomicUsize,
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
            due: AtomicU64::new(u64::MAX),
            sweeping: AtomicUsize::new(0),
        }
    }
}

/// The second in which `moment` lies, roughly.
fn second(moment: Moment) -> u64 {
    moment >> 30
}

impl Calendar {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(u64, CacheKey)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, now: Moment) -> bool {
        self.due.load(Relaxed) < second(now)
    }

    fn replace(&self, old: Option<Moment>, dead: Moment, key: CacheKey) {
        let mut keys = self.lock();
        if let Some(old) = old {
            keys.remove(&(second(old), key));
        }
        keys.insert((second(dead), key));
        self.settle(&keys);
    }

    fn forget(&self, dead: Moment, key: CacheKey) {
        let mut keys = self.lock();
        keys.remove(&(second(dead), key));
        self.settle(&keys);
    }

    fn settle(&self, keys: &BTreeSet<(u64, CacheKey)>) {
        let due = keys.first().map_or(u64::MAX, |(second, _)| *second);
        self.due.store(due, Relaxed);
    }

    /// Takes up to `most` keys out whose second has passed.
    fn take_due(&self, now: Moment, most: usize) -> Vec<CacheKey> {
        let mut taken = Vec::new();
        // One sweeps at a time; nobody waits for that.
        if self.sweeping.swap(1, Relaxed) == 1 && most != usize::MAX {
            return taken;
        }
        let mut keys = self.lock();
        while taken.len() < most
            && let Some((due, _)) = keys.first()
            && *due < second(now)
            && let Some((_, key)) = keys.pop_first()
        {
            taken.push(key);
        }
        self.settle(&keys);
        self.sweeping.store(0, Relaxed);
        taken
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
