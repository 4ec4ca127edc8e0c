//! Measuring what a layer costs: nanoseconds and allocations for each call, for each chunk of a stream.
//!
//! Every row (a service around a leaf) is measured in the same run, in many short batches taken round-robin over all rows in an
//! order shuffled anew each round, so that whatever the machine does meanwhile does it to all rows alike. A figure is the median
//! of its batches. The leaf is a row like any other; what a layer adds is the median of the differences, round by round, between
//! its row and its leaf's.
//!
//! Time is processor time ([`crate::clock::cpu`]), of all threads together: for 64 tasks on two threads it is what a call costs,
//! not how long it takes.

mod batch;

use futures_core::Stream;
use tower_service::Service;

use crate::stats::{least, median};
use batch::{Bench, Runtimes, Take, chunks, many, one};
pub use batch::{CHUNKS, TASKS};

const UNCOUNTED_ROUNDS: usize = 3;

/// What is measured of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unary calls one after the other in one task; the leaf's future is ready at its first poll.
    OneReady,
    /// The same from [`TASKS`] tasks on two threads, each with its own clone of the service.
    ManyReady,
    /// As `OneReady`, with a leaf whose future wakes itself and is pending once.
    OnePending,
    /// As `ManyReady`, with a leaf that is pending once, so that all tasks are in flight at the same time.
    ManyPending,
    /// The chunks of a stream that is always ready, in one task; the call that opened it is not in it.
    Chunk,
}

/// All modes, in the order of the columns.
pub const MODES: [Mode; 5] = [
    Mode::OneReady,
    Mode::ManyReady,
    Mode::OnePending,
    Mode::ManyPending,
    Mode::Chunk,
];

/// One line of the table: a service, how to make it, and what to compare it with.
pub struct Row {
    name: String,
    leaf: Option<&'static str>,
    peer: Option<&'static str>,
    benches: [Option<Bench>; MODES.len()],
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("name", &self.name)
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

impl Row {
    /// A bare leaf, which others are measured above.
    #[must_use]
    pub fn leaf(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            leaf: None,
            peer: None,
            benches: Default::default(),
        }
    }

    /// A layer around the leaf whose row is called `leaf`.
    #[must_use]
    pub fn above(leaf: &'static str, name: &str) -> Self {
        Self {
            leaf: Some(leaf),
            ..Self::leaf(name)
        }
    }

