//! What is counted in a pool.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use donjon_core::Counts;

use crate::{
    slots::Word,
    wait_times::{Histogram, WaitTimes},
};

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// Every slot was in use, and [`Overflow::Reject`](crate::Overflow::Reject) lets nobody wait.
    Full,
    /// The queue was full.
    QueueFull,
    /// By the pace at which slots are given back it would not have been served in time.
    TooLate,
    /// It waited, and gave way to a call of a higher priority.
    Evicted,
    /// It waited for as long as the pool allows.
    MaxWait,
    /// It waited for as long as the call's patience allows.
    Patience,
    /// The call's deadline passed.
    Deadline,
    /// Every key that may be kept apart was in use.
    Keys,
}

impl RejectReason {
    /// Every reason, in the order of the figures.
    pub const ALL: &'static [Self] = &[
        Self::Full,
        Self::QueueFull,
        Self::TooLate,
        Self::Evicted,
        Self::MaxWait,
        Self::Patience,
        Self::Deadline,
        Self::Keys,
    ];

    /// The word for it in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::QueueFull => "queue_full",
            Self::TooLate => "too_late",
            Self::Evicted => "evicted",
            Self::MaxWait => "max_wait",
            Self::Patience => "patience",
            Self::Deadline => "deadline",
            Self::Keys => "keys",
        }
    }

    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Full => "every slot of the pool is in use",
            Self::QueueFull => "the queue of the pool is full",
            Self::TooLate => "the pool could not serve the call in time",
            Self::Evicted => "the call gave way to one of a higher priority",
            Self::MaxWait => "the call waited for a slot as long as the pool allows",
            Self::Patience => "the call waited for a slot as long as its patience allows",
            Self::Deadline => "the call's deadline has passed",
            Self::Keys => "every key that the pool may keep apart is in use",
        }
    }

    fn at(self) -> usize {
        match self {
            Self::Full => 0,
            Self::QueueFull => 1,
            Self::TooLate => 2,
            Self::Evicted => 3,
            Self::MaxWait => 4,
            Self::Patience => 5,
            Self::Deadline => 6,
            Self::Keys => 7,
        }
    }
}

const REASONS: usize = RejectReason::ALL.len();

/// How many calls were admitted. For a pool that many threads use it is counted without contention,
/// which takes some memory; for that of one of many keys it is not.
#[derive(Debug)]
pub(crate) enum Admitted {
    Spread(Counts<1>),
    Plain(Count),
}

impl Admitted {
    #[inline]
    pub(crate) fn add(&self) {
        match self {
            Self::Spread(counts) => counts.add(0, 1),
            Self::Plain(count) => count.add(1),
        }
    }

    fn get(&self) -> u64 {
        match self {
            Self::Spread(counts) => counts.get(0),
            Self::Plain(count) => count.get(),
        }
    }
}

/// A figure that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one pool counts.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) admitted: Admitted,
    pub(crate) temporary: Count,
    pub(crate) left: Count,
    pub(crate) waits: Histogram,
    rejected: [Count; REASONS],
}

impl Counters {
    /// For the pool of one of many keys, or for one that has no such company.
    pub(crate) fn new(one_of_many: bool) -> Self {
        let admitted = match one_of_many {
            true => Admitted::Plain(Count::default()),
            false => Admitted::Spread(Counts::new()),
        };
        Self {
            admitted,
            temporary: Count::default(),
            left: Count::default(),
            waits: Histogram::default(),
            rejected: array::from_fn(|_| Count::default()),
        }
    }

    pub(crate) fn reject(&self, reason: RejectReason) {
        self.rejected[reason.at()].add(1);
    }

    pub(crate) fn read(&self, word: Word, waiting: usize) -> PoolStats {
        PoolStats {
            size: u64::from(word.limit()),
            in_use: u64::from(word.in_use()),
            available: u64::from(word.limit().saturating_sub(word.in_use())),
            beyond: u64::from(word.in_use().saturating_sub(word.limit())),
            waiting: waiting as u64,
            admitted: self.admitted.get(),
            temporary: self.temporary.get(),
            left: self.left.get(),
            rejected: array::from_fn(|at| self.rejected[at].get()),
            wait_times: self.waits.read(),
        }
    }
}

/// The figures of a pool, or of several together, at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// How many slots there are.
    pub size: u64,
    /// How many of them, and beyond them, are in use.
    pub in_use: u64,
    /// How many are free.
    pub available: u64,
    /// How many are in use beyond the size: temporary ones, and what was in use when it shrank.
    pub beyond: u64,
    /// How many calls wait.
    pub waiting: u64,
    /// How many calls were given a slot so far.
    pub admitted: u64,
    /// How many of them a temporary one.
    pub temporary: u64,
    /// How many left while they waited.
    pub left: u64,
    /// How long those waited that were given a slot after a wait.
    pub wait_times: WaitTimes,
    rejected: [u64; REASONS],
}

impl PoolStats {
    /// How many calls were refused for `reason`.
    pub fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected[reason.at()]
    }

    /// How many calls were refused.
    pub fn rejected_in_all(&self) -> u64 {
        self.rejected.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Taken apart whole, so that a new figure does not compile until it is added.
        let Self {
            size,
            in_use,
            available,
            beyond,
            waiting,
            admitted,
            temporary,
            left,
            wait_times,
            rejected,
        } = other;
        self.size += size;
        self.in_use += in_use;
        self.available += available;
        self.beyond += beyond;
        self.waiting += waiting;
        self.admitted += admitted;
        self.temporary += temporary;
        self.left += left;
        self.wait_times.add(wait_times);
        for (sum, count) in self.rejected.iter_mut().zip(rejected) {
            *sum += count;
        }
    }

    pub(crate) fn add_rejected(&mut self, reason: RejectReason, count: u64) {
        self.rejected[reason.at()] += count;
    }
}
