//! The hand-over under the model checker: a call that wakes while members come, wait and leave is
//! driven in the end, by one at a time.

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
    turns: Turns<()>,
    /// What the call has to do.
    work: usize,
    done: bool,
    /// Whom it wakes: who drove it last alone, or the flight.
    waker: Option<Waker>,
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
                waker: None,
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
        let alone = slot.waker.take();
        if alone.is_none() {
            slot.turns.call_wakes(&mut wakes);
        }
        drop(slot);
        wakes.wake();
        if let Some(waker) = alone {
            waker.wake();
        }
    }

    /// As a member's turn goes; whether the call is done.
    fn turn(&self, seat: u32, waker: &Waker) -> bool {
        let mut wakes = Wakes::default();
        let mut driven = false;
        let mut slot = self.lock();
        let done = loop {
            if slot.done {
                let _ = slot.turns.rest(seat, &mut wakes);
                break true;
            }
            if slot.turns.is_to_be_driven() && !driven {
                let alone = slot.turns.take();
                drop(slot);
                assert_eq!(self.driving.fetch_add(1, SeqCst), 0, "one at a time");
                let mut call = self.lock();
                call.waker = alone.then(|| waker.clone());
                let ready = call.work == 0;
                drop(call);
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
                    // Who is still alone waits for the call itself, and asks nobody.
                    if alone && slot.turns.members() == 1 {
                        let _ = slot.turns.wait(seat, waker);
                        break false;
                    }
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
    fn stays(&self, seat: u32) {
        let task = std::sync::Arc::new(Task(Notify::new()));
        let waker = Waker::from(task.clone());
        while !self.turn(seat, &waker) {
            task.0.wait();
        }
        self.leaves(seat);
    }

    /// Waits once, and leaves.
    fn looks_in(&self, seat: u32) {
        let task = std::sync::Arc::new(Task(Notify::new()));
        self.turn(seat, &Waker::from(task));
        self.leaves(seat);
    }

    fn leaves(&self, seat: u32) {
        let mut wakes = Wakes::default();
        let left = self.lock().turns.leave(seat, &mut wakes);
        drop(left);
        wakes.wake();
    }

    fn joins(&self) -> u32 {
        self.lock().turns.join(())
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

/// Who is alone drives with a waker of its own, and leaves when somebody has joined.
#[test]
fn who_joins_one_that_is_alone_hears_of_it_though_that_one_leaves() {
    check(|| {
        let flight = Flight::new(1);
        let first = flight.joins();
        let other = flight.clone();
        let other = thread::spawn(move || other.looks_in(first));
        let call = flight.clone();
        let call = thread::spawn(move || call.wakes());
        let joins = flight.joins();
        flight.stays(joins);
        other.join().expect("no panic");
        call.join().expect("no panic");
    });
}
