//! The calls that ended in the latest so much time.

use std::time::Duration;

use super::{Mark, Pair, WindowCalls};
use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// A ring of buckets, each for the calls that ended in one tick of time.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    /// How long a tick is, in nanoseconds.
    tick: u64,
    /// Calls and failures.
    ended: Ring,
    /// Slow calls and slow failures.
    slow: Ring,
}

impl TimeWindow {
    pub(super) fn new(length: Duration, buckets: u32) -> Self {
        let buckets = buckets.max(1);
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            tick: length.div_ceil(u64::from(buckets)).max(1),
            ended: Ring::new(buckets),
            slow: Ring::new(buckets),
        }
    }

    pub(super) fn record(&self, mark: Mark, now: u64) -> WindowCalls {
        let tick = now / self.tick;
        // Slow calls first: whoever adds to the others last sees all of both.
        if mark.slow() {
            self.slow.add(tick, mark.failed());
        } else {
            self.slow.sweep(tick);
        }
        let (calls, failures) = self.ended.add(tick, mark.failed());
        let (slow, slow_failures) = self.slow.sums.get();
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    /// The running sums, once what has left the window is taken out.
    #[cfg(all(test, loom))]
    pub(super) fn sums(&self, now: u64) -> WindowCalls {
        self.ended.sweep(now / self.tick);
        self.slow.sweep(now / self.tick);
        let (calls, failures) = self.ended.sums.get();
        let (slow, slow_failures) = self.slow.sums.get();
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    pub(super) fn scan(&self, now: u64) -> WindowCalls {
        let (calls, failures) = self.ended.scan(now / self.tick);
        let (slow, slow_failures) = self.slow.scan(now / self.tick);
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    pub(super) fn clear(&self) {
        self.ended.clear();
        self.slow.clear();
    }
}

/// Buckets that count things, and some of them twice, with running sums.
///
/// A bucket says in the same word which tick it counts and what it counted, so that what is put into
/// it and what is taken out of it cannot miss each other.
#[derive(Debug)]
struct Ring {
    buckets: Box<[AtomicU64]>,
    sums: Pair,
    /// The latest tick that anyone came with; no bucket counts a later one.
    latest: AtomicU64,
    /// The latest tick that was swept for: all that had left its window is taken out.
    swept: AtomicU64,
}

/// One bucket in a word: 28 bits of its tick, and two counts of 18.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bucket {
    tag: u64,
    all: u32,
    marked: u32,
}

const TAG_BITS: u32 = 28;
const TAG: u64 = (1 << TAG_BITS) - 1;
const COUNT_BITS: u32 = 18;
/// A bucket counts no further.
const MOST: u32 = (1 << COUNT_BITS) - 1;

impl Bucket {
    #[expect(clippy::cast_possible_truncation, reason = "so many bits are meant")]
    const fn read(word: u64) -> Self {
        Self {
            tag: word >> (2 * COUNT_BITS),
            all: (word >> COUNT_BITS) as u32 & MOST,
            marked: word as u32 & MOST,
        }
    }

    const fn word(self) -> u64 {
        (self.tag & TAG) << (2 * COUNT_BITS) | (self.all as u64) << COUNT_BITS | self.marked as u64
    }
}

impl Ring {
    fn new(buckets: u32) -> Self {
        Self {
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            sums: Pair::default(),
            latest: AtomicU64::new(0),
            swept: AtomicU64::new(0),
        }
    }

    fn place(&self, tick: u64) -> &AtomicU64 {
        let size = self.buckets.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "an index of the buckets")]
        &self.buckets[(tick % size) as usize]
    }

    /// Reads a bucket and the tick that it counts.
    fn read(&self, place: &AtomicU64) -> (u64, Bucket, u64) {
        let word = place.load(Acquire);
        let bucket = Bucket::read(word);
        // Loaded after it, so it is no earlier than the bucket's.
        let latest = self.latest.load(Acquire);
        let age = latest.wrapping_sub(bucket.tag) & TAG;
        (word, bucket, latest.saturating_sub(age))
    }

    /// Counts one in the bucket of `tick`, twice if it is `marked`, and tells the sums.
    fn add(&self, tick: u64, marked: bool) -> (u32, u32) {
        let swept = self.sweep(tick);
        // Whoever comes when their tick has left the window counts as ended now.
        let mut tick = if tick < self.oldest(swept) {
            swept
        } else {
            tick
        };
        loop {
            let place = self.place(tick);
            let (word, seen, at) = self.read(place);
            if at < tick {
                self.renew(tick);
                continue;
            }
            // Time may have gone on meanwhile.
            tick = at;
            if seen.all == MOST {
                return self.sums.get();
            }
            let next = Bucket {
                all: seen.all + 1,
                marked: seen.marked + u32::from(marked),
                ..seen
            };
            if swap(place, word, next) {
                return self.sums.add(1, i32::from(marked));
            }
        }
    }

    /// Takes out what has left the window by `tick`, and tells the latest tick that this was done
    /// for. Whoever comes first in a tick does it, and whoever comes meanwhile helps.
    fn sweep(&self, tick: u64) -> u64 {
        let swept = self.swept.load(Acquire);
        if tick <= swept {
            return swept;
        }
        if tick - swept > TAG / 2 {
            // After so long a tag does not tell any more how old it is.
            self.clear();
        }
        self.latest.fetch_max(tick, AcqRel);
        for tick in self.oldest(tick).max(swept + 1)..=tick {
            self.renew(tick);
        }
        self.swept.fetch_max(tick, AcqRel).max(tick)
    }

    /// The oldest tick of the window that ends with `tick`.
    fn oldest(&self, tick: u64) -> u64 {
        (tick + 1).saturating_sub(self.buckets.len() as u64)
    }

    /// Empties the bucket of `tick` if it still counts an older one.
    fn renew(&self, tick: u64) {
        let place = self.place(tick);
        loop {
            let (word, seen, at) = self.read(place);
            if at >= tick {
                return;
            }
            let empty = Bucket {
                tag: tick & TAG,
                all: 0,
                marked: 0,
            };
            if swap(place, word, empty) {
                return self.subtract(seen);
            }
        }
    }

    fn subtract(&self, bucket: Bucket) {
        if bucket.all > 0 {
            let negative = |count: u32| -i32::try_from(count).unwrap_or(i32::MAX);
            self.sums.add(negative(bucket.all), negative(bucket.marked));
        }
    }

    /// Sums the buckets of the window up to `tick` one by one.
    fn scan(&self, tick: u64) -> (u32, u32) {
        let oldest = self.oldest(tick);
        let read = self.buckets.iter().map(|place| self.read(place));
        read.filter(|(_, _, at)| *at >= oldest)
            .fold((0, 0), |(all, marked), (_, bucket, _)| {
                (all + bucket.all, marked + bucket.marked)
            })
    }

    fn clear(&self) {
        for place in &self.buckets {
            loop {
                let word = place.load(Acquire);
                let seen = Bucket::read(word);
                let empty = Bucket {
                    all: 0,
                    marked: 0,
                    ..seen
                };
                if swap(place, word, empty) {
                    break self.subtract(seen);
                }
            }
        }
    }
}

