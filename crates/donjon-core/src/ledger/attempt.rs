//! One attempt.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use super::{
    Ledger,
    slot::{Slot, drop_reason},
};
use crate::{error::LlmError, name::Name, vocab::Usage};

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum AttemptCause {
    /// It is the first.
    #[default]
    First = 0,
    /// The attempt before it failed, and the same target is asked again.
    Retry = 1,
    /// The target before it failed.
    Failover = 2,
    /// The attempt before it is slow; whichever commits first wins.
    Hedge = 3,
    /// The stream before it broke, and is continued.
    Resume = 4,
}

/// Whether an attempt is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Billed {
    /// Nobody can tell.
    #[default]
    Unknown = 0,
    /// The provider charges for it.
    Yes = 1,
    /// It was never sent, or was refused.
    No = 2,
}

/// Why an attempt was dropped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum DropReason {
    /// The caller left.
    CallerLeft = 1,
    /// Another attempt took over: a hedge that was faster, a failover.
    Superseded = 2,
}

/// What is known of an attempt, read at one moment. Times count from the call's beginning.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Its place in the ledger.
    pub index: u32,
    /// Why it was made.
    pub cause: AttemptCause,
    /// The attempt it follows from.
    pub parent: Option<u32>,
    /// Of a hedge: the first attempt of whoever made it, which may be far from the one that is slow.
    pub beside: Option<u32>,
    /// The target that was asked.
    pub target: Option<Name>,
    /// The model that was asked, once the leaf or a driver that maps it has said so.
    pub model: Option<Arc<str>>,
    /// When it was handed to the transport.
    pub sent_at: Option<Duration>,
    /// When the answer's head came.
    pub first_byte_at: Option<Duration>,
    /// When it committed.
    pub committed_at: Option<Duration>,
    /// When it ended.
    pub ended_at: Option<Duration>,
    /// What it used, as far as is known.
    pub usage: Usage,
    /// Whether it is billed.
    pub billed: Billed,
    /// Why it was dropped.
    pub dropped: Option<DropReason>,
    /// What it failed with.
    pub error: Option<LlmError>,
}

impl Attempt {
    /// From sending to the commit point; never time in queues of ours.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        Some(self.committed_at?.saturating_sub(self.sent_at?))
    }
}

/// When the steps of an attempt were, as far as it got; each counts from the call's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamps {
    /// When it was handed to the transport.
    pub sent_at: Option<Duration>,
    /// When it committed.
    pub committed_at: Option<Duration>,
    /// When it ended.
    pub ended_at: Option<Duration>,
}

/// A handle on one attempt of a ledger; cheap to clone.
#[derive(Clone)]
pub struct AttemptRef {
    ledger: Arc<Ledger>,
    index: u32,
}

/// Stands for "the call began, and no attempt was opened yet".
const NONE: u32 = u32::MAX;

impl AttemptRef {
    pub(super) fn new(ledger: Arc<Ledger>, index: u32) -> Self {
        Self { ledger, index }
    }

    pub(crate) fn none_of(ledger: Arc<Ledger>) -> Self {
        Self::new(ledger, NONE)
    }

    /// Goes on to a new attempt of the same ledger, which follows from this one.
    pub(crate) fn advance(&mut self, cause: AttemptCause) {
        let parent = self.is_open().then_some(self.index);
        self.index = self.ledger.open_slot(cause, parent);
        // A retry asks the same target for the same model.
        if let (AttemptCause::Retry, Some(parent)) = (cause, parent) {
            self.aim_as(parent);
        }
    }

    /// Goes on to a new attempt, which follows from the one at `parent`.
    pub(crate) fn advance_from(&mut self, cause: AttemptCause, parent: Option<u32>) {
        self.index = self.ledger.open_slot(cause, parent);
    }

    /// Says that it asks the target for the model that the attempt at `index` asks.
    pub fn aim_as(&self, index: u32) {
        let (slot, other) = (self.slot(), self.ledger.slot(index));
        if let Some(target) = other.target() {
            slot.set_target(target);
        }
        if let Some(model) = other.model.get() {
            slot.set_model(model);
        }
    }

