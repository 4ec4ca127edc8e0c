//! The slots and those who wait for one.
//!
//! While nobody waits a slot is taken and given back by one compare-and-swap. The first who has to
//! wait sets a mark, under the lock of the queue; as long as it stands nobody is admitted past the
//! queue, and whoever gives a slot back does so under the lock and hands it to who is next. So under
//! the lock, with the mark set, the slots change by the holder of the lock alone; and outside of it
//! the mark means that every slot is in use.

use std::{
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::{
    queue::{Place, Queue, Tenant},
    slots::{Slots, Word},
    sync::{Mutex, MutexGuard, lock},
};

/// Slots and a queue for them.
#[derive(Debug)]
pub(crate) struct Line {
    slots: Slots,
    queue: Mutex<Queue<Arc<Seat>>>,
}

/// Who wants a slot.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) priority: u8,
    pub(crate) tenant: Tenant,
    pub(crate) weight: u32,
}

/// What became of one who could not be admitted at once.
#[derive(Debug)]
pub(crate) enum Entered<E> {
    /// A slot has become free meanwhile.
    Admitted(Word),
    /// They wait.
    Waits(Place, Arc<Seat>),
    /// They may not wait.
    Refused(E),
}

/// How many may wait, and who gives way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seats {
    pub(crate) most: usize,
    pub(crate) evict: bool,
}

impl Line {
    pub(crate) fn new(limit: u32, ageing: Duration) -> Self {
        Self {
            slots: Slots::new(limit),
            queue: Mutex::new(Queue::new(ageing)),
        }
    }

    pub(crate) fn read(&self) -> Word {
        self.slots.read()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        if self.read().waits() {
            lock(&self.queue).len()
        } else {
            0
        }
    }

    /// Takes a slot if one is free, or one of up to `extra` beyond the limit, and nobody waits.
    #[inline]
    pub(crate) fn try_take(&self, extra: u32) -> Option<Word> {
        self.slots.try_take(extra)
    }

    /// Takes a slot, or a place in the queue. `refuse` is told how many go before and whether the
    /// queue is full.
    pub(crate) fn enter<E>(
        &self,
        extra: u32,
        guest: Guest,
        now: Duration,
        seats: Seats,
        refuse: impl FnOnce(usize, bool) -> Option<E>,
    ) -> Entered<E> {
        let mut queue = lock(&self.queue);
        if let Some(word) = self.slots.take_or_mark(extra) {
            return Entered::Admitted(word);
        }
        let mut evicted = None;
        let full = queue.len() >= seats.most;
        let ahead = queue.ahead(guest.priority, &guest.tenant);
        let gives_way = full && seats.evict && queue.has_below(guest.priority);
        if let Some(refusal) = refuse(ahead, full && !gives_way) {
            self.unmark_if_empty(&queue);
            return Entered::Refused(refusal);
        }
        if gives_way {
            evicted = queue.evict_below(guest.priority);
        }
        let seat = Arc::new(Seat::default());
        let Guest {
            priority,
            tenant,
            weight,
        } = guest;
        let place = queue.push(priority, tenant, weight, now, seat.clone());
        drop(queue);
        if let Some(evicted) = evicted {
            evicted.tell(Told::Evicted);
        }
        Entered::Waits(place, seat)
    }

    /// Gives a slot back: to who is next, if somebody waits.
    #[inline]
    pub(crate) fn give_back(&self, now: impl FnOnce() -> Duration) {
        if self.slots.try_give_back() {
            return;
        }
        self.hand_on(now());
    }

    #[cold]
    fn hand_on(&self, now: Duration) {
        loop {
            let mut queue = lock(&self.queue);
            // Beyond the limit it goes first.
            if self.slots.give_back_excess() {
                return;
            }
            if let Some(seat) = queue.pop(now) {
                self.unmark_if_empty(&queue);
                let waker = seat.set(Told::Admitted);
                drop(queue);
                wake(waker);
                return;
            }
            // The last who waited has left since the mark was seen.
            drop(queue);
            if self.slots.try_give_back() {
                return;
            }
        }
    }

    /// Sets the limit; the limit before. What is in use stays in use; what is gained goes to as many
    /// of those who wait.
    pub(crate) fn set_limit(&self, limit: u32, now: Duration) -> u32 {
        if let Some(before) = self.slots.try_set_limit(limit) {
            return before;
        }
        let mut queue = lock(&self.queue);
        let before = self.slots.set_limit(limit);
        let mut admitted = Vec::new();
        while !queue.is_empty() && self.slots.take_for_waiter() {
            admitted.extend(queue.pop(now));
        }
        let wakers: Vec<_> = admitted
            .iter()
            .map(|seat| seat.set(Told::Admitted))
            .collect();
        self.unmark_if_empty(&queue);
        drop(queue);
        wakers.into_iter().for_each(wake);
        before
    }

    /// Leaves the queue; false if the place was given up before: the seat says for what.
    pub(crate) fn leave(&self, place: &Place) -> bool {
        let mut queue = lock(&self.queue);
        let seat = queue.remove(place);
        if seat.is_some() {
            self.unmark_if_empty(&queue);
        }
        drop(queue);
        seat.is_some()
    }

    /// How many would go before a new one of the same priority and tenant.
    pub(crate) fn ahead_of(&self, place: &Place) -> usize {
        if self.read().waits() {
            lock(&self.queue).ahead(place.priority(), place.tenant())
        } else {
            0
        }
    }

    fn unmark_if_empty(&self, queue: &MutexGuard<'_, Queue<Arc<Seat>>>) {
        if queue.is_empty() {
            self.slots.unmark();
        }
    }
}

/// Where one who waits hears what became of them.
#[derive(Debug, Default)]
pub(crate) struct Seat(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Told>,
    waker: Option<Waker>,
}

/// What one who waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A slot is theirs.
    Admitted,
    /// They gave way to somebody of a higher priority.
    Evicted,
}

impl Seat {
    /// Waits until something is told.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Told> {
        let mut state = lock(&self.0);
        if let Some(told) = state.told {
            return Poll::Ready(told);
        }
        let old = match &mut state.waker {
            Some(known) if known.will_wake(waker) => None,
            known => known.replace(waker.clone()),
        };
        // A waker is code of others.
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// What was told.
    pub(crate) fn told(&self) -> Option<Told> {
        lock(&self.0).told
    }

    fn tell(&self, told: Told) {
        wake(self.set(told));
    }

    /// The waker is to be woken once no lock is held.
    fn set(&self, told: Told) -> Option<Waker> {
        let mut state = lock(&self.0);
        state.told = Some(told);
        state.waker.take()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(all(test, loom))]
mod model;
