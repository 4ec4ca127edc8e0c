//! The clients of a pool and the places for them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::stats::{ClientStats, Counters};

/// Looks a client over; false if it is broken.
pub(super) type Check<S> = Arc<dyn Fn(&mut S) -> bool + Send + Sync>;

/// What was asked for.
pub(super) struct Config<S> {
    pub(super) min_warm: usize,
    pub(super) max: usize,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    pub(super) check: Option<Check<S>>,
}

/// What a pool, its checkouts and its clients share.
pub(super) struct Shared<S> {
    pub(super) config: Config<S>,
    pub(super) counters: Counters,
    /// There are fewer than are to be kept warm.
    pub(super) too_few: Notify,
    /// One was made, or could not be.
    pub(super) made: Notify,
    state: Mutex<State<S>>,
}

struct State<S> {
    /// Longest idle first.
    idle: VecDeque<Kept<S>>,
    /// Clients, and those being made.
    total: usize,
    waiting: VecDeque<oneshot::Sender<Slot<S>>>,
    closed: bool,
}

/// A client.
pub(super) struct Kept<S> {
    pub(super) client: S,
    pub(super) made_at: Instant,
    idle_since: Instant,
}

impl<S> Kept<S> {
    pub(super) fn new(client: S) -> Self {
        let now = Instant::now();
        Self {
            client,
            made_at: now,
            idle_since: now,
        }
    }
}

/// One of the places for clients, with the client that has it, or for one to be made. It is given
/// back, or handed on to the first who waits, when it is dropped.
pub(super) struct Slot<S> {
    pub(super) kept: Option<Kept<S>>,
    shared: Arc<Shared<S>>,
    gone: bool,
}

/// What one who wants a client finds.
pub(super) enum Entered<S> {
    Slot(Slot<S>),
    Waits(oneshot::Receiver<Slot<S>>),
}

