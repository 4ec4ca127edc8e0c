//! The limit on exchanges per host: a fair queue, first come, first served.
//!
//! hyper's pool limits idle connections only, so this stands in front of it. One lock guards all hosts; it is held for a few
//! instructions and not touched at all while no limit is set. A host without an exchange has no entry.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::uri::{Authority, Scheme, Uri};

/// What a limit is kept for: the same pair by which hyper's pool tells hosts apart.
type Host = (Scheme, Authority);

/// The slots of every host.
#[derive(Debug)]
pub(super) struct Slots {
    max: Option<NonZeroUsize>,
    hosts: Mutex<HashMap<Host, Queue>>,
}

/// The slots of one host.
#[derive(Debug, Default)]
struct Queue {
    /// Slots given out, those granted to a waiter that has not come for it yet included.
    in_use: usize,
    /// How many waiters, from the front, were granted a slot. Grants follow the order of arrival, so they are always a prefix.
    granted: usize,
    waiters: VecDeque<Waiter>,
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    /// Rises from front to back, so that a waiter finds itself by binary search.
    id: u64,
    waker: Option<Waker>,
}

/// The answer to a request for a slot.
#[derive(Debug)]
pub(super) enum Admission {
    Admitted(Permit),
    Queued(Wait),
}

/// A slot in use; dropping it hands it to the first waiter.
#[derive(Debug)]
pub(super) struct Permit(Option<(Arc<Slots>, Host)>);

/// A place in the queue; dropping it gives the place up, and the slot with it if one was granted meanwhile.
#[derive(Debug)]
pub(super) struct Wait {
    place: Option<(Arc<Slots>, Host)>,
    id: u64,
}

impl Slots {
    pub(super) fn new(max: Option<NonZeroUsize>) -> Arc<Self> {
        Arc::new(Self {
            max,
            hosts: Mutex::default(),
        })
    }

    /// Takes a slot for the host of `uri`, or a place at the end of its queue.
    ///
    /// A relative URI has no host and needs no slot: the client refuses it before it connects.
    pub(super) fn admit(self: &Arc<Self>, uri: &Uri) -> Admission {
        let Some(max) = self.max else {
            return Admission::Admitted(Permit(None));
        };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Admission::Admitted(Permit(None));
        };
        let host = (scheme.clone(), authority.clone());
        let mut hosts = self.lock();
        let queue = hosts.entry(host.clone()).or_default();
        // Whoever gives a slot back hands it over while anybody waits, so a free slot means an empty queue.
        if queue.in_use < max.get() {
            queue.in_use += 1;
            return Admission::Admitted(Permit(Some((Arc::clone(self), host))));
        }
        let id = queue.next_id;
        queue.next_id += 1;
        queue.waiters.push_back(Waiter { id, waker: None });
        Admission::Queued(Wait {
            place: Some((Arc::clone(self), host)),
            id,
        })
    }

    fn release(&self, host: Host) {
        let mut hosts = self.lock();
        let next = hand_over(&mut hosts, host);
        drop(hosts);
        if let Some(next) = next {
            next.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Host, Queue>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Permit> {
        let Some((slots, host)) = &self.place else {
            return Poll::Pending;
        };
        let mut hosts = slots.lock();
        let Some(queue) = hosts.get_mut(host) else {
            return Poll::Pending;
        };
        let Some(position) = queue.position(self.id) else {
            return Poll::Pending;
        };
        if position < queue.granted {
            queue.waiters.remove(position);
            queue.granted -= 1;
            drop(hosts);
            return Poll::Ready(Permit(self.place.take()));
        }
        let waker = &mut queue.waiters[position].waker;
        match waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some((slots, host)) = self.place.take() else {
            return;
        };
        let mut hosts = slots.lock();
        let Some(queue) = hosts.get_mut(&host) else {
            return;
        };
        let Some(position) = queue.position(self.id) else {
            return;
        };
        let left = queue.waiters.remove(position);
        let next = if position < queue.granted {
            queue.granted -= 1;
            hand_over(&mut hosts, host)
        } else {
            None
        };
        // Wakers are foreign code: they run, and are dropped, without the lock.
        drop(hosts);
        drop(left);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((slots, host)) = self.0.take() {
            slots.release(host);
        }
    }
}

impl Queue {
    fn position(&self, id: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&id, |waiter| waiter.id)
            .ok()
    }
}

