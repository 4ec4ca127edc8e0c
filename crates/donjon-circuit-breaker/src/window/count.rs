//! The latest so many calls.

use super::{Mark, Pair, WindowCalls};
use crate::sync::{
    AtomicU8, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// A ring with a place for each call: a call takes the place of the one that came so many calls
/// before it.
#[derive(Debug)]
pub(crate) struct CountWindow {
    places: Box<[AtomicU8]>,
    next: AtomicU32,
    /// Calls and failures.
    ended: Pair,
    /// Slow calls and slow failures.
    slow: Pair,
}

const EMPTY: u8 = 0;

impl CountWindow {
    pub(super) fn new(calls: u32) -> Self {
        Self {
            places: (0..calls.max(1)).map(|_| AtomicU8::new(EMPTY)).collect(),
            next: AtomicU32::new(0),
            ended: Pair::default(),
            slow: Pair::default(),
        }
    }

    pub(super) fn record(&self, mark: Mark) -> WindowCalls {
        let place = &self.places[self.take_place()];
        // Nothing changes when a success takes the place of a success, which is nearly always.
        if place.load(Acquire) == mark as u8 {
            return self.sums();
        }
        let old = Mark::from_code(place.swap(mark as u8, AcqRel));
        // Slow calls first: whoever adds to the others last sees all of both.
        self.shift_slow(Some(mark), old);
        let (calls, failures) = self.ended.add(
            1 - i32::from(old.is_some()),
            i32::from(mark.failed()) - i32::from(old.is_some_and(Mark::failed)),
        );
        let (slow, slow_failures) = self.slow.get();
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    /// The place of the next call.
    fn take_place(&self) -> usize {
        let size = self.places.len();
        let mut next = self.next.fetch_add(1, Relaxed) as usize;
        if next >= size {
            next %= size;
            if next == 0 {
                // Kept small, so that it never wraps around in the middle of the ring.
                #[expect(clippy::cast_possible_truncation, reason = "at most a million")]
                self.next.fetch_sub(size as u32, Relaxed);
            }
        }
        next
    }

    fn shift_slow(&self, new: Option<Mark>, old: Option<Mark>) {
        let slow = |mark: Option<Mark>| i32::from(mark.is_some_and(Mark::slow));
        let failed = |mark: Option<Mark>| i32::from(mark == Some(Mark::SlowFailure));
        let (slow, failed) = (slow(new) - slow(old), failed(new) - failed(old));
        if (slow, failed) != (0, 0) {
            self.slow.add(slow, failed);
        }
    }

    pub(super) fn sums(&self) -> WindowCalls {
        let (calls, failures) = self.ended.get();
        let (slow, slow_failures) = self.slow.get();
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    pub(super) fn scan(&self) -> WindowCalls {
        let mut found = WindowCalls::default();
        let places = self.places.iter().map(|place| place.load(Acquire));
        places
            .filter_map(Mark::from_code)
            .for_each(|mark| found.add(mark));
        found
    }

    pub(super) fn clear(&self) {
        for place in &self.places {
            if place.load(Acquire) == EMPTY {
                continue;
            }
            let old = Mark::from_code(place.swap(EMPTY, AcqRel));
            if let Some(mark) = old {
                self.ended.add(-1, -i32::from(mark.failed()));
                self.shift_slow(None, old);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use Mark::{Failure, SlowFailure, SlowSuccess, Success};

    use super::*;

    fn calls(calls: u32, failures: u32, slow: u32, slow_failures: u32) -> WindowCalls {
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    /// Records one after the other, and finds the same sums each time, counted either way.
    fn plays(window: &CountWindow, steps: &[(Mark, WindowCalls)]) {
        for (at, (mark, sums)) in steps.iter().enumerate() {
            assert_eq!(window.record(*mark), *sums, "after step {at}");
            assert_eq!(window.scan(), *sums, "after step {at}");
        }
    }

    #[test]
    fn it_is_empty_in_the_beginning() {
        let window = CountWindow::new(5);
        assert_eq!(window.sums(), WindowCalls::default());
        assert_eq!(window.scan(), WindowCalls::default());
        assert_eq!(window.scan().failure_rate(), None);
        assert_eq!(window.scan().slow_rate(), None);
    }

    #[test]
    fn each_kind_of_call_is_counted_as_what_it_is() {
        for (mark, sums) in [
            (Success, calls(1, 0, 0, 0)),
            (Failure, calls(1, 1, 0, 0)),
            (SlowSuccess, calls(1, 0, 1, 0)),
            (SlowFailure, calls(1, 1, 1, 1)),
        ] {
            plays(&CountWindow::new(5), &[(mark, sums)]);
        }
    }

    #[test]
    fn the_rate_of_slow_calls() {
        let window = CountWindow::new(5);
        for mark in [SlowSuccess, SlowFailure, Success, Success, Success] {
            window.record(mark);
        }
        assert_eq!(window.sums(), calls(5, 1, 2, 1));
        assert_eq!(window.sums().slow_rate(), Some(0.4));
        assert_eq!(window.sums().failure_rate(), Some(0.2));
    }

    #[test]
    fn a_call_takes_the_place_of_the_oldest() {
        plays(
            &CountWindow::new(4),
            &[
                (Failure, calls(1, 1, 0, 0)),
                (Success, calls(2, 1, 0, 0)),
                (Success, calls(3, 1, 0, 0)),
                (Success, calls(4, 1, 0, 0)),
                (Success, calls(4, 0, 0, 0)),
                (Failure, calls(4, 1, 0, 0)),
            ],
        );
    }

    #[test]
    fn slow_calls_leave_it_too() {
        plays(
            &CountWindow::new(2),
            &[
                (SlowFailure, calls(1, 1, 1, 1)),
                (SlowSuccess, calls(2, 1, 2, 1)),
                (Success, calls(2, 0, 1, 0)),
                (Success, calls(2, 0, 0, 0)),
                (Success, calls(2, 0, 0, 0)),
            ],
        );
    }

    #[test]
    fn the_places_are_taken_in_turn() {
        let window = CountWindow::new(3);
        let taken: Vec<_> = (0..10).map(|_| window.take_place()).collect();
        assert_eq!(taken, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert!(window.next.load(Relaxed) <= 3);
    }

    #[test]
    fn cleared_it_is_as_new() {
        let window = CountWindow::new(3);
        for mark in [SlowFailure, Failure, SlowSuccess, Success] {
            window.record(mark);
        }
        window.clear();
        assert_eq!(window.sums(), WindowCalls::default());
        plays(&window, &[(Failure, calls(1, 1, 0, 0))]);
    }
}