impl<S> Shared<S> {
    pub(super) fn new(config: Config<S>) -> Self {
        Self {
            config,
            counters: Counters::default(),
            too_few: Notify::new(),
            made: Notify::new(),
            state: Mutex::new(State {
                idle: VecDeque::new(),
                total: 0,
                waiting: VecDeque::new(),
                closed: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that is idle, a place for a new one, or a place in the queue.
    pub(super) fn enter(self: &Arc<Self>) -> Entered<S> {
        let mut state = self.lock();
        // While somebody waits nothing is free: whoever gives back hands it to them.
        if let Some(kept) = state.idle.pop_back() {
            return Entered::Slot(self.slot(Some(kept)));
        }
        if state.total < self.config.max {
            state.total += 1;
            return Entered::Slot(self.slot(None));
        }
        // Now and then, so that it costs next to nothing for each.
        if state.waiting.len().is_power_of_two() {
            state.waiting.retain(|sender| !sender.is_closed());
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Entered::Waits(receiver)
    }

    /// A place for one more that is to be kept warm.
    pub(super) fn too_few(self: &Arc<Self>) -> Option<Slot<S>> {
        let mut state = self.lock();
        if state.closed || state.total >= self.config.min_warm {
            return None;
        }
        state.total += 1;
        Some(self.slot(None))
    }

    /// One could not be made.
    pub(super) fn fail(&self) {
        self.counters.failed.add(1);
        self.made.notify_waiters();
    }

    /// Whether as many are there as are to be kept warm, those not counted that are being made.
    pub(super) fn is_warm(&self) -> bool {
        self.counters.living() >= self.config.min_warm as u64
    }

    fn slot(self: &Arc<Self>, kept: Option<Kept<S>>) -> Slot<S> {
        Slot {
            kept,
            shared: self.clone(),
            gone: false,
        }
    }

    /// Drops what has been idle for too long, as far as more remain than are to be kept warm, and
    /// what is too old; says when to look again.
    pub(super) fn reap(&self) -> Option<Duration> {
        let now = Instant::now();
        let Config {
            min_warm,
            idle_timeout,
            max_age,
            ..
        } = self.config;
        let mut state = self.lock();
        let mut dropped = Vec::new();
        let mut next = [idle_timeout, max_age].into_iter().flatten().min();
        for _ in 0..state.idle.len() {
            let Some(kept) = state.idle.pop_front() else {
                break;
            };
            let age_left = left(kept.made_at, max_age, now);
            let idle_left = left(kept.idle_since, idle_timeout, now);
            if age_left == Some(Duration::ZERO) {
                self.counters.aged.add(1);
                dropped.push(kept);
                state.total -= 1;
            } else if idle_left == Some(Duration::ZERO) && state.total > min_warm {
                self.counters.reaped.add(1);
                dropped.push(kept);
                state.total -= 1;
            } else {
                let until = [age_left, idle_left.filter(|left| !left.is_zero())];
                next = next.into_iter().chain(until.into_iter().flatten()).min();
                state.idle.push_back(kept);
            }
        }
        drop(state);
        // A client is code of others.
        drop(dropped);
        next
    }

    /// Nobody will ask for a client any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        state.total -= idle.len();
        drop(state);
        drop(idle);
    }

    pub(super) fn stats(&self) -> ClientStats {
        let mut state = self.lock();
        state.waiting.retain(|sender| !sender.is_closed());
        let (total, idle, waiting) = (state.total, state.idle.len(), state.waiting.len());
        drop(state);
        self.counters.read(total, idle, waiting)
    }
}

/// How much is left of `of` since `since`.
fn left(since: Instant, of: Option<Duration>, now: Instant) -> Option<Duration> {
    Some(of?.saturating_sub(now.saturating_duration_since(since)))
}

impl<S> Slot<S> {
    /// Whether it has a client that may be used; one that may not is dropped.
    pub(super) fn is_usable(&mut self) -> bool {
        let Some(kept) = &mut self.kept else {
            return false;
        };
        let (config, counters) = (&self.shared.config, &self.shared.counters);
        let now = Instant::now();
        let is_over = |since, of| left(since, of, now) == Some(Duration::ZERO);
        // Those that are kept warm are there to be used, however long that takes.
        let beyond_warm = counters.living() > config.min_warm as u64;
        let counter = if is_over(kept.made_at, config.max_age) {
            &counters.aged
        } else if beyond_warm && is_over(kept.idle_since, config.idle_timeout) {
            &counters.reaped
        } else if let Some(check) = &config.check
            && !check(&mut kept.client)
        {
            &counters.unhealthy
        } else {
            return true;
        };
        counter.add(1);
        self.kept = None;
        false
    }

    pub(super) fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }

    /// Gives it to the first who waits, puts its client among the idle ones, or gives the place up.
    fn give_back(&mut self) {
        let shared = &self.shared;
        let mut kept = self.kept.take();
        if let Some(kept) = &mut kept {
            kept.idle_since = Instant::now();
        }
        loop {
            let mut state = shared.lock();
            let Some(next) = state.waiting.pop_front() else {
                let closed = state.closed;
                match kept.take() {
                    Some(kept) if !closed => state.idle.push_back(kept),
                    gone => {
                        state.total -= 1;
                        let too_few = !closed && state.total < shared.config.min_warm;
                        drop(state);
                        drop(gone);
                        if too_few {
                            shared.too_few.notify_one();
                        }
                    }
                }
                return;
            };
            drop(state);
            // Whoever has left meanwhile hands it back.
            match next.send(shared.slot(kept.take())) {
                Ok(()) => return,
                Err(mut back) => {
                    kept = back.kept.take();
                    back.gone = true;
                }
            }
        }
    }
}

impl<S> Drop for Slot<S> {
    fn drop(&mut self) {
        if !self.gone {
            self.give_back();
        }
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("min_warm", &self.config.min_warm)
            .field("max", &self.config.max)
            .field("idle_timeout", &self.config.idle_timeout)
            .field("max_age", &self.config.max_age)
            .finish_non_exhaustive()
    }
}
