//! A bounded map of the states of keys.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use foldhash::fast::RandomState;
use papaya::{HashMap, ResizeMode};

use crate::key::Key;

/// A state that can tell whether anything would be lost with it.
pub trait Idle {
    /// Whether it limits, holds or remembers nothing any more, so that a fresh one would do.
    fn is_idle(&self) -> bool;

    /// Whether it limits nobody at the moment, so that it may be forgotten where the map is full of
    /// states of which none is idle; default only if it is idle.
    fn may_be_forgotten(&self) -> bool {
        self.is_idle()
    }
}

/// The states of keys: bounded, without a lock for keys that are known.
///
/// While there is room enough no key is forgotten: to make its state anew takes longer than to find it.
/// Once seven eighths are taken, two of the oldest are looked at whenever a new key comes, and
/// forgotten if they are idle and were not asked for since they were last looked at; so sweeping
/// costs O(1) for each new key, and a key that still limits something is never forgotten. Where the map is full, one that
/// [may be forgotten](Idle::may_be_forgotten) goes if no idle one is found; when it is full of keys that
/// may not, new ones are refused with [`Full`].
pub struct Keyed<V> {
    entries: HashMap<Key, Entry<V>, RandomState>,
    order: Mutex<VecDeque<Key>>,
    capacity: usize,
    evicted: AtomicU64,
}

struct Entry<V> {
    value: Arc<V>,
    /// Asked for since it was last looked at.
    asked: AtomicBool,
    /// Being forgotten.
    gone: AtomicBool,
}

impl<V> Entry<V> {
    /// The value, unless it is being forgotten. Either the clone is counted before the one who
    /// forgets looks at the count, or his mark is seen here.
    fn take(&self) -> Option<Arc<V>> {
        let value = self.value.clone();
        fence(SeqCst);
        (!self.gone.load(SeqCst)).then_some(value)
    }
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
/// How many of those are looked at for one that is idle, before one that only may be forgotten goes.
const BETTER: usize = 16;

impl<V: Idle> Keyed<V> {
    /// Keeps at most `capacity` keys; at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            // A table that grows is copied as a whole by those who bring new keys: bit by bit, whoever
            // only asks would have to look into the old and the new one for as long as no key comes.
            entries: HashMap::builder()
                .hasher(RandomState::default())
                .resize_mode(ResizeMode::Blocking)
                .build(),
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
        match self.take(key) {
            Some(value) => Ok(value),
            // Made before the lock is taken: it is the caller's code.
            None => self.insert(key, Arc::new(make())),
        }
    }

    /// The state of `key`, if it is known.
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        let entries = self.entries.pin();
        if let Some(value) = entries.get(key)?.take() {
            return Some(value);
        }
        // Somebody looks whether it may be forgotten, and most often it may not. Whoever looks holds
        // the lock, so under it the answer is final.
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key)?.take()
    }

    fn take(&self, key: &Key) -> Option<Arc<V>> {
        let entries = self.entries.pin();
        let entry = entries.get(key)?;
        if !entry.asked.load(Relaxed) {
            entry.asked.store(true, Relaxed);
        }
        entry.take()
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

    fn insert(&self, key: &Key, value: Arc<V>) -> Result<Arc<V>, Full> {
        // Only new keys come here; the lock makes the bound exact.
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.take(key) {
            return Ok(known);
        }
        self.sweep(&mut order);
        if order.len() >= self.capacity {
            return Err(Full);
        }
        let entry = Entry {
            value: value.clone(),
            asked: AtomicBool::new(true),
            gone: AtomicBool::new(false),
        };
        self.entries.pin().insert(key.clone(), entry);
        order.push_back(key.clone());
        Ok(value)
    }

    /// Looks at two of the oldest keys once little room is left; where the map is full, at more of
    /// them until there is room. Keys that were asked for since they were last looked at are kept,
    /// unless all were.
    fn sweep(&self, order: &mut VecDeque<Key>) {
        if order.len() < self.capacity - self.capacity / 8 {
            return;
        }
        // No key is looked at twice.
        for looks in 0..SEARCH.min(order.len()) {
            let full = order.len() >= self.capacity;
            if looks >= 2 && !full {
                return;
            }
            // One that is idle is better, and where few are, the next best must do.
            let need = if full && looks >= BETTER {
                Need::Room
            } else {
                Need::None
            };
            let Some(oldest) = order.pop_front() else {
                return;
            };
            if !self.forget(&oldest, need, false) {
                order.push_back(oldest);
            }
        }
        for need in [Need::None, Need::Room] {
            if order.len() < self.capacity {
                return;
            }
            let mut all = order.iter().take(SEARCH);
            if let Some(at) = all.position(|key| self.forget(key, need, true)) {
                order.remove(at);
            }
        }
    }

    /// Forgets a key that is held by nobody and is idle, or may be forgotten where there is need;
    /// unless it was asked for since the last look, and that counts.
    fn forget(&self, key: &Key, need: Need, though_asked: bool) -> bool {
        let entries = self.entries.pin();
        let Some(entry) = entries.get(key) else {
            return true;
        };
        if entry.asked.swap(false, Relaxed) && !though_asked {
            return false;
        }
        let value = &entry.value;
        // One that is held is not marked even for a moment, so that it is found without the lock.
        if Arc::strong_count(value) > 1 {
            return false;
        }
        entry.gone.store(true, SeqCst);
        fence(SeqCst);
        let may = Arc::strong_count(value) == 1
            && match need {
                Need::None => value.is_idle(),
                Need::Room => value.may_be_forgotten(),
            };
        if may {
            entries.remove(key);
            self.evicted.fetch_add(1, Relaxed);
        } else {
            entry.gone.store(false, SeqCst);
        }
        may
    }
}

