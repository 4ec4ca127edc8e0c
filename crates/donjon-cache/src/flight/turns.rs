//! Who drives the call that is shared: wakers, seats and the hand-over, under the flight's lock.
//!
//! Whoever is polled while the call asks for it drives the call, and takes it out of the slot
//! meanwhile. When the call wakes, two of those who wait are *asked* to drive: one would do, and the
//! other one is there so that a member whose task has something else to do holds nobody up. Whoever
//! was asked and does something else instead (leaves, or finds what it waits for) asks another one.
//! So as long as the call asks to be driven and somebody waits, somebody is on the way, and never
//! are all woken for the work of one.

use std::task::Waker;

/// The members of one flight. Its wakers are handed out to be woken, and dropped, once the lock is
/// free.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    seats: Vec<Seat>,
    free: Vec<usize>,
    /// The seats of those who wait, the one who came last at the end.
    waiting: Vec<usize>,
    /// Whether the call asks to be driven.
    due: bool,
    /// Whether somebody drives it now.
    away: bool,
    /// Whether it has ended.
    over: bool,
    /// Counts how often it asked.
    request: u64,
}

#[derive(Debug)]
struct Seat {
    waker: Option<Waker>,
    /// Its place among those who wait.
    place: Option<usize>,
    /// Which request to drive it was woken for; 0 for none.
    asked: u64,
}

/// Wakers to be woken without the lock.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakes {
    asked: [Option<Waker>; 2],
    told: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn wake(self) {
        for waker in self.asked.into_iter().flatten().chain(self.told) {
            waker.wake();
        }
    }

    fn ask(&mut self, waker: Waker) {
        match self.asked.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(waker),
            None => self.told.push(waker),
        }
    }
}

impl Turns {
    /// A call that was not driven yet.
    pub(crate) fn new() -> Self {
        Self {
            due: true,
            ..Self::default()
        }
    }

    /// Takes a seat.
    pub(crate) fn join(&mut self) -> usize {
        let seat = Seat {
            waker: None,
            place: None,
            asked: 0,
        };
        match self.free.pop() {
            Some(at) => {
                self.seats[at] = seat;
                at
            }
            None => {
                self.seats.push(seat);
                self.seats.len() - 1
            }
        }
    }

    /// How many members there are.
    pub(crate) fn members(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    /// Leaves; the waker that is left over is to be dropped without the lock.
    pub(crate) fn leave(&mut self, seat: usize, wakes: &mut Wakes) -> Option<Waker> {
        let waker = self.rest(seat, wakes);
        self.free.push(seat);
        waker
    }

    /// A member found what it waits for.
    pub(crate) fn rest(&mut self, seat: usize, wakes: &mut Wakes) -> Option<Waker> {
        let waker = self.stand_up(seat);
        let asked = std::mem::take(&mut self.seats[seat].asked);
        if asked == self.request && asked != 0 && self.is_due() {
            // It was asked to drive, and does something else.
            self.ask(1, wakes);
        }
        waker
    }

    /// A member waits.
    pub(crate) fn wait(&mut self, seat: usize, waker: &Waker) -> Option<Waker> {
        let old = match &self.seats[seat].waker {
            Some(old) if old.will_wake(waker) => None,
            _ => self.seats[seat].waker.replace(waker.clone()),
        };
        self.seats[seat].asked = 0;
        if self.seats[seat].place.is_none() {
            self.seats[seat].place = Some(self.waiting.len());
            self.waiting.push(seat);
        }
        old
    }

    /// The call asks to be driven.
    pub(crate) fn call_wakes(&mut self, wakes: &mut Wakes) {
        self.due = true;
        self.ask_anew(wakes);
    }

    /// It can be driven on, if it asks for it: nobody drives it, or what held it back is gone.
    pub(crate) fn ask_anew(&mut self, wakes: &mut Wakes) {
        if self.is_due() {
            self.request += 1;
            self.ask(2, wakes);
        }
    }

    /// Whether the call asks to be driven, and nobody does.
    pub(crate) fn is_due(&self) -> bool {
        self.due && !self.away && !self.over
    }

    /// Begins to drive.
    pub(crate) fn take(&mut self) {
        self.due = false;
        self.away = true;
    }

    /// The call is back. `again` says that it must be driven once more to be heard of.
    pub(crate) fn give_back(&mut self, again: bool) {
        self.away = false;
        self.due |= again;
    }

    /// The call has ended, and is not driven any more.
    pub(crate) fn finish(&mut self) {
        self.over = true;
    }

    /// Wakes all who wait: there is something for each of them.
    pub(crate) fn tell_all(&mut self, wakes: &mut Wakes) {
        for seat in std::mem::take(&mut self.waiting) {
            self.seats[seat].place = None;
            wakes.told.extend(self.seats[seat].waker.take());
        }
    }

    fn ask(&mut self, most: usize, wakes: &mut Wakes) {
        for _ in 0..most {
            let Some(seat) = self.waiting.pop() else {
                return;
            };
            self.seats[seat].place = None;
            self.seats[seat].asked = self.request;
            if let Some(waker) = self.seats[seat].waker.take() {
                wakes.ask(waker);
            }
        }
    }

    /// Leaves the place among those who wait.
    fn stand_up(&mut self, seat: usize) -> Option<Waker> {
        if let Some(place) = self.seats[seat].place.take() {
            self.waiting.swap_remove(place);
            if let Some(moved) = self.waiting.get(place) {
                self.seats[*moved].place = Some(place);
            }
        }
        self.seats[seat].waker.take()
    }
}

/// The hand-over under the model checker: a call that wakes while members come, wait and leave is
/// driven in the end, by one at a time.
#[cfg(all(test, loom))]
mod model {
    use std::task::Wake;

