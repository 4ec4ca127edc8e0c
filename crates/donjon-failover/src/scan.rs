//! Who may be asked.

use std::time::Duration;

use smallvec::SmallVec;

use crate::{
    capability::Needs,
    health::{Standing, Status},
    state::{Look, Roster, TargetState, Why},
    target::WhenOut,
};

/// Which targets of a roster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    All,
    Some(&'a Places),
}

/// A set of places; up to 512 targets without an allocation.
#[derive(Debug, Default)]
pub(crate) struct Places {
    bits: SmallVec<[u64; 8]>,
    count: usize,
}

impl Places {
    fn with_room_for(count: usize) -> Self {
        Self {
            bits: SmallVec::from_elem(0, count.div_ceil(64)),
            count: 0,
        }
    }

    fn insert(&mut self, place: usize) {
        self.bits[place / 64] |= 1 << (place % 64);
        self.count += 1;
    }

    fn clear(&mut self) {
        self.bits.fill(0);
        self.count = 0;
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub(crate) fn has(&self, place: usize) -> bool {
        self.bits[place / 64] & (1 << (place % 64)) != 0
    }

    /// The one that is number `nth`, from 0.
    pub(crate) fn nth(&self, mut nth: usize) -> Option<usize> {
        for (at, word) in self.bits.iter().enumerate() {
            let here = word.count_ones() as usize;
            if nth >= here {
                nth -= here;
                continue;
            }
            let mut word = *word;
            for _ in 0..nth {
                word &= word - 1;
            }
            return Some(at * 64 + word.trailing_zeros() as usize);
        }
        None
    }
}

/// Those of the best priority.
#[derive(Debug)]
struct Group {
    priority: u32,
    places: Places,
}

impl Group {
    fn with_room_for(count: usize) -> Self {
        Self {
            priority: u32::MAX,
            places: Places::with_room_for(count),
        }
    }

    fn add(&mut self, place: usize, target: &TargetState) {
        let priority = target.priority.load(std::sync::atomic::Ordering::Relaxed);
        if priority < self.priority || self.places.count == 0 {
            self.priority = priority;
            self.places.clear();
        }
        if priority == self.priority {
            self.places.insert(place);
        }
    }
}

/// What is found when each target is looked at.
#[derive(Debug)]
pub(crate) struct Scan {
    ready: Group,
    held: Group,
    /// The one that is out for the shortest time.
    out: Option<(u64, usize)>,
    /// How many may be asked, now or in the end.
    pub(crate) askable: u32,
    /// Whether one has returned all the way.
    pub(crate) settles: bool,
}

impl Scan {
    /// Looks at each target but those that were `tried`.
    pub(crate) fn of(
        roster: &Roster,
        tried: impl Fn(usize) -> bool,
        needs: Needs,
        now: u64,
        ramp: Duration,
        when_out: WhenOut,
        first: bool,
    ) -> Self {
        let count = roster.targets.len();
        let mut scan = Self {
            ready: Group::with_room_for(count),
            held: Group::with_room_for(count),
            out: None,
            askable: 0,
            settles: false,
        };
        for (place, target) in roster.targets.iter().enumerate() {
            if tried(place) {
                continue;
            }
            let standing = target.gate.standing();
            let returning = matches!(standing, Standing::Returning { .. });
            scan.settles |= returning && standing.at(now, ramp) == Status::Up;
            let askable = match target.look(needs, now, ramp) {
                Look::Ready { .. } => {
                    scan.ready.add(place, target);
                    true
                }
                Look::Held => {
                    scan.held.add(place, target);
                    true
                }
                Look::Out { until } => {
                    let sooner = scan.out.is_none_or(|(soonest, _)| until < soonest);
                    if when_out == WhenOut::LeastBad && sooner {
                        scan.out = Some((until, place));
                    }
                    when_out == WhenOut::LeastBad
                }
                Look::Not(why) => {
                    if first && matches!(why, Why::Lacks(_) | Why::TooLong) {
                        let count = &target.incapable;
                        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    false
                }
            };
            scan.askable += u32::from(askable);
        }
        scan
    }

    /// Those to choose from, if there are any.
    pub(crate) fn candidates(&self) -> Option<&Places> {
        let groups = [&self.ready.places, &self.held.places];
        groups.into_iter().find(|places| places.count > 0)
    }

    /// Whom to ask when there is nobody to choose from.
    pub(crate) fn least_bad(&self) -> Option<usize> {
        self.out.map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_found() {
        let mut places = Places::with_room_for(300);
        for place in [0, 63, 64, 299] {
            places.insert(place);
        }
        assert_eq!(places.len(), 4);
        assert!((0..5).map(|nth| places.nth(nth)).eq([
            Some(0),
            Some(63),
            Some(64),
            Some(299),
            None
        ]));
        assert!(places.has(64) && !places.has(65));
        assert!(!places.bits.spilled());
    }
}
