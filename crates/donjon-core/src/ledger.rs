//! The attempts of one call.

mod attempt;
mod reserved;
mod slot;
mod tally;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::LlmError, vocab::saturating_add};
pub use attempt::{Attempt, AttemptCause, AttemptRef, Billed, DropReason, Stamps};
pub use reserved::ReservedAttempt;
use slot::Slot;
use tally::Tally;

/// The attempts of one call, of whichever layer and target: the one account that retry, failover
/// and hedging share, so that attempts never multiply.
///
/// The outermost layer opens it ([`Call::begin`](crate::Call::begin)); drivers open attempts in it;
/// the leaf, or [`commit`](crate::commit), stamps them. Nothing in it locks.
pub struct Ledger {
    began_at: Instant,
    opened: AtomicU32,
    tally: Tally,
    hedges: AtomicU32,
    targets: AtomicU32,
    untried: AtomicU32,
    limit: AtomicU32,
    /// The latest deadline of those who share the call, counted as stamps are.
    shared_until: AtomicU64,
    first: [Slot; 2],
    more: OnceLock<Box<Page>>,
}

/// Attempts beyond the first few.
#[derive(Default)]
struct Page {
    slots: [Slot; 6],
    next: OnceLock<Box<Page>>,
}

impl Ledger {
    /// Opens the ledger of a call that begins now.
    pub fn open() -> Arc<Self> {
        Arc::new(Self {
            began_at: Instant::now(),
            opened: AtomicU32::new(0),
            tally: Tally::new(),
            hedges: AtomicU32::new(0),
            targets: AtomicU32::new(1),
            untried: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            shared_until: AtomicU64::new(0),
            first: Default::default(),
            more: OnceLock::new(),
        })
    }

    /// When the call began.
    pub fn began_at(&self) -> Instant {
        self.began_at
    }

    /// How many attempts were sent. One that was refused or given up before it was sent uses up
    /// nothing.
    pub fn sent(&self) -> u32 {
        self.tally.sent()
    }

    /// How many attempts were opened, sent or not.
    pub fn opened(&self) -> u32 {
        self.opened.load(Relaxed)
    }

    /// How many targets the call may use; 1 without failover.
    pub fn targets(&self) -> u32 {
        self.targets.load(Relaxed)
    }

    /// How many of them were not tried yet; each of them has one attempt reserved.
    pub fn untried(&self) -> u32 {
        self.untried.load(Relaxed)
    }

    /// Says how many targets the call may use; the first of them is the one being tried.
    pub fn set_targets(&self, targets: u32) {
        self.targets.store(targets.max(1), Relaxed);
        self.untried.store(targets.saturating_sub(1), Relaxed);
    }

    /// Says how many targets remain untried.
    pub fn set_untried(&self, untried: u32) {
        self.untried.store(untried, Relaxed);
    }

    /// Caps the attempts of the whole call; the lowest cap that anyone sets holds.
    pub fn limit_attempts(&self, most: u32) {
        // 0 stands for "no cap" and so must lose against any; taking one off makes it the largest.
        let _ = self.limit.fetch_update(Relaxed, Relaxed, |old| {
            Some(if old == 0 {
                most.max(1)
            } else {
                old.min(most.max(1))
            })
        });
    }

    /// Whether a target that may be asked `per_target` times may be asked once more without taking
    /// the attempt that is reserved for each untried target. The whole call may make as many as was
    /// set by [`limit_attempts`](Self::limit_attempts), else `per_target` and one for each further
    /// target and each hedge; attempts that go on with a stream count, too. Whoever goes on to make it
    /// [reserves](crate::Call::reserve_retry) it.
    pub fn may_retry(&self, per_target: u32) -> bool {
        self.tally.promised().saturating_add(self.untried()) < self.total(per_target)
    }

    /// How many attempts the whole call may make.
    fn total(&self, per_target: u32) -> u32 {
        match self.limit.load(Relaxed) {
            0 => per_target
                .saturating_add(self.targets() - 1)
                .saturating_add(self.hedges()),
            limit => limit,
        }
    }

