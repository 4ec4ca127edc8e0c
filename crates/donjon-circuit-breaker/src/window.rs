//! What became of the latest calls: windows that slide, with running sums.
//!
//! Pure and lock-free, with time passed in. Recording a call costs the same whatever the size of the
//! window.

mod count;
mod time;

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use count::CountWindow;
use time::TimeWindow;

/// Which calls a circuit is judged by: the latest so many, or those that ended in the latest so much
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count(u32),
    Time { length: Duration, buckets: u32 },
}

impl Window {
    /// The latest `calls` calls, from 1 to 1,000,000. A circuit keeps a byte for each, two once it
    /// has opened.
    pub const fn count(calls: u32) -> Self {
        Self(Kind::Count(calls))
    }

    /// The calls that ended in the latest `length`, in 20 [buckets](Self::buckets).
    pub const fn time(length: Duration) -> Self {
        Self(Kind::Time {
            length,
            buckets: 20,
        })
    }

    /// Sets in how many buckets a time window is kept, from 1 to 1,000 and each a millisecond long at
    /// least: a call leaves it with its bucket, so early by less than a bucket's length. A circuit
    /// keeps 16 bytes for each, 32 once it has opened. A window of so many calls has none.
    #[must_use]
    pub const fn buckets(mut self, buckets: u32) -> Self {
        if let Kind::Time { length, .. } = self.0 {
            self.0 = Kind::Time { length, buckets };
        }
        self
    }
}

/// The latest 100 calls.
impl Default for Window {
    fn default() -> Self {
        Self::count(100)
    }
}

/// How many calls a window holds, and of which kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowCalls {
    /// All of them.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that were slow, failed or not.
    pub slow: u32,
    /// Those that were slow and failed.
    pub slow_failures: u32,
}

impl WindowCalls {
    /// The share of calls that failed, from 0 to 1; `None` without calls.
    pub fn failure_rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| f64::from(self.failures) / f64::from(self.calls))
    }

    /// The share of calls that were slow, from 0 to 1; `None` without calls.
    pub fn slow_rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| f64::from(self.slow) / f64::from(self.calls))
    }

    pub(crate) fn add(&mut self, mark: Mark) {
        self.calls += 1;
        self.failures += u32::from(mark.failed());
        self.slow += u32::from(mark.slow());
        self.slow_failures += u32::from(mark.failed() && mark.slow());
    }
}

/// What is kept of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    Success = 1,
    SlowSuccess = 2,
    Failure = 3,
    SlowFailure = 4,
}

impl Mark {
    pub(crate) const fn new(failed: bool, slow: bool) -> Self {
        match (failed, slow) {
            (false, false) => Self::Success,
            (false, true) => Self::SlowSuccess,
            (true, false) => Self::Failure,
            (true, true) => Self::SlowFailure,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Success),
            2 => Some(Self::SlowSuccess),
            3 => Some(Self::Failure),
            4 => Some(Self::SlowFailure),
            _ => None,
        }
    }

    pub(crate) const fn failed(self) -> bool {
        matches!(self, Self::Failure | Self::SlowFailure)
    }

    pub(crate) const fn slow(self) -> bool {
        matches!(self, Self::SlowSuccess | Self::SlowFailure)
    }
}

/// The calls of one circuit.
#[derive(Debug)]
pub(crate) enum Calls {
    Count(CountWindow),
    Time(TimeWindow),
}

impl Calls {
    pub(crate) fn new(window: Window) -> Self {
        match window.0 {
            Kind::Count(calls) => Self::Count(CountWindow::new(calls)),
            Kind::Time { length, buckets } => Self::Time(TimeWindow::new(length, buckets)),
        }
    }

    /// Records a call that ended now, and sums up. While others record too, the sums may be ahead of
    /// or behind some of them, by these calls alone; what they lead to is checked with
    /// [`scan`](Self::scan).
    pub(crate) fn record(&self, mark: Mark, now: impl FnOnce() -> u64) -> WindowCalls {
        match self {
            Self::Count(window) => window.record(mark),
            Self::Time(window) => window.record(mark, now()),
        }
    }

    /// Counts what is in the window one by one.
    pub(crate) fn scan(&self, now: impl FnOnce() -> u64) -> WindowCalls {
        match self {
            Self::Count(window) => window.scan(),
            Self::Time(window) => window.scan(now()),
        }
    }