/// How much there is need for a key to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Only if it is idle.
    None,
    /// Also if it is not, but may be forgotten.
    Room,
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
    fn while_there_is_room_nothing_is_forgotten() {
        let keyed = Keyed::new(80);
        let idle = || State(AtomicBool::new(true));
        for _ in 0..10 {
            for n in 0..70 {
                keyed.get_or_make(&key(n), idle).expect("there is room");
            }
        }
        assert_eq!((keyed.len(), keyed.evicted()), (70, 0));
        for n in 70..100 {
            keyed
                .get_or_make(&key(n), idle)
                .expect("idle ones give way");
        }
        assert!(keyed.len() <= 80 && keyed.evicted() >= 20);
    }

    #[test]
    fn idle_keys_give_way_even_if_all_were_asked_for() {
        let keyed = Keyed::new(200);
        let idle = || State(AtomicBool::new(true));
        for n in 0..200 {
            keyed.get_or_make(&key(n), idle).expect("there is room");
            for known in 0..=n {
                keyed.get_or_make(&key(known), idle).expect("it is known");
            }
        }
        assert_eq!(
            keyed.len(),
            200,
            "nothing that is asked for is forgotten while there is room"
        );
        keyed
            .get_or_make(&key(200), idle)
            .expect("one of them gives way");
        assert_eq!(keyed.len(), 200);
    }

    #[test]
    fn a_state_is_never_forgotten_while_it_is_being_taken() {
        struct Count(AtomicU64);
        impl Idle for Count {
            fn is_idle(&self) -> bool {
                self.0.load(SeqCst) == 0
            }
        }
        let keyed = Keyed::new(4);
        let fresh = || Count(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let keyed = &keyed;
                scope.spawn(move || {
                    for n in 0..20_000 {
                        let _ = keyed.get_or_make(&key(1 + 2 * n + worker), fresh);
                    }
                });
            }
            for _ in 0..20_000 {
                if let Ok(state) = keyed.get_or_make(&key(0), fresh) {
                    state.0.fetch_add(1, SeqCst);
                    let known = keyed.get(&key(0)).expect("it limits");
                    assert!(Arc::ptr_eq(&known, &state));
                    state.0.fetch_sub(1, SeqCst);
                }
            }
        });
    }

    #[test]
    fn what_may_be_forgotten_gives_way_where_nothing_is_idle() {
        /// Never idle; odd ones may be forgotten.
        struct Used(usize);
        impl Idle for Used {
            fn is_idle(&self) -> bool {
                false
            }
            fn may_be_forgotten(&self) -> bool {
                self.0 % 2 == 1
            }
        }
        let keyed = Keyed::new(64);
        for n in 0..64 {
            assert!(keyed.get_or_make(&key(n), || Used(n)).is_ok());
        }
        for n in (65..2_000).step_by(2) {
            assert!(keyed.get_or_make(&key(n), || Used(n)).is_ok());
            assert_eq!(keyed.len(), 64);
        }
        assert!((0..64).step_by(2).all(|n| keyed.get(&key(n)).is_some()));
    }

    /// One that is just being looked at, and stays, is known all the while.
    #[test]
    fn a_state_that_is_being_looked_at_is_not_unknown() {
        use std::sync::mpsc::{Receiver, Sender, channel};
        struct Slow {
            looking: Sender<()>,
            go_on: Mutex<Receiver<()>>,
        }
        impl Idle for Slow {
            fn is_idle(&self) -> bool {
                self.looking.send(()).expect("somebody hears");
                self.go_on.lock().expect("no panic").recv().is_err()
            }
        }
        let keyed = Keyed::new(1);
        let (looking, looks) = channel();
        let (go, go_on) = channel();
        let slow = Slow {
            looking: looking.clone(),
            go_on: Mutex::new(go_on),
        };
        keyed.get_or_make(&key(0), || slow).expect("there is room");
        // The second look does not mind that it was asked for.
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| {
                let (_, never) = channel();
                let other = Slow {
                    looking,
                    go_on: Mutex::new(never),
                };
                keyed.get_or_make(&key(1), || other).is_err()
            });
            looks.recv().expect("it is looked at");
            let known = scope.spawn(|| keyed.get(&key(0)).is_some());
            for _ in 0..4 {
                let _ = go.send(());
            }
            assert!(known.join().expect("no panic"), "it stays");
            assert!(asks.join().expect("no panic"), "there is no room");
        });
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
