//! Who drives the call that is shared: wakers, seats and the hand-over, under the flight's lock.
//!
//! Whoever is polled while the call asks for it drives the call, and takes it out of the slot
//! meanwhile. When the call wakes, two of those who wait are *asked* to drive: one would do, and the
//! other one is there so that a member whose task has something else to do holds nobody up. Whoever
//! was asked and does something else instead (leaves, or finds what it waits for) asks another one.
//! So as long as the call asks to be driven and somebody waits, somebody is on the way, and never
//! are all woken for the work of one.
//!
//! While there is one member, the call is driven with that member's own waker and wakes it directly.
//! Whoever joins then finds that the call asks to be driven, and drives it with the flight's waker.

use std::task::Waker;

use smallvec::SmallVec;

/// The members of one flight, each with something of its own. Its wakers are handed out to be woken,
/// and dropped, once the lock is free.
#[derive(Debug)]
pub(crate) struct Turns<M> {
    seats: SmallVec<[Seat<M>; 1]>,
    members: usize,
    /// The first of the seats that are free; each says which one is next.
    free: Option<Place>,
    /// The seats of those who wait: who waits longest, and who came last.
    waiting: Option<(Place, Place)>,
    /// Whether the call asks to be driven.
    due: bool,
    /// Whether it was driven last with the waker of the one member that there is.
    alone: bool,
    /// Whether somebody drives it now.
    away: bool,
    /// Whether it has ended.
    over: bool,
    /// Counts how often it asked.
    request: u64,
}

/// The place of a seat; a flight never has four thousand million members.
type Place = u32;

#[derive(Debug)]
struct Seat<M> {
    member: Option<M>,
    waker: Option<Waker>,
    waits: bool,
    /// Who began to wait before it, and who after it; of a free seat the next one.
    before: Option<Place>,
    after: Option<Place>,
    /// Which request to drive it was woken for; 0 for none.
    asked: u64,
}

impl<M> Seat<M> {
    #[inline]
    const fn new(member: M) -> Self {
        Self {
            member: Some(member),
            waker: None,
            waits: false,
            before: None,
            after: None,
            asked: 0,
        }
    }
}

/// Wakers to be woken without the lock.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakes {
    asked: [Option<Waker>; 2],
    told: SmallVec<[Waker; 1]>,
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

impl<M> Turns<M> {
    /// The same with its first member, in the first seat.
    #[inline]
    pub(crate) fn with(first: M) -> Self {
        Self {
            seats: SmallVec::from_buf([Seat::new(first)]),
            members: 1,
            ..Self::new()
        }
    }