    /// Forgets all calls.
    pub(crate) fn clear(&self) {
        match self {
            Self::Count(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}

/// Two sums in one word, so that both are read and changed at once.
///
/// Whoever takes a call out of the window subtracts exactly what they took, so the sums cannot drift;
/// but they may do so before whoever put it there has added it. So each lane is signed, and one that
/// is below zero for a moment does not borrow from the other for good.
#[derive(Debug, Default)]
struct Pair(AtomicU64);

impl Pair {
    /// Adds to both, and tells the sums.
    fn add(&self, first: i32, second: i32) -> (u32, u32) {
        let delta = Self::pack(first, second);
        Self::unpack(self.0.fetch_add(delta, AcqRel).wrapping_add(delta))
    }

    fn get(&self) -> (u32, u32) {
        Self::unpack(self.0.load(Acquire))
    }

    #[expect(clippy::cast_sign_loss, reason = "two's complement is meant")]
    const fn pack(first: i32, second: i32) -> u64 {
        (((first as i64) << 32).wrapping_add(second as i64)) as u64
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "the lower half is meant, and what is below zero counts as zero"
    )]
    fn unpack(word: u64) -> (u32, u32) {
        let second = word as i32;
        let first = (word.wrapping_sub(i64::from(second) as u64) as i64 >> 32) as i32;
        (first.max(0) as u32, second.max(0) as u32)
    }
}

/// The interleavings of a few threads, by the model checker.
#[cfg(all(test, loom))]
mod model {
    use loom::{model::Builder, sync::Arc, thread};

    use super::*;

    /// Runs `work` in two threads, in every order with up to three preemptions; then the running sums
    /// must be what is there.
    fn race(window: Window, works: [fn(&Calls); 2], check: fn(WindowCalls)) {
        let mut model = Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let calls = Arc::new(Calls::new(window));
            calls.record(Mark::SlowFailure, || 0);
            let there = {
                let calls = calls.clone();
                thread::spawn(move || works[0](&calls))
            };
            works[1](&calls);
            there.join().expect("no panic");
            let now = || 2 * TICK;
            let sums = match &*calls {
                Calls::Count(window) => window.sums(),
                Calls::Time(window) => window.sums(now()),
            };
            assert_eq!(sums, calls.scan(now), "the sums do not drift");
            check(sums);
        });
    }

    const TICK: u64 = 1_000_000;

    #[test]
    fn a_window_of_calls_keeps_the_latest() {
        race(
            Window::count(1),
            [
                |calls| {
                    calls.record(Mark::Failure, || 0);
                },
                |calls| {
                    calls.record(Mark::SlowSuccess, || 0);
                },
            ],
            |sums| assert_eq!(sums.calls, 1),
        );
        race(
            Window::count(2),
            [
                |calls| {
                    calls.record(Mark::Success, || 0);
                },
                |calls| {
                    calls.record(Mark::Success, || 0);
                },
            ],
            |sums| assert_eq!((sums.calls, sums.failures, sums.slow), (2, 0, 0)),
        );
    }

    #[test]
    fn a_window_of_calls_is_cleared_while_others_record() {
        race(
            Window::count(2),
            [
                |calls| {
                    calls.record(Mark::Failure, || 0);
                },
                |calls| calls.clear(),
            ],
            |sums| assert!(sums.calls <= 1),
        );
    }

    #[test]
    fn a_window_of_time_loses_nothing_when_a_tick_begins() {
        let window = Window::time(Duration::from_millis(2)).buckets(2);
        race(
            window,
            [
                |calls| {
                    calls.record(Mark::Failure, || 2 * TICK);
                },
                |calls| {
                    calls.record(Mark::SlowSuccess, || 2 * TICK);
                },
            ],
            |sums| {
                let all = (sums.calls, sums.failures, sums.slow, sums.slow_failures);
                assert_eq!(all, (2, 1, 1, 0));
            },
        );
        // One of them is a tick behind, whose bucket is still in the window.
        race(
            window,
            [
                |calls| {
                    calls.record(Mark::Failure, || TICK);
                },
                |calls| {
                    calls.record(Mark::Success, || 2 * TICK);
                },
            ],
            |sums| assert_eq!((sums.calls, sums.failures), (2, 1)),
        );
    }

    #[test]
    fn a_window_of_time_is_cleared_while_others_record() {
        race(
            Window::time(Duration::from_millis(2)).buckets(2),
            [
                |calls| {
                    calls.record(Mark::Failure, || 2 * TICK);
                },
                |calls| calls.clear(),
            ],
            |sums| assert!(sums.calls <= 1),
        );
    }
}
