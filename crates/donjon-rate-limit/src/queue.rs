//! Those who wait for their turn at one key: first come, first served.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Waker,
};

use crate::quota::Need;

/// The queue of one key. Only those who wait take its lock; all others look at its length.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Queue {
    len: AtomicUsize,
    /// Made when the first has to wait: few keys ever have a queue.
    line: OnceLock<Box<Mutex<Line>>>,
}

#[derive(Debug, Default)]
struct Line {
    places: VecDeque<Place>,
    /// The ticket of the place that came last.
    last: u64,
    /// Places whose owner has left, other than at the front.
    left: usize,
    /// What all who wait need together.
    need: Need,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    need: Need,
    waker: Option<Waker>,
    left: bool,
}

impl Line {
    /// Drops places that were left, so that whoever waits longest is at the front.
    fn tidy(&mut self) {
        while self.places.front().is_some_and(|place| place.left) {
            self.places.pop_front();
            self.left -= 1;
        }
        if self.left > self.places.len() / 2 {
            self.places.retain(|place| !place.left);
            self.left = 0;
        }
    }

    fn find(&mut self, ticket: u64) -> Option<&mut Place> {
        let by = |place: &Place| place.ticket.cmp(&ticket);
        let at = self.places.binary_search_by(by).ok()?;
        self.places.get_mut(at)
    }

    /// What all who wait need, together with `need`.
    fn with(&self, need: &Need) -> Need {
        let mut all = need.clone();
        for (all, before) in all.iter_mut().zip(&self.need) {
            *all = all.saturating_add(*before);
        }
        all
    }

    fn first_waker(&mut self) -> Option<Waker> {
        self.places.front_mut()?.waker.take()
    }
}

impl Queue {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    /// Takes the last place if fewer than `most` wait; its number, with which it is asked for later.
    /// `look` is shown what all who wait need together, this one included, and how many are before
    /// it, and may refuse.
    pub(crate) fn enter<E>(
        &self,
        need: &Need,
        most: usize,
        full: impl FnOnce(&Need, usize) -> E,
        look: impl FnOnce(&Need, usize) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut line = self.line();
        let before = self.len.load(Relaxed);
        let all = line.with(need);
        if before >= most {
            return Err(full(&all, before));
        }
        look(&all, before)?;
        line.need = all;
        line.last += 1;
        let ticket = line.last;
        line.places.push_back(Place {
            ticket,
            need: need.clone(),
            waker: None,
            left: false,
        });
        self.len.fetch_add(1, SeqCst);
        Ok(ticket)
    }

    /// What all who wait need together with `need`, and how many they are.
    pub(crate) fn behind(&self, need: &Need) -> (Need, usize) {
        match self.len() {
            0 => (need.clone(), 0),
            waiting => (self.line().with(need), waiting),
        }
    }

    /// Whether it is this one's turn; remembers whom to wake when something changes.
    pub(crate) fn is_first(&self, ticket: u64, waker: &Waker) -> bool {
        let mut line = self.line();
        let replaced = line.find(ticket).and_then(|place| match &place.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => place.waker.replace(waker.clone()),
        });
        let first = line.places.front().is_some_and(|p| p.ticket == ticket);
        drop(line);
        drop(replaced);
        first
    }

    /// Gives a place up, and hands over to the next if it was the first.
    pub(crate) fn leave(&self, ticket: u64) {
        let mut line = self.line();
        let was_first = line.places.front().is_some_and(|p| p.ticket == ticket);
        let Some(place) = line.find(ticket).filter(|place| !place.left) else {
            return;
        };
        place.left = true;
        let waker = place.waker.take();
        let need = std::mem::take(&mut place.need);
        for (all, need) in line.need.iter_mut().zip(&need) {
            *all = all.saturating_sub(*need);
        }
        line.left += 1;
        line.tidy();
        self.len.fetch_sub(1, SeqCst);
        let next = was_first.then(|| line.first_waker()).flatten();
        drop(line);
        drop(waker);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Something changed: lets the first look again.
    pub(crate) fn wake_first(&self) {
        if self.len() > 0 {
            let first = self.line().first_waker();
            if let Some(first) = first {
                first.wake();
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        let line = self.line.get_or_init(Box::default);
        line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn enter(queue: &Queue, need: u64) -> u64 {
        let need = Need::from_slice(&[need]);
        let entered = queue.enter(&need, 100, |_, _| (), |_, _| Ok(()));
        entered.expect("room")
    }

    #[test]
    fn only_the_next_is_woken() {
        let queue = Queue::default();
        let wakes: Vec<_> = (0..4).map(|_| Arc::new(Count::default())).collect();
        let tickets: Vec<_> = (0..4).map(|_| enter(&queue, 1)).collect();
        for (at, (wake, ticket)) in wakes.iter().zip(&tickets).enumerate() {
            assert_eq!(queue.is_first(*ticket, &wake.clone().into()), at == 0);
        }
        let woken = || -> Vec<usize> { wakes.iter().map(|wake| wake.0.load(SeqCst)).collect() };
        queue.leave(tickets[1]);
        assert_eq!(woken(), [0; 4], "nobody's turn came");
        queue.leave(tickets[0]);
        assert_eq!(woken(), [0, 0, 1, 0]);
        queue.wake_first();
        assert_eq!(woken(), [0, 0, 1, 0], "it has not looked yet");
        assert!(queue.is_first(tickets[2], &wakes[2].clone().into()));
        queue.wake_first();
        assert_eq!(woken(), [0, 0, 2, 0]);
        assert_eq!(queue.len(), 2);
    }

    /// A future may be polled by another task than before.
    #[test]
    fn the_waker_that_looked_last_is_woken() {
        let queue = Queue::default();
        let ticket = enter(&queue, 1);
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(queue.is_first(ticket, &old.clone().into()));
        assert!(queue.is_first(ticket, &new.clone().into()));
        assert_eq!(Arc::strong_count(&old), 1, "it is forgotten");
        queue.wake_first();
        assert_eq!((old.0.load(SeqCst), new.0.load(SeqCst)), (0, 1));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list(steps in prop::collection::vec((0..3_u8, any::<usize>(), 1..9_u64), 1..300)) {
            let queue = Queue::default();
            let mut list: Vec<(u64, u64)> = Vec::new();
            for (step, which, need) in steps {
                match step {
                    0 | 1 if list.len() < 100 => list.push((enter(&queue, need), need)),
                    _ if !list.is_empty() => {
                        let (ticket, _) = list.remove(which % list.len());
                        queue.leave(ticket);
                        queue.leave(ticket);
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.len(), list.len());
                let line = queue.line();
                let need = line.need.first().copied().unwrap_or(0);
                prop_assert_eq!(need, list.iter().map(|(_, need)| need).sum::<u64>());
                prop_assert!(line.places.len() <= 2 * list.len() + 1);
                drop(line);
                for (at, (ticket, _)) in list.iter().enumerate() {
                    prop_assert_eq!(queue.is_first(*ticket, Waker::noop()), at == 0);
                }
            }
        }
    }
}
