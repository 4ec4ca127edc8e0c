//! Figures that many threads count at once.

use std::{
    cell::Cell,
    fmt,
    sync::{
        OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
};

/// `N` figures that only grow, counted without contention: each of the first threads that count has
/// cells of its own, which it alone writes to, so that a count is a load and a store. Threads beyond
/// twice the processors, or beyond 63, share one cell.
///
/// A set takes 128 bytes for each processor, or more; it is for what a layer or a target counts, and
/// not for each of a million keys. The figures are read one after another while others count.
pub struct Counts<const N: usize> {
    cells: Box<[Line<N>]>,
}

/// On cache lines of its own.
#[repr(align(64))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> Counts<N> {
    /// All of them zero.
    pub fn new() -> Self {
        let line = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
        Self {
            cells: (0..=own_cells()).map(line).collect(),
        }
    }

    /// Adds `more` to the figure at place `at`.
    ///
    /// # Panics
    ///
    /// Where `at` is not less than `N`.
    #[inline]
    pub fn add(&self, at: usize, more: u64) {
        let place = place();
        if place != SHARED
            && let Some(own) = self.cells.get(place)
        {
            // Nobody else writes here, so nothing can come between.
            let cell = &own.0[at];
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        } else {
            self.cells[SHARED].0[at].fetch_add(more, Relaxed);
        }
    }

    /// The figure at place `at`.
    ///
    /// # Panics
    ///
    /// Where `at` is not less than `N`.
    pub fn get(&self, at: usize) -> u64 {
        let cells = self.cells.iter().map(|line| line.0[at].load(Relaxed));
        cells.fold(0, u64::wrapping_add)
    }
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Counts<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries((0..N).map(|at| self.get(at)))
            .finish()
    }
}

/// The place of the cell that all threads without one of their own share.
const SHARED: usize = 0;
/// A thread that has not counted yet.
const UNKNOWN: usize = usize::MAX;
/// The places of the first 63 threads that are alive, as bits.
static TAKEN: AtomicU64 = AtomicU64::new(1 << SHARED);

/// How many threads have cells of their own.
fn own_cells() -> usize {
    static CELLS: OnceLock<usize> = OnceLock::new();
    *CELLS.get_or_init(|| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).min(63)
    })
}

thread_local! {
    // Read on every count, so it has neither an initialiser nor a destructor.
    static PLACE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static LEASE: Lease = Lease::take();
}

#[inline]
fn place() -> usize {
    match PLACE.get() {
        UNKNOWN => first_count(),
        place => place,
    }
}

/// A thread counts for the first time; while it is going away it has no place of its own.
#[cold]
fn first_count() -> usize {
    let place = LEASE.try_with(|lease| lease.0).unwrap_or(SHARED);
    PLACE.set(place);
    place
}

/// A place that is the thread's until it ends.
struct Lease(usize);

impl Lease {
    fn take() -> Self {
        let mut taken = TAKEN.load(Relaxed);
        loop {
            let free = taken.trailing_ones() as usize;
            if free >= 64 {
                return Self(SHARED);
            }
            // What the thread before wrote to these cells is seen by the one who takes them over.
            match TAKEN.compare_exchange_weak(taken, taken | 1 << free, Acquire, Relaxed) {
                Ok(_) => return Self(free),
                Err(now) => taken = now,
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        PLACE.set(SHARED);
        if self.0 != SHARED {
            TAKEN.fetch_and(!(1 << self.0), Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads_that_come_and_go() {
        let counts = Counts::<2>::new();
        for _ in 0..20 {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..1_000 {
                            counts.add(0, 1);
                            counts.add(1, 2);
                        }
                    });
                }
            });
        }
        assert_eq!((counts.get(0), counts.get(1)), (160_000, 320_000));
    }

    #[test]
    fn two_threads_at_once_have_different_places() {
        // Many tests count at the same time, and may have taken all places for a moment.
        for _ in 0..1_000 {
            let (mine, other) = thread::scope(|scope| {
                let pair = || {
                    let mine = place();
                    let other = scope.spawn(place).join().expect("no panic");
                    assert_eq!(place(), mine, "a thread keeps its place");
                    (mine, other)
                };
                scope.spawn(pair).join().expect("no panic")
            });
            if mine != SHARED && other != SHARED {
                assert_ne!(mine, other);
                return;
            }
        }
        panic!("two threads never had places of their own");
    }

    #[test]
    fn a_thread_that_ends_gives_its_place_back() {
        for _ in 0..200 {
            thread::spawn(place).join().expect("no panic");
        }
        let last = thread::spawn(place).join().expect("no panic");
        assert_ne!(last, SHARED, "two hundred threads took all places for good");
    }
}
