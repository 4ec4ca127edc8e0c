//! A bounded map of the states of keys.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use papaya::{HashMap, Operation as Step};

use crate::key::Key;

/// A state that can tell whether anything would be lost with it.
pub trait Idle {
    /// Whether it limits, holds or remembers nothing any more, so that a fresh one would do.
    fn is_idle(&self) -> bool;
}

/// The states of keys: bounded, without a lock for keys that are known.
///
/// Whenever a new key comes, two of the oldest are looked at, and forgotten if they are idle and
/// were not asked for since they were last looked at; so sweeping costs O(1) for each new key, and
/// a key that still limits something is never forgotten. When the map is full of such keys, new
/// ones are refused with [`Full`].
pub struct Keyed<V> {
    entries: HashMap<Key, Arc<Entry<V>>>,
    order: Mutex<VecDeque<Key>>,
    capacity: usize,
    evicted: AtomicU64,
}

struct Entry<V> {
    value: Arc<V>,
    asked: AtomicBool,
}

/// The map is full of keys that cannot be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every key that may be kept apart is in use")
    }
}

impl std::error::Error for Full {}

/// How many of the oldest keys are looked at when a new one finds the map full, before it is
/// refused.
const SEARCH: usize = 64;

impl<V: Idle> Keyed<V> {
    /// Keeps at most `capacity` keys; at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: Mutex::default(),
            capacity: capacity.max(1),
            evicted: AtomicU64::new(0),
        }
    }

    /// The state of `key`, made by `make` if the key is new.
    ///
    /// # Errors
    ///
    /// [`Full`], if the key is new and no other can be forgotten for it.
    pub fn get_or_make(&self, key: &Key, make: impl FnOnce() -> V) -> Result<Arc<V>, Full> {
        if let Some(entry) = self.entries.pin().get(key) {
            if !entry.asked.load(Relaxed) {
                entry.asked.store(true, Relaxed);
            }
            return Ok(entry.value.clone());
        }
        self.make(key, make)
    }

    /// The state of `key`, if it is known.
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.entries.pin().get(key).map(|entry| entry.value.clone())
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys were forgotten so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Calls `each` for every key and its state.
    pub fn for_each(&self, mut each: impl FnMut(&Key, &V)) {
        for (key, entry) in &self.entries.pin() {
            each(key, &entry.value);
        }
    }

    fn make(&self, key: &Key, make: impl FnOnce() -> V) -> Result<Arc<V>, Full> {
        // Only new keys come here; the lock makes the bound exact.
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.pin();
        if let Some(entry) = entries.get(key) {
            return Ok(entry.value.clone());
        }
        let mut looks = if order.len() < self.capacity {
            2
        } else {
            SEARCH
        };
        while looks > 0 && self.look_at_oldest(&mut order) {
            looks -= 1;
            if order.len() < self.capacity && looks > 2 {
                looks = 1;
            }
        }
        if order.len() >= self.capacity {
            return Err(Full);
        }
        let value = Arc::new(make());
        entries.insert(
            key.clone(),
            Arc::new(Entry {
                value: value.clone(),
                asked: AtomicBool::new(true),
            }),
        );
        order.push_back(key.clone());
        Ok(value)
    }

    /// Forgets the oldest key if it may be, else makes it the youngest; false if there is none.
    fn look_at_oldest(&self, order: &mut VecDeque<Key>) -> bool {
        let Some(oldest) = order.pop_front() else {
            return false;
        };
        let entries = self.entries.pin();
        let forgotten = entries.compute(oldest.clone(), |known| match known {
            // Held by a call in flight, or asked for since: it stays.
            Some((_, entry))
                if entry.asked.swap(false, Relaxed)
                    || Arc::strong_count(&entry.value) > 1
                    || !entry.value.is_idle() =>
            {
                Step::Abort(())
            }
            Some(_) => Step::Remove,
            None => Step::Abort(()),
        });
        if matches!(forgotten, papaya::Compute::Removed(..)) {
            self.evicted.fetch_add(1, Relaxed);
        } else {
            order.push_back(oldest);
        }
        true
    }
}

impl<V> fmt::Debug for Keyed<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("len", &self.entries.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct State(AtomicBool);

    impl Idle for State {
        fn is_idle(&self) -> bool {
            self.0.load(Relaxed)
        }
    }

    fn key(n: usize) -> Key {
        Key::name(n.to_string())
    }

    #[test]
    fn it_stays_bounded_and_keeps_what_limits() {
        let keyed = Keyed::new(100);
        let busy = |n| State(AtomicBool::new(n != 7));
        for n in 0..10_000 {
            keyed
                .get_or_make(&key(n), || busy(n))
                .expect("idle ones give way");
            assert!(keyed.len() <= 100);
        }
        assert!(keyed.get(&key(7)).is_some(), "it still limits");
        assert!(keyed.evicted() >= 9_900);
    }

    #[test]
    fn full_of_limiting_keys_it_refuses_new_ones() {
        let keyed = Keyed::new(3);
        for n in 0..3 {
            assert!(
                keyed
                    .get_or_make(&key(n), || State(AtomicBool::new(false)))
                    .is_ok()
            );
        }
        let refused = keyed.get_or_make(&key(3), || State(AtomicBool::new(false)));
        assert_eq!(refused.err(), Some(Full));
        assert!(
            keyed
                .get_or_make(&key(0), || State(AtomicBool::new(false)))
                .is_ok()
        );
    }

    #[test]
    fn a_state_in_use_is_not_forgotten() {
        let keyed = Keyed::new(2);
        let held = keyed
            .get_or_make(&key(0), || State(AtomicBool::new(true)))
            .expect("room");
        for n in 1..50 {
            let _ = keyed.get_or_make(&key(n), || State(AtomicBool::new(true)));
        }
        let again = keyed
            .get_or_make(&key(0), || State(AtomicBool::new(true)))
            .expect("known");
        assert!(Arc::ptr_eq(&held, &again));
    }
}
