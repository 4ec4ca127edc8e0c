//! The four shapes of readiness, so that no layer writes them again.
//!
//! What a request needs (its key, its model, its weight) is not known in `poll_ready`, so admission
//! happens in `call`; and a service that was readied for a request must not sit idle while that
//! request waits for something else. How a layer deals with both is one of four shapes:
//!
//! | shape | it | readiness |
//! |---|---|---|
//! | [`Check`] | admits or rejects, never waits | passes the inner one through; needs no `Clone` |
//! | [`Gate`] | admits, makes wait, or rejects | passes it through; lets go of the readied service before it waits, and readies a fresh clone once admitted |
//! | [`Shortcut`] | answers by itself where it can | always ready; readies a clone where it cannot |
//! | driver ([`ReadyCall`], [`Spare`]) | calls once or several times | keeps a clone from the start; readies the one it calls |
//!
//! A clone that was not readied is never called.

mod check;
mod driver;
mod gate;
mod shortcut;

pub use check::{Check, CheckFuture, CheckService};
pub use driver::{ReadyCall, Spare};
pub use gate::{Admission, Admit, Gate, GateFuture};
pub use shortcut::{Lookup, Shortcut, ShortcutFuture, ShortcutService};