    /// Says that it is a hedge beside the attempt at `first`, of the same driver, and asks the same target
    /// for the same model.
    pub fn stand_beside(&self, first: u32) {
        self.aim_as(first);
        self.slot().beside.store(first + 1, Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.index != NONE
    }

    /// The ledger it stands in.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Its place in the ledger.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What is known of it now.
    pub fn read(&self) -> Attempt {
        self.slot().read(self.index)
    }

    /// Claims an attempt that nobody else knows of yet.
    pub(crate) fn claim_fresh(&self) {
        self.slot().claimed.store(true, Release);
    }

    /// When its steps were: what [`read`](Self::read) says of that, without the rest.
    #[inline]
    pub fn stamps(&self) -> Stamps {
        self.slot().stamps()
    }

    /// The target that is asked, once that is said.
    pub fn target(&self) -> Option<Name> {
        self.slot().target()
    }

    /// Claims it for sending; false if it was claimed before.
    pub(crate) fn claim(&self) -> bool {
        !self.slot().claimed.swap(true, AcqRel)
    }

    /// Says which target is asked. Only the first to say so counts; of two at once either does.
    #[inline]
    pub fn set_target(&self, target: Name) {
        self.slot().set_target(target);
    }

    /// Says which model is asked: a driver that maps it, or the leaf. Only the first to say so
    /// counts.
    pub fn set_model(&self, model: &Arc<str>) {
        self.slot().set_model(model);
    }

    /// Stamps it as handed to the transport. Only the first stamp counts.
    pub fn stamp_sent(&self) {
        if !self.was_sent() {
            self.sent_at(self.ledger.stamp());
        }
    }

    /// Stamps the coming of the answer's head. Only the first stamp counts.
    pub fn stamp_first_byte(&self) {
        self.stamp(|slot| &slot.first_byte_at);
    }

    /// Stamps the commit point. Only the first stamp counts.
    pub fn stamp_committed(&self) {
        let slot = self.slot();
        if slot.committed_at.load(Acquire) == 0 {
            let now = self.ledger.stamp();
            // A leaf that answered at once and did not say when it sent: it was now.
            if !self.was_sent() {
                self.sent_at(now);
            }
            slot.committed_at.store(now, Release);
        }
    }

    /// Stamps the end. Only the first stamp counts.
    pub fn stamp_ended(&self) {
        self.stamp(|slot| &slot.ended_at);
    }

    /// Stamps the end at the commit point, where a whole answer has both at once.
    pub(crate) fn stamp_ended_as_committed(&self) {
        let slot = self.slot();
        slot.ended_at
            .store(slot.committed_at.load(Acquire), Release);
    }

    /// Whether it was handed to the transport.
    pub fn was_sent(&self) -> bool {
        self.slot().sent_at.load(Acquire) != 0
    }

    /// Records what it used, as far as is known; the latest figure counts.
    pub fn set_usage(&self, usage: &Usage) {
        let figures = [
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write,
            usage.reasoning,
            usage.input_audio,
            usage.output_audio,
        ];
        for (cell, figure) in self.slot().usage.iter().zip(figures) {
            cell.store(figure, Release);
        }
    }

    /// Records whether it is billed.
    pub fn set_billed(&self, billed: Billed) {
        self.slot().billed.store(billed as u8, Release);
    }

    /// Says why it is about to be dropped; those who watch it hear this reason. The first counts.
    pub fn set_dropped(&self, reason: DropReason) {
        let _ = self
            .slot()
            .dropped
            .compare_exchange(0, reason as u8, AcqRel, Acquire);
    }

    /// Why it was dropped, if anyone said, of it or of the attempt that it repeats.
    pub fn dropped(&self) -> Option<DropReason> {
        let mut index = self.index;
        loop {
            let slot = self.ledger.slot(index);
            let reason = drop_reason(slot.dropped.load(Acquire));
            if reason.is_some() || slot.cause.load(Relaxed) != AttemptCause::Retry as u8 {
                return reason;
            }
            index = slot.parent.load(Acquire).checked_sub(1)?;
        }
    }

    /// Says that the leaf stamps the sending of this attempt itself, because it may keep it waiting
    /// before; otherwise [`commit`](crate::commit) takes the first `Pending` for it.
    pub fn leaf_stamps_sent(&self) {
        self.slot().leaf_stamps.store(true, Release);
    }

    pub(crate) fn stamp_sent_unless_leaf_does(&self) {
        if !self.slot().leaf_stamps.load(Acquire) {
            self.stamp_sent();
        }
    }

    /// Whether it and all that it follows from are the first of their kind: a driver of drivers opens one
    /// for the group, and one under it for the first of the group.
    pub fn is_first(&self) -> bool {
        let mut index = self.index;
        loop {
            let slot = self.ledger.slot(index);
            if slot.cause.load(Relaxed) != AttemptCause::First as u8 {
                return false;
            }
            match slot.parent.load(Acquire).checked_sub(1) {
                Some(parent) => index = parent,
                None => return true,
            }
        }
    }

    /// Whether it, or an attempt that follows from it, was handed to the transport.
    pub fn led_to_sending(&self) -> bool {
        let follows = |mut index: u32| {
            while index > self.index {
                match self.ledger.slot(index).parent.load(Acquire).checked_sub(1) {
                    Some(parent) => index = parent,
                    None => return false,
                }
            }
            index == self.index
        };
        let sent = |index| self.ledger.slot(index).sent_at.load(Acquire) != 0;
        (self.index..self.ledger.opened()).any(|index| sent(index) && follows(index))
    }

    /// What it failed with, once that is known.
    pub fn error(&self) -> Option<&LlmError> {
        self.slot().error.get()
    }

    /// Lets go of it by `drop`, because of `error`: whoever watches it and sees it dropped meanwhile
    /// hears this failure, and no cancellation.
    pub fn let_go(&self, error: &LlmError, drop: impl FnOnce()) {
        self.set_error(error);
        self.slot().let_go.store(true, Release);
        drop();
        self.slot().let_go.store(false, Release);
    }

    /// The error that it is being let go of for.
    pub(crate) fn let_go_for(&self) -> Option<&LlmError> {
        let slot = self.slot();
        slot.error.get().filter(|_| slot.let_go.load(Acquire))
    }

    /// Records that it was given up before it reached the leaf: nothing was sent.
    pub fn set_unsent(&self) {
        self.leaf_stamps_sent();
        self.set_billed(Billed::No);
    }

    /// Records what it failed with; the first counts.
    pub fn set_error(&self, error: &LlmError) {
        let _ = self.slot().error.set(error.clone());
    }

    /// Nearly always there is one who stamps; where there are two at once, either moment is right,
    /// so that a load and a store do for a compare-and-swap.
    fn stamp(&self, of: impl Fn(&Slot) -> &AtomicU64) {
        let cell = of(self.slot());
        if cell.load(Acquire) == 0 {
            cell.store(self.ledger.stamp(), Release);
        }
    }

    /// Counts it as sent at `stamp`, once.
    fn sent_at(&self, stamp: u64) {
        let slot = self.slot();
        let first = slot.sent_at.compare_exchange(0, stamp, AcqRel, Acquire);
        match (first, slot.uses.load(Relaxed)) {
            (Ok(_), 0) => self.ledger.tally.send(),
            (Ok(_), kept) => self.ledger.slot(kept - 1).room.send(&self.ledger.tally),
            (Err(_), _) => {}
        }
    }

    /// Whether there is room for it that nothing was sent in yet.
    pub(super) fn has_room(&self) -> bool {
        match self.slot().uses.load(Acquire) {
            0 => false,
            kept => self.ledger.slot(kept - 1).room.is_kept(),
        }
    }

    /// Room is kept for it and those that follow from it.
    pub(super) fn keep_room(&self) {
        let slot = self.slot();
        slot.room.keep();
        slot.uses.store(self.index + 1, Release);
    }

    fn slot(&self) -> &Slot {
        self.ledger.slot(self.index)
    }
}

impl fmt::Debug for AttemptRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_open() {
            self.read().fmt(f)
        } else {
            f.write_str("no attempt yet")
        }
    }
}