    /// Whether another target may be asked: the cap on the whole call, if one was set, allows it.
    /// Whoever goes on to ask it [reserves](crate::Call::reserve_failover) the attempt.
    pub fn may_fail_over(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        limit == 0 || self.tally.promised() < limit
    }

    /// How many hedges were made, each of them a line of attempts beside the others.
    pub fn hedges(&self) -> u32 {
        self.hedges.load(Relaxed)
    }

    /// Says that somebody who shares the call may wait until then, `None` for as long as it takes:
    /// the deadline of a call that is [shared](crate::Call::share) only ever moves on.
    pub fn extend(&self, deadline: Option<Instant>) {
        let until = deadline.map_or(u64::MAX, |at| {
            let nanos = at.saturating_duration_since(self.began_at).as_nanos();
            u64::try_from(nanos)
                .unwrap_or(u64::MAX - 1)
                .min(u64::MAX - 2)
                + 1
        });
        self.shared_until.fetch_max(until, Relaxed);
    }

    /// The latest deadline of those who share the call; `None` where one of them has none, or nobody
    /// shares it.
    pub(crate) fn shared_until(&self) -> Option<Instant> {
        match self.shared_until.load(Relaxed) {
            0 | u64::MAX => None,
            until => Some(saturating_add(
                self.began_at,
                Duration::from_nanos(until - 1),
            )),
        }
    }

    /// Opens an attempt.
    pub fn attempt(self: &Arc<Self>, cause: AttemptCause, parent: Option<u32>) -> AttemptRef {
        AttemptRef::new(self.clone(), self.open_slot(cause, parent))
    }

    fn open_slot(&self, cause: AttemptCause, parent: Option<u32>) -> u32 {
        let index = self.opened.fetch_add(1, Relaxed);
        let slot = self.slot(index);
        slot.open(cause, parent);
        if cause == AttemptCause::Hedge {
            // A line of its own, with room of its own.
            self.hedges.fetch_add(1, Relaxed);
        } else if let Some(parent) = parent {
            slot.share_room(self.slot(parent));
        }
        index
    }

    /// The attempts so far, in the order in which they were opened.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> + '_ {
        (0..self.opened()).map(|index| self.slot(index).read(index))
    }

    /// The attempt at this place, if there is one.
    pub fn at(self: &Arc<Self>, index: u32) -> Option<AttemptRef> {
        (index < self.opened()).then(|| AttemptRef::new(self.clone(), index))
    }

    /// What the attempt at this place failed with; `None` if it did not, and where there is none.
    #[inline]
    pub fn error(&self, index: u32) -> Option<&LlmError> {
        (index < self.opened()).then(|| self.slot(index).error.get())?
    }

    /// When the steps of the attempt at this place were; none of them where there is none.
    #[inline]
    pub fn stamps(&self, index: u32) -> Stamps {
        if index < self.opened() {
            return self.slot(index).stamps();
        }
        Stamps::default()
    }

    /// When the attempt at this place was handed to the transport; `None` before that, and where there
    /// is none.
    pub fn sent_at(&self, index: u32) -> Option<Instant> {
        let slot = (index < self.opened()).then(|| self.slot(index))?;
        self.began_at.checked_add(slot.sent_at()?)
    }

    /// The last attempt that was committed, which is the one that served.
    pub fn served_by(&self) -> Option<Attempt> {
        self.attempts()
            .filter(|attempt| attempt.committed_at.is_some())
            .last()
    }

    fn slot(&self, index: u32) -> &Slot {
        let mut at = index as usize;
        if at < self.first.len() {
            return &self.first[at];
        }
        at -= self.first.len();
        let mut page = self.more.get_or_init(Box::default);
        while at >= page.slots.len() {
            at -= page.slots.len();
            page = page.next.get_or_init(Box::default);
        }
        &page.slots[at]
    }

    /// Counts the time since the beginning; 0 stands for "never" in the slots.
    fn stamp(&self) -> u64 {
        let nanos = self.began_at.elapsed().as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("targets", &self.targets())
            .field("untried", &self.untried())
            .field("attempts", &self.attempts().collect::<Vec<_>>())
            .finish()
    }
}

fn unstamp(stamp: u64) -> Option<Duration> {
    stamp.checked_sub(1).map(Duration::from_nanos)
}