    /// Names the row of the nearest peer, to be compared with.
    #[must_use]
    pub fn beside(mut self, peer: &'static str) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The row's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a bare leaf.
    #[must_use]
    pub const fn is_leaf(&self) -> bool {
        self.leaf.is_none()
    }

    /// Adds unary calls in all four modes. `make` is told whether the leaf shall be pending once; it is called within a runtime.
    /// `request` makes the template a task clones its requests from: each task has its own, since calls in flight at the same time
    /// do not share a prompt, and the reference counts of one prompt would be all that 64 tasks showed.
    #[must_use]
    pub fn unary<S, R>(self, make: impl Fn(bool) -> S + Clone + 'static, request: fn() -> R) -> Self
    where
        S: Service<R, Future: Send> + Clone + Send + 'static,
        R: Clone + Send + Sync + 'static,
    {
        let mut row = self.unary_alone(make.clone(), request);
        row.set(Mode::ManyReady, many(make.clone(), false, request));
        row.set(Mode::ManyPending, many(make, true, request));
        row
    }

    /// As [`Row::unary`] for a service that cannot be cloned: one task only.
    #[must_use]
    pub fn unary_alone<S, R>(
        mut self,
        make: impl Fn(bool) -> S + Clone + 'static,
        request: fn() -> R,
    ) -> Self
    where
        S: Service<R, Future: Send> + Send + 'static,
        R: Clone + Send + Sync + 'static,
    {
        self.set(Mode::OneReady, one(make.clone(), false, request));
        self.set(Mode::OnePending, one(make, true, request));
        self
    }

    /// Adds streamed calls; `open` takes the stream out of the response.
    #[must_use]
    pub fn streamed<S, R, T>(
        mut self,
        make: impl Fn() -> S + 'static,
        request: fn() -> R,
        open: fn(S::Response) -> T,
    ) -> Self
    where
        S: Service<R, Future: Send, Response: Send> + Send + 'static,
        R: Clone + Send + 'static,
        T: Stream + Send + 'static,
    {
        self.set(Mode::Chunk, chunks(make, request, open));
        self
    }

    fn set(&mut self, mode: Mode, bench: Bench) {
        self.benches[mode as usize] = Some(bench);
    }
}

/// What one row showed in one mode, for each call or chunk.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Median nanoseconds, leaf and harness included.
    pub ns: f64,
    /// The least of the batches, in nanoseconds.
    pub least: f64,
    /// Median nanoseconds above the leaf; of a leaf the same as `ns`.
    pub above: f64,
    /// Allocations, leaf included.
    pub allocations: f64,
    /// Allocations above the leaf.
    pub allocations_above: f64,
}

/// All that a row showed.
#[derive(Clone, Debug)]
pub struct Line {
    /// The row's name.
    pub name: String,
    /// The name of its leaf's row; `None` for a leaf.
    pub leaf: Option<&'static str>,
    /// The name of the row it is compared with.
    pub peer: Option<&'static str>,
    /// A figure for each mode in the order of [`MODES`], where the row has that mode.
    pub figures: [Option<Figure>; MODES.len()],
}

/// Measures all rows, `rounds` batches for each row and mode.
///
/// # Panics
/// When a call fails, a stream is shorter than [`CHUNKS`], or a row names a leaf that is not there.
#[must_use]
pub fn measure(mut rows: Vec<Row>, rounds: usize) -> Vec<Line> {
    let runtimes = Runtimes::new();
    let mut random = fastrand::Rng::with_seed(1);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut times = vec![[const { Vec::new() }; MODES.len()]; rows.len()];
    for round in 0..UNCOUNTED_ROUNDS + rounds {
        for mode in MODES {
            random.shuffle(&mut order);
            for &row in &order {
                let Some(bench) = &mut rows[row].benches[mode as usize] else {
                    continue;
                };
                let ns = bench(&runtimes, Take::Time);
                if round >= UNCOUNTED_ROUNDS {
                    times[row][mode as usize].push(ns);
                }
            }
        }
    }
    let allocations: Vec<_> = rows
        .iter_mut()
        .map(|row| {
            row.benches.each_mut().map(|bench| {
                let bench = bench.as_mut()?;
                Some(median(
                    &[(); 3].map(|()| bench(&runtimes, Take::Allocations)),
                ))
            })
        })
        .collect();
    let names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    rows.iter()
        .enumerate()
        .map(
            |(
                row,
                Row {
                    name, leaf, peer, ..
                },
            )| {
                let below = leaf.map(|leaf| {
                    names
                        .iter()
                        .position(|name| name == leaf)
                        .expect("a row's leaf is a row")
                });
                let figures = MODES.map(|mode| {
                    let mode = mode as usize;
                    let mine = &times[row][mode];
                    let below = below.filter(|&leaf| allocations[leaf][mode].is_some());
                    let differences: Vec<f64> = match below {
                        Some(leaf) => mine
                            .iter()
                            .zip(&times[leaf][mode])
                            .map(|(mine, leaf)| mine - leaf)
                            .collect(),
                        None => mine.clone(),
                    };
                    let count = allocations[row][mode]?;
                    Some(Figure {
                        ns: median(mine),
                        least: least(mine),
                        above: median(&differences),
                        allocations: count,
                        allocations_above: count
                            - below
                                .and_then(|leaf| allocations[leaf][mode])
                                .unwrap_or(0.0),
                    })
                });
                Line {
                    name: name.clone(),
                    leaf: *leaf,
                    peer: *peer,
                    figures,
                }
            },
        )
        .collect()
}