/// Gives a slot to the first waiter that has none, whose waker is returned, or back to the host.
fn hand_over(hosts: &mut HashMap<Host, Queue>, host: Host) -> Option<Waker> {
    let Entry::Occupied(mut entry) = hosts.entry(host) else {
        return None;
    };
    let queue = entry.get_mut();
    let granted = queue.granted;
    if let Some(waiter) = queue.waiters.get_mut(granted) {
        queue.granted += 1;
        return waiter.waker.take();
    }
    queue.in_use -= 1;
    if queue.in_use == 0 {
        entry.remove();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Waiting {
        wait: Wait,
        wakes: Arc<Wakes>,
    }

    impl Waiting {
        fn poll(&mut self) -> Poll<Permit> {
            let waker = Waker::from(Arc::clone(&self.wakes));
            self.wait.poll(&Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    fn limited(max: usize) -> Arc<Slots> {
        Slots::new(NonZeroUsize::new(max))
    }

    fn take(slots: &Arc<Slots>, uri: &Uri) -> Permit {
        match slots.admit(uri) {
            Admission::Admitted(permit) => permit,
            Admission::Queued(_) => panic!("queued although a slot is free"),
        }
    }

    /// Queues one waiter and polls it once, so that its waker is known.
    fn queue(slots: &Arc<Slots>, uri: &Uri) -> Waiting {
        let Admission::Queued(wait) = slots.admit(uri) else {
            panic!("admitted although no slot is free");
        };
        let mut waiting = Waiting {
            wait,
            wakes: Arc::default(),
        };
        assert!(waiting.poll().is_pending());
        waiting
    }

    #[test]
    fn slots_are_handed_over_in_order_of_arrival_and_wake_one_waiter_each() {
        let uri = Uri::from_static("http://a/");
        let slots = limited(1);
        let permit = take(&slots, &uri);
        let mut first = queue(&slots, &uri);
        let mut second = queue(&slots, &uri);
        drop(permit);
        assert_eq!((first.woken(), second.woken()), (1, 0));
        assert!(second.poll().is_pending(), "the slot belongs to the first");
        let Poll::Ready(permit) = first.poll() else {
            panic!("the first was granted the slot");
        };
        assert!(
            matches!(slots.admit(&uri), Admission::Queued(_)),
            "a newcomer does not overtake"
        );
        drop(permit);
        assert_eq!(second.woken(), 1);
        assert!(second.poll().is_ready());
    }

    #[test]
    fn a_waiter_that_leaves_passes_its_grant_on() {
        let uri = Uri::from_static("http://a/");
        let slots = limited(1);
        let permit = take(&slots, &uri);
        let first = queue(&slots, &uri);
        let second = queue(&slots, &uri);
        let mut third = queue(&slots, &uri);
        drop(second);
        drop(permit);
        assert_eq!((first.woken(), third.woken()), (1, 0));
        drop(first);
        assert_eq!(third.woken(), 1);
        assert!(third.poll().is_ready());
        assert!(slots.lock().is_empty());
    }

    #[test]
    fn hosts_are_apart_and_leave_no_entry_behind() {
        let slots = limited(1);
        let held = take(&slots, &Uri::from_static("http://a/"));
        let other = take(&slots, &Uri::from_static("http://b/"));
        let secure = take(&slots, &Uri::from_static("https://a/"));
        assert!(matches!(
            slots.admit(&Uri::from_static("http://A/v1")),
            Admission::Queued(_)
        ));
        drop((held, other, secure));
        assert!(slots.lock().is_empty());
    }

    #[test]
    fn any_order_of_arrivals_and_departures_keeps_the_limit_and_loses_no_slot() {
        let uri = Uri::from_static("http://a/");
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let slots = limited(3);
            let (mut held, mut waiting) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                match random.u8(..4) {
                    0 | 1 => match slots.admit(&uri) {
                        Admission::Admitted(permit) => held.push(permit),
                        Admission::Queued(wait) => waiting.push(Waiting {
                            wait,
                            wakes: Arc::default(),
                        }),
                    },
                    2 if !held.is_empty() => drop(held.swap_remove(random.usize(..held.len()))),
                    3 if !waiting.is_empty() => drop(waiting.remove(random.usize(..waiting.len()))),
                    _ => {}
                }
                waiting.retain_mut(|waiter| match waiter.poll() {
                    Poll::Ready(permit) => {
                        held.push(permit);
                        false
                    }
                    Poll::Pending => true,
                });
                assert!(held.len() <= 3, "seed {seed}");
                assert!(
                    waiting.is_empty() || held.len() == 3,
                    "a slot was lost, seed {seed}"
                );
            }
            drop((held, waiting));
            assert!(slots.lock().is_empty(), "seed {seed}");
        }
    }
}
