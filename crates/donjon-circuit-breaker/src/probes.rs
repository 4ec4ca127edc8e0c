//! The probes of a half-open circuit.

use crate::{
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
    window::{Mark, WindowCalls},
};

/// A place for each probe that a half-open circuit lets pass.
///
/// A place that a probe ended in stays taken until the circuit goes on to another state; one whose
/// probe came to nothing is free again. A probe that has not ended when its deadline passes loses its
/// place: if it has shown something by then it has passed, else another one may go. Places of earlier
/// generations are free.
#[derive(Debug)]
pub(crate) struct Probes {
    places: Box<[AtomicU64]>,
    /// Puts those who look at all places in an order, so that each sees what those before did.
    turn: AtomicU64,
}

/// What a place holds: 4 bits what became of its probe, 20 bits of which generation it is, 40 bits
/// its deadline in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    /// Nothing is known of it.
    Sent,
    /// It has shown something, slowly or not.
    Committed {
        slow: bool,
    },
    Ended(Mark),
}

const GENERATION_BITS: u32 = 20;
const DEADLINE_BITS: u32 = 40;
const MILLISECOND: u64 = 1_000_000;

impl Place {
    const FREE: Self = Self(0);

    fn new(generation: u64, deadline: u64) -> Self {
        let deadline = deadline.div_ceil(MILLISECOND).min((1 << DEADLINE_BITS) - 1);
        Self(deadline << 24 | (generation & ((1 << GENERATION_BITS) - 1)) << 4 | 1)
    }

    fn stage(self) -> Stage {
        match self.0 & 0xf {
            1 => Stage::Sent,
            2 => Stage::Committed { slow: false },
            3 => Stage::Committed { slow: true },
            4 => Stage::Ended(Mark::Success),
            5 => Stage::Ended(Mark::SlowSuccess),
            6 => Stage::Ended(Mark::Failure),
            7 => Stage::Ended(Mark::SlowFailure),
            _ => Stage::Free,
        }
    }

    fn at(self, stage: Stage) -> Self {
        let code = match stage {
            Stage::Free => 0,
            Stage::Sent => 1,
            Stage::Committed { slow } => 2 + u64::from(slow),
            Stage::Ended(mark) => 3 + mark as u64,
        };
        Self(self.0 & !0xf | code)
    }

    fn is_of(self, generation: u64) -> bool {
        self.0 >> 4 & ((1 << GENERATION_BITS) - 1) == generation & ((1 << GENERATION_BITS) - 1)
    }

    fn is_over(self, now: u64) -> bool {
        (self.0 >> 24) * MILLISECOND <= now
    }

    /// What stands in the way of a new probe.
    fn hold(self, generation: u64, now: u64) -> Hold {
        if !self.is_of(generation) {
            return Hold::Nothing;
        }
        match self.stage() {
            Stage::Free => Hold::Nothing,
            Stage::Sent if self.is_over(now) => Hold::Nothing,
            Stage::Committed { slow } if self.is_over(now) => Hold::Passed { slow },
            Stage::Sent | Stage::Committed { .. } | Stage::Ended(_) => Hold::Probe,
        }
    }
}

enum Hold {
    Nothing,
    /// Its time is over, and it has shown something.
    Passed {
        slow: bool,
    },
    Probe,
}

/// The place of a probe, to be given back or settled once.
#[derive(Debug)]
pub(crate) struct Ticket {
    at: usize,
    holds: u64,
}

impl Probes {
    pub(crate) fn new(places: u32) -> Self {
        Self {
            places: (0..places.max(1)).map(|_| AtomicU64::new(0)).collect(),
            turn: AtomicU64::new(0),
        }
    }

    /// Lets those pass whose deadline is over and that have shown something by then; whether there
    /// were any, so that there may be enough to judge by now.
    pub(crate) fn settle(&self, generation: u64, now: u64) -> bool {
        let mut settled = false;
        for place in &self.places {
            let seen = Place(place.load(Acquire));
            if let Hold::Passed { slow } = seen.hold(generation, now) {
                let passed = seen.at(Stage::Ended(Mark::new(false, slow)));
                settled |= swap(place, seen, passed).is_ok();
            }
        }
        settled
    }

    /// Takes a place until `deadline`, if one is free.
    pub(crate) fn take(&self, generation: u64, now: u64, deadline: u64) -> Option<Ticket> {
        let mine = Place::new(generation, deadline);
        self.places.iter().enumerate().find_map(|(at, place)| {
            let mut seen = Place(place.load(Acquire));
            loop {
                let Hold::Nothing = seen.hold(generation, now) else {
                    return None;
                };
                match swap(place, seen, mine) {
                    Ok(()) => return Some(Ticket { at, holds: mine.0 }),
                    Err(now) => seen = now,
                }
            }
        })
    }

    /// Whether a place is free, or one may be once those are [settled](Self::settle) that have passed.
    pub(crate) fn has_room(&self, generation: u64, now: u64) -> bool {
        self.places.iter().any(|place| {
            let place = Place(place.load(Acquire));
            !matches!(place.hold(generation, now), Hold::Probe)
        })
    }