fn swap(place: &AtomicU64, old: u64, new: Bucket) -> bool {
    place
        .compare_exchange(old, new.word(), AcqRel, Acquire)
        .is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use Mark::{Failure, SlowFailure, SlowSuccess, Success};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn window() -> TimeWindow {
        TimeWindow::new(Duration::from_secs(5), 5)
    }

    fn calls(calls: u32, failures: u32, slow: u32, slow_failures: u32) -> WindowCalls {
        WindowCalls {
            calls,
            failures,
            slow,
            slow_failures,
        }
    }

    #[test]
    fn it_is_empty_in_the_beginning() {
        for now in [0, 3 * SECOND, 1_000_000 * SECOND] {
            assert_eq!(window().scan(now), WindowCalls::default());
        }
    }

    #[test]
    fn each_kind_of_call_is_counted_as_what_it_is() {
        for (mark, sums) in [
            (Success, calls(1, 0, 0, 0)),
            (Failure, calls(1, 1, 0, 0)),
            (SlowSuccess, calls(1, 0, 1, 0)),
            (SlowFailure, calls(1, 1, 1, 1)),
        ] {
            let window = window();
            assert_eq!(window.record(mark, 7 * SECOND), sums);
            assert_eq!(window.scan(7 * SECOND), sums);
        }
    }

    #[test]
    fn the_rate_of_slow_calls() {
        let window = window();
        for mark in [SlowSuccess, SlowFailure, Success, Success, Success] {
            window.record(mark, 0);
        }
        assert_eq!(window.scan(0), calls(5, 1, 2, 1));
        assert_eq!(window.scan(0).slow_rate(), Some(0.4));
    }

    #[test]
    fn calls_leave_it_when_their_time_is_over() {
        let window = window();
        let mut now = 100 * SECOND;
        assert_eq!(window.record(Failure, now), calls(1, 1, 0, 0));
        now += 100 * MS;
        assert_eq!(window.record(Success, now), calls(2, 1, 0, 0));
        assert_eq!(window.scan(now).failure_rate(), Some(0.5));
        now += 700 * MS;
        assert_eq!(window.record(Success, now), calls(3, 1, 0, 0));
        now += 4 * SECOND;
        assert_eq!(window.scan(now), calls(3, 1, 0, 0));
        now += SECOND;
        assert_eq!(window.scan(now), WindowCalls::default());
        now += 100 * MS;
        assert_eq!(window.record(Success, now), calls(1, 0, 0, 0));
    }

    #[test]
    fn it_slides_bucket_by_bucket() {
        let window = window();
        let mut now = 0;
        for (after, mark, sums) in [
            (0, Failure, calls(1, 1, 0, 0)),
            (100 * MS, Success, calls(2, 1, 0, 0)),
            (100 * MS, Success, calls(3, 1, 0, 0)),
            (SECOND, Success, calls(4, 1, 0, 0)),
            (SECOND, Success, calls(5, 1, 0, 0)),
            (SECOND, Failure, calls(6, 2, 0, 0)),
            (SECOND, Success, calls(7, 2, 0, 0)),
            // The three of the first second leave it.
            (SECOND, Success, calls(5, 1, 0, 0)),
            (SECOND, Success, calls(5, 1, 0, 0)),
            // All but itself have.
            (5 * SECOND, Success, calls(1, 0, 0, 0)),
        ] {
            now += after;
            assert_eq!(window.record(mark, now), sums, "at {now}");
            assert_eq!(window.scan(now), sums, "at {now}");
        }
    }

    #[test]
    fn one_who_comes_too_late_counts_as_ended_now() {
        let window = window();
        window.record(Success, 9 * SECOND);
        assert_eq!(window.record(Failure, 8 * SECOND), calls(2, 1, 0, 0));
        assert_eq!(window.record(Failure, SECOND), calls(3, 2, 0, 0));
        assert_eq!(window.scan(12 * SECOND), calls(3, 2, 0, 0));
        assert_eq!(window.scan(13 * SECOND), calls(2, 1, 0, 0));
        assert_eq!(window.scan(14 * SECOND), WindowCalls::default());
    }

    /// However long nothing happened, also where the tags begin anew.
    #[test]
    fn what_is_old_never_counts() {
        for idle in [
            5,
            100,
            TAG - 4,
            TAG,
            TAG + 7,
            3 * TAG,
            u64::MAX / SECOND - 20,
        ] {
            let window = window();
            for second in 0..5 {
                window.record(SlowFailure, second * SECOND);
            }
            let now = (4 + idle) * SECOND;
            assert_eq!(window.scan(now), WindowCalls::default(), "after {idle}");
            let sums = window.record(SlowSuccess, now);
            assert_eq!((sums.failures, sums.slow_failures), (0, 0), "after {idle}");
        }
    }

    #[test]
    fn a_bucket_that_is_full_counts_no_further() {
        let window = TimeWindow::new(Duration::from_secs(2), 2);
        for _ in 0..MOST + 10 {
            window.record(Failure, 0);
        }
        assert_eq!(window.scan(0), calls(MOST, MOST, 0, 0));
        assert_eq!(window.record(Success, SECOND), calls(MOST + 1, MOST, 0, 0));
        assert_eq!(window.record(Success, 2 * SECOND), calls(2, 0, 0, 0));
    }

    #[test]
    fn cleared_it_is_as_new() {
        let window = window();
        for second in 0..7 {
            window.record(SlowFailure, second * SECOND);
        }
        window.clear();
        assert_eq!(window.scan(6 * SECOND), WindowCalls::default());
        assert_eq!(window.record(Success, 6 * SECOND), calls(1, 0, 0, 0));
    }
}