    /// A call that was not driven yet.
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            seats: SmallVec::new(),
            members: 0,
            free: None,
            waiting: None,
            due: true,
            alone: false,
            away: false,
            over: false,
            request: 0,
        }
    }

    /// Takes a seat.
    #[inline]
    pub(crate) fn join(&mut self, member: M) -> u32 {
        self.members += 1;
        // The call knows the waker of another member, who need not stay.
        self.due |= std::mem::take(&mut self.alone);
        let seat = Seat::new(member);
        match self.free {
            Some(at) => {
                let free = std::mem::replace(self.seat(at), seat);
                self.free = free.after;
                at
            }
            None => {
                if self.seats.len() == self.seats.capacity() {
                    // Where there are two there are often many.
                    self.seats.reserve(3 * self.seats.len().max(5));
                }
                self.seats.push(seat);
                Place::try_from(self.seats.len() - 1).expect("so many do not fit into memory")
            }
        }
    }

    /// How many members there are.
    pub(crate) fn members(&self) -> usize {
        self.members
    }

    /// What a member has of its own.
    pub(crate) fn member(&mut self, seat: u32) -> Option<&mut M> {
        self.seat(seat).member.as_mut()
    }

    /// What each of the members has.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut M> {
        self.seats
            .iter_mut()
            .filter_map(|seat| seat.member.as_mut())
    }

    /// Leaves; the waker that is left over is to be dropped without the lock.
    pub(crate) fn leave(&mut self, seat: u32, wakes: &mut Wakes) -> Option<Waker> {
        let waker = self.rest(seat, wakes);
        self.vacate(seat);
        waker
    }

    /// Leaves a call that has ended, and so is not driven any more.
    #[inline]
    pub(crate) fn leave_ended(&mut self, seat: u32) -> Option<Waker> {
        debug_assert!(self.over, "somebody may have to be asked to drive it");
        self.stand_up(seat);
        self.vacate(seat);
        self.seat(seat).waker.take()
    }

    fn vacate(&mut self, seat: u32) {
        let free = self.free.replace(seat);
        let left = self.seat(seat);
        left.after = free;
        if left.member.take().is_some() {
            self.members -= 1;
        }
    }

    /// A member found what it waits for.
    pub(crate) fn rest(&mut self, seat: u32, wakes: &mut Wakes) -> Option<Waker> {
        self.stand_up(seat);
        let rests = self.seat(seat);
        let waker = rests.waker.take();
        let asked = std::mem::take(&mut rests.asked);
        if asked == self.request && asked != 0 && self.is_due() {
            // It was asked to drive, and does something else.
            self.ask(1, wakes);
        }
        waker
    }

    /// A member waits.
    pub(crate) fn wait(&mut self, seat: u32, waker: &Waker) -> Option<Waker> {
        let last = self.waiting.map(|(_, last)| last);
        let waits = self.seat(seat);
        let old = match &waits.waker {
            Some(old) if old.will_wake(waker) => None,
            _ => waits.waker.replace(waker.clone()),
        };
        waits.asked = 0;
        if !std::mem::replace(&mut waits.waits, true) {
            waits.before = last;
            waits.after = None;
            self.waiting = match self.waiting {
                None => Some((seat, seat)),
                Some((first, last)) => {
                    self.seat(last).after = Some(seat);
                    Some((first, seat))
                }
            };
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
    fn is_due(&self) -> bool {
        self.due && !self.away && !self.over
    }

    /// Whether who is polled is to drive it. It may have woken who is alone without saying so here.
    pub(crate) fn is_to_be_driven(&self) -> bool {
        (self.due || self.alone) && !self.away && !self.over
    }

    /// Begins to drive; whether that is done with the waker of the one who drives.
    pub(crate) fn take(&mut self) -> bool {
        self.due = false;
        self.away = true;
        self.alone = self.members == 1;
        self.alone
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
        let mut next = self.waiting.take().map(|(first, _)| first);
        if next.is_some() {
            wakes.told.reserve(self.members);
        }
        while let Some(at) = next {
            let seat = self.seat(at);
            seat.waits = false;
            next = seat.after;
            wakes.told.extend(seat.waker.take());
        }
    }

    fn ask(&mut self, most: usize, wakes: &mut Wakes) {
        for _ in 0..most {
            let Some((_, last)) = self.waiting else {
                return;
            };
            self.stand_up(last);
            let request = self.request;
            let seat = self.seat(last);
            seat.asked = request;
            if let Some(waker) = seat.waker.take() {
                wakes.ask(waker);
            }
        }
    }

    /// Leaves the place among those who wait.
    fn stand_up(&mut self, seat: u32) {
        let stands = self.seat(seat);
        if !std::mem::take(&mut stands.waits) {
            return;
        }
        let (before, after) = (stands.before, stands.after);
        if let Some(before) = before {
            self.seat(before).after = after;
        }
        if let Some(after) = after {
            self.seat(after).before = before;
        }
        if let Some((first, last)) = self.waiting {
            let first = if first == seat { after } else { Some(first) };
            let last = if last == seat { before } else { Some(last) };
            self.waiting = first.zip(last);
        }
    }

    fn seat(&mut self, at: Place) -> &mut Seat<M> {
        &mut self.seats[at as usize]
    }
}

#[cfg(all(test, loom))]
mod model;
