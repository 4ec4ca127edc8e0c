//! Where one attempt stands in its ledger.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use super::{
    attempt::{Attempt, AttemptCause, Billed, DropReason, Stamps},
    tally::{Room, Tally},
    unstamp,
};
use crate::{error::LlmError, name::Name, vocab::Usage};

/// The place of one attempt in its ledger.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) cause: AtomicU8,
    pub(super) claimed: AtomicBool,
    pub(super) billed: AtomicU8,
    pub(super) dropped: AtomicU8,
    pub(super) leaf_stamps: AtomicBool,
    pub(super) let_go: AtomicBool,
    /// Room that is kept for it and those that follow from it.
    pub(super) room: Room,
    /// Whose room it uses; 0 stands for none.
    pub(super) uses: AtomicU32,
    pub(super) parent: AtomicU32,
    /// The first attempt of the race that it is a hedge in; 0 stands for none.
    pub(super) beside: AtomicU32,
    pub(super) sent_at: AtomicU64,
    pub(super) first_byte_at: AtomicU64,
    pub(super) committed_at: AtomicU64,
    pub(super) ended_at: AtomicU64,
    pub(super) usage: [AtomicU64; 7],
    /// The number of its name; 0 stands for none.
    pub(super) target: AtomicU32,
    pub(super) model: OnceLock<Arc<str>>,
    pub(super) error: OnceLock<LlmError>,
}

impl Slot {
    pub(super) fn open(&self, cause: AttemptCause, parent: Option<u32>) {
        self.cause.store(cause as u8, Relaxed);
        // 0 stands for none.
        self.parent.store(parent.map_or(0, |p| p + 1), Release);
    }

    /// Uses the room of the attempt that it follows from, if that has some.
    pub(super) fn share_room(&self, parent: &Self) {
        let uses = parent.uses.load(Acquire);
        if uses != 0 {
            self.uses.store(uses, Release);
        }
    }

    pub(super) fn release_room(&self, tally: &Tally) {
        self.room.release(tally);
    }

    pub(super) fn stamps(&self) -> Stamps {
        Stamps {
            sent_at: self.sent_at(),
            committed_at: unstamp(self.committed_at.load(Acquire)),
            ended_at: unstamp(self.ended_at.load(Acquire)),
        }
    }

    pub(super) fn sent_at(&self) -> Option<Duration> {
        unstamp(self.sent_at.load(Acquire))
    }

    pub(super) fn target(&self) -> Option<Name> {
        Name::of_number(self.target.load(Acquire))
    }

    pub(super) fn set_target(&self, target: Name) {
        if self.target.load(Acquire) == 0 {
            self.target.store(target.number().get(), Release);
        }
    }

    pub(super) fn set_model(&self, model: &Arc<str>) {
        if self.model.get().is_none() {
            let _ = self.model.set(model.clone());
        }
    }

    pub(super) fn read(&self, index: u32) -> Attempt {
        let [
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
            input_audio,
            output_audio,
        ] = std::array::from_fn(|at| self.usage[at].load(Acquire));
        Attempt {
            index,
            parent: self.parent.load(Acquire).checked_sub(1),
            beside: self.beside.load(Acquire).checked_sub(1),
            cause: match self.cause.load(Relaxed) {
                1 => AttemptCause::Retry,
                2 => AttemptCause::Failover,
                3 => AttemptCause::Hedge,
                4 => AttemptCause::Resume,
                _ => AttemptCause::First,
            },
            target: self.target(),
            model: self.model.get().cloned(),
            sent_at: self.sent_at(),
            first_byte_at: unstamp(self.first_byte_at.load(Acquire)),
            committed_at: unstamp(self.committed_at.load(Acquire)),
            ended_at: unstamp(self.ended_at.load(Acquire)),
            usage: Usage {
                input,
                output,
                cache_read,
                cache_write,
                reasoning,
                input_audio,
                output_audio,
            },
            billed: match self.billed.load(Acquire) {
                1 => Billed::Yes,
                2 => Billed::No,
                _ => Billed::Unknown,
            },
            dropped: drop_reason(self.dropped.load(Acquire)),
            error: self.error.get().cloned(),
        }
    }
}

pub(super) fn drop_reason(code: u8) -> Option<DropReason> {
    match code {
        1 => Some(DropReason::CallerLeft),
        2 => Some(DropReason::Superseded),
        _ => None,
    }
}