    /// The probe has shown something.
    pub(crate) fn commit(&self, ticket: &mut Ticket, slow: bool) {
        let held = Place(ticket.holds);
        if held.stage() != Stage::Sent {
            return;
        }
        let next = held.at(Stage::Committed { slow });
        if swap(&self.places[ticket.at], held, next).is_ok() {
            ticket.holds = next.0;
        }
    }

    /// The probe ended; false if it had lost its place before.
    pub(crate) fn end(&self, ticket: &Ticket, mark: Mark) -> bool {
        let held = Place(ticket.holds);
        swap(&self.places[ticket.at], held, held.at(Stage::Ended(mark))).is_ok()
    }

    /// The probe came to nothing.
    pub(crate) fn give_back(&self, ticket: &Ticket) {
        let _ = swap(&self.places[ticket.at], Place(ticket.holds), Place::FREE);
    }

    /// What became of the probes that ended. Of those who end theirs at once and then look, one sees
    /// all.
    pub(crate) fn ended(&self, generation: u64) -> WindowCalls {
        self.turn.fetch_add(1, AcqRel);
        let mut ended = WindowCalls::default();
        for place in &self.places {
            let place = Place(place.load(Acquire));
            if let Stage::Ended(mark) = place.stage()
                && place.is_of(generation)
            {
                ended.add(mark);
            }
        }
        ended
    }

    /// How many probes are under way.
    pub(crate) fn under_way(&self, generation: u64) -> usize {
        let places = self.places.iter().map(|place| Place(place.load(Acquire)));
        places
            .filter(|place| {
                place.is_of(generation)
                    && matches!(place.stage(), Stage::Sent | Stage::Committed { .. })
            })
            .count()
    }
}

fn swap(place: &AtomicU64, old: Place, new: Place) -> Result<(), Place> {
    place
        .compare_exchange(old.0, new.0, AcqRel, Acquire)
        .map(drop)
        .map_err(Place)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn take(probes: &Probes, generation: u64, now: u64) -> Ticket {
        let ticket = probes.take(generation, now, now + 10 * SECOND);
        ticket.expect("a place")
    }

    fn full(probes: &Probes, generation: u64, now: u64) -> bool {
        let full = probes.take(generation, now, now + 10 * SECOND).is_none();
        assert_eq!(full, !probes.has_room(generation, now));
        full
    }

    #[test]
    fn there_are_so_many_places_in_each_generation() {
        let probes = Probes::new(4);
        for generation in [2, 5, 1 << 30] {
            let tickets: Vec<_> = (0..4).map(|_| take(&probes, generation, 0)).collect();
            assert!(full(&probes, generation, 0));
            assert_eq!(probes.under_way(generation), 4);
            probes.give_back(&tickets[2]);
            take(&probes, generation, 0);
            assert!(full(&probes, generation, 0));
        }
    }

    #[test]
    fn the_place_of_a_probe_that_ended_stays_taken() {
        let probes = Probes::new(2);
        let ticket = take(&probes, 2, 0);
        assert!(probes.end(&ticket, Mark::SlowFailure));
        assert!(!probes.end(&ticket, Mark::Success), "it ended");
        probes.give_back(&ticket);
        take(&probes, 2, 0);
        assert!(full(&probes, 2, 0));
        let ended = probes.ended(2);
        let all = (ended.calls, ended.failures, ended.slow, ended.slow_failures);
        assert_eq!(all, (1, 1, 1, 1));
        assert_eq!(probes.ended(5), WindowCalls::default());
    }

    #[test]
    fn a_probe_that_does_not_end_loses_its_place() {
        let probes = Probes::new(1);
        let lost = take(&probes, 2, 0);
        assert!(full(&probes, 2, 10 * SECOND - 1));
        let next = take(&probes, 2, 10 * SECOND);
        assert!(!probes.end(&lost, Mark::Success));
        probes.give_back(&lost);
        assert!(full(&probes, 2, 10 * SECOND), "it is another's");
        assert!(probes.end(&next, Mark::Failure));
        assert_eq!(probes.ended(2).failures, 1);
    }

    #[test]
    fn a_probe_that_has_shown_something_has_passed_at_its_deadline() {
        for slow in [false, true] {
            let probes = Probes::new(1);
            let mut ticket = take(&probes, 2, 0);
            probes.commit(&mut ticket, slow);
            assert!(full(&probes, 2, 9 * SECOND));
            assert!(probes.has_room(2, 10 * SECOND));
            assert!(probes.take(2, 10 * SECOND, 20 * SECOND).is_none());
            assert!(probes.settle(2, 10 * SECOND));
            assert!(!probes.settle(2, 10 * SECOND));
            assert!(!probes.end(&ticket, Mark::Failure), "too late");
            let ended = probes.ended(2);
            assert_eq!((ended.calls, ended.failures), (1, 0));
            assert_eq!(ended.slow, u32::from(slow));
        }
    }

    #[test]
    fn a_ticket_of_an_earlier_generation_changes_nothing() {
        let probes = Probes::new(1);
        let mut old = take(&probes, 2, 0);
        let new = take(&probes, 5, 0);
        probes.give_back(&old);
        probes.commit(&mut old, true);
        assert!(!probes.end(&old, Mark::Success));
        assert!(full(&probes, 5, 0));
        assert!(probes.end(&new, Mark::Success));
        assert_eq!(probes.ended(5).slow, 0);
    }
}
