//! Going on with a stream that broke after its first token.
//!
//! [`shown`] keeps what the caller was shown, the call's course chooses who is asked to go on with it and how,
//! [`splice`] makes what that says the rest of the one answer, and [`stream`] is what the caller polls.
//! [`align`] and [`prefill`] are the two ways, [`bill`] adds up what it costs.

mod align;
mod bill;
mod options;
mod prefill;
mod shown;
mod splice;
mod stream;

pub use options::{Resume, ResumeWay};
pub(crate) use prefill::Prefill;
pub(crate) use shown::Shown;
pub(crate) use splice::Splice;
pub(crate) use stream::{Hook, resumable};

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};

/// Whether a target continues an answer that was begun elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Prefills {
    declared: AtomicBool,
    /// It rejected one: not before then.
    not_before: AtomicU64,
}

impl Prefills {
    pub(crate) const fn new(declared: bool) -> Self {
        Self {
            declared: AtomicBool::new(declared),
            not_before: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&self, declared: bool) {
        self.not_before.store(0, Release);
        self.declared.store(declared, Release);
    }

    /// Not before `at`, in nanoseconds as [`Shared::now`](crate::state::Shared::now) counts them.
    pub(crate) fn put_off(&self, at: u64) {
        self.not_before.fetch_max(at, Release);
    }

    pub(crate) fn is_declared(&self) -> bool {
        self.declared.load(Acquire)
    }

    pub(crate) fn at(&self, now: u64) -> bool {
        self.is_declared() && now >= self.not_before.load(Acquire)
    }
}