    use loom::{
        model::Builder,
        sync::{
            Arc, Mutex, MutexGuard, Notify,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;

    /// A flight whose call is done when it was driven once for each time it woke.
    struct Flight {
        slot: Mutex<Slot>,
        driving: AtomicUsize,
    }

    struct Slot {
        turns: Turns,
        /// What the call has to do.
        work: usize,
        done: bool,
    }

    /// The task of a member.
    struct Task(Notify);

    impl Wake for Task {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.notify();
        }
    }

    impl Flight {
        fn new(work: usize) -> Arc<Self> {
            Arc::new(Self {
                slot: Mutex::new(Slot {
                    turns: Turns::new(),
                    work,
                    done: false,
                }),
                driving: AtomicUsize::new(0),
            })
        }

        fn lock(&self) -> MutexGuard<'_, Slot> {
            self.slot.lock().expect("no panic")
        }

        /// The call has something to do.
        fn wakes(&self) {
            let mut wakes = Wakes::default();
            let mut slot = self.lock();
            slot.work -= 1;
            slot.turns.call_wakes(&mut wakes);
            drop(slot);
            wakes.wake();
        }

        /// As a member's turn goes; whether the call is done.
        fn turn(&self, seat: usize, waker: &Waker) -> bool {
            let mut wakes = Wakes::default();
            let mut driven = false;
            let mut slot = self.lock();
            let done = loop {
                if slot.done {
                    let _ = slot.turns.rest(seat, &mut wakes);
                    break true;
                }
                if slot.turns.is_due() && !driven {
                    slot.turns.take();
                    drop(slot);
                    assert_eq!(self.driving.fetch_add(1, SeqCst), 0, "one at a time");
                    let ready = self.lock().work == 0;
                    self.driving.fetch_sub(1, SeqCst);
                    driven = !ready;
                    slot = self.lock();
                    if ready {
                        slot.done = true;
                        slot.turns.finish();
                        slot.turns.give_back(true);
                        slot.turns.tell_all(&mut wakes);
                    } else {
                        slot.turns.give_back(false);
                    }
                    continue;
                }
                let _ = slot.turns.wait(seat, waker);
                slot.turns.ask_anew(&mut wakes);
                break false;
            };
            drop(slot);
            wakes.wake();
            done
        }

        /// Stays until the call is done: hangs where it is forgotten, which the checker finds.
        fn stays(&self, seat: usize) {
            let task = std::sync::Arc::new(Task(Notify::new()));
            let waker = Waker::from(task.clone());
            while !self.turn(seat, &waker) {
                task.0.wait();
            }
            self.leaves(seat);
        }

        /// Waits once, and leaves.
        fn looks_in(&self, seat: usize) {
            let task = std::sync::Arc::new(Task(Notify::new()));
            self.turn(seat, &Waker::from(task));
            self.leaves(seat);
        }

        fn leaves(&self, seat: usize) {
            let mut wakes = Wakes::default();
            let left = self.lock().turns.leave(seat, &mut wakes);
            drop(left);
            wakes.wake();
        }

        fn joins(&self) -> usize {
            self.lock().turns.join()
        }
    }

    fn check(of: impl Fn() + Send + Sync + 'static) {
        let mut model = Builder::new();
        model.preemption_bound = Some(3);
        model.check(of);
    }

    #[test]
    fn who_stays_hears_of_a_call_that_wakes_while_another_leaves() {
        check(|| {
            let flight = Flight::new(1);
            let (stays, leaves) = (flight.joins(), flight.joins());
            let other = flight.clone();
            let other = thread::spawn(move || other.looks_in(leaves));
            let call = flight.clone();
            let call = thread::spawn(move || call.wakes());
            flight.stays(stays);
            other.join().expect("no panic");
            call.join().expect("no panic");
            assert_eq!(flight.lock().turns.members(), 0);
        });
    }

    /// Two are woken for the call, and both leave.
    #[test]
    fn who_stays_hears_of_it_though_all_who_were_asked_leave() {
        check(|| {
            let flight = Flight::new(1);
            let (stays, one, two) = (flight.joins(), flight.joins(), flight.joins());
            let others = flight.clone();
            let others = thread::spawn(move || {
                let task = || Waker::from(std::sync::Arc::new(Task(Notify::new())));
                others.turn(one, &task());
                others.turn(two, &task());
                others.leaves(one);
                others.leaves(two);
            });
            let call = flight.clone();
            let call = thread::spawn(move || call.wakes());
            flight.stays(stays);
            others.join().expect("no panic");
            call.join().expect("no panic");
        });
    }

    #[test]
    fn two_who_stay_both_hear_of_it() {
        check(|| {
            let flight = Flight::new(1);
            let (one, two) = (flight.joins(), flight.joins());
            let other = flight.clone();
            let other = thread::spawn(move || other.stays(two));
            let call = flight.clone();
            let call = thread::spawn(move || call.wakes());
            flight.stays(one);
            other.join().expect("no panic");
            call.join().expect("no panic");
        });
    }
}
