//! Room for one more attempt, kept from the decision to make it until it is sent.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{AttemptRef, Ledger};
use crate::vocab::Call;

/// Room for one more attempt of a call. Several lines of attempts (a hedge beside the first) may each
/// decide to make one more; whoever [reserves](Call::reserve_retry) it first has it.
///
/// It is used up when the attempt that it is [kept for](Self::keep_for), or the first of those that
/// follow from it, is sent; what is dropped before that is there for others.
#[must_use]
pub struct ReservedAttempt(Box<Inner>);

/// In a box: only calls that make more than one attempt have it, and all have room for it.
struct Inner {
    ledger: Arc<Ledger>,
    kept: Kept,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    /// For an attempt that is not open yet.
    Free,
    /// For the attempt at this place, and those that follow from it.
    For(u32),
    /// The attempt that it would follow from was not sent: it takes over that one's room.
    Above,
}

impl Ledger {
    /// Reserves one more attempt of the whole call beside the first, if its cap allows that and still
    /// leaves `untried`.
    pub fn reserve_hedge(self: &Arc<Self>, untried: u32) -> Option<ReservedAttempt> {
        let limit = self.limit.load(Relaxed);
        self.reserve(|promised| limit == 0 || promised.saturating_add(untried) < limit)
    }

    fn reserve(self: &Arc<Self>, fits: impl Fn(u32) -> bool) -> Option<ReservedAttempt> {
        self.tally
            .reserve(fits)
            .then(|| ReservedAttempt::new(self.clone(), Kept::Free))
    }
}

impl Call {
    /// Reserves one more attempt at the same target, where [`Ledger::may_retry`] says that there may
    /// be one. A call that has not begun has made none.
    pub fn reserve_retry(&self, per_target: u32) -> Option<ReservedAttempt> {
        let ledger = self.ledger()?;
        self.room_above().or_else(|| {
            let (total, untried) = (ledger.total(per_target), ledger.untried());
            ledger.reserve(|promised| promised.saturating_add(untried) < total)
        })
    }

    /// Reserves an attempt at another target, where [`Ledger::may_fail_over`] says that there may be
    /// one.
    pub fn reserve_failover(&self) -> Option<ReservedAttempt> {
        let ledger = self.ledger()?;
        self.room_above().or_else(|| ledger.reserve_hedge(0))
    }

    /// The room of an attempt that was not sent, for the next one.
    fn room_above(&self) -> Option<ReservedAttempt> {
        let attempt = self.attempt().filter(|attempt| attempt.has_room())?;
        Some(ReservedAttempt::new(attempt.ledger().clone(), Kept::Above))
    }
}

impl ReservedAttempt {
    fn new(ledger: Arc<Ledger>, kept: Kept) -> Self {
        Self(Box::new(Inner { ledger, kept }))
    }

    /// Has it in the place of `old`, the room of the attempt before: that stays if nothing was sent in it.
    pub fn renew(self, old: &mut Option<Self>) {
        if old.is_none() || !matches!(self.0.kept, Kept::Above) {
            *old = Some(self);
        }
    }

    /// Keeps it for `attempt`, which was opened for it, and for those that follow from that one.
    pub fn keep_for(&mut self, attempt: &AttemptRef) {
        if matches!(self.0.kept, Kept::Free) {
            self.0.kept = Kept::For(attempt.index());
            attempt.keep_room();
        }
    }
}

impl Drop for ReservedAttempt {
    fn drop(&mut self) {
        match self.0.kept {
            Kept::Free => self.0.ledger.tally.release(),
            Kept::For(index) => self.0.ledger.slot(index).release_room(&self.0.ledger.tally),
            Kept::Above => {}
        }
    }
}

impl fmt::Debug for ReservedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReservedAttempt")
            .field("kept", &self.0.kept)
            .finish_non_exhaustive()
    }
}
