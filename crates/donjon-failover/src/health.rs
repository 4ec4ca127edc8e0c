//! Passive health: what calls tell of a target, when it is out, and how it comes back.
//!
//! ```text
//!            faults in a row, their rate, a hint        its time is up
//!  ┌────┐ ─────────────────────────────────────▶ ┌─────┐ ──────▶ ┌───────┐
//!  │ up │                                        │ out │         │ trial │ one call at a time
//!  └────┘ ◀──────── ┌───────────┐ ◀─ it served ─ └─────┘ ◀────── └───────┘
//!     share is whole│ returning │      (from trial)     it failed: out for longer
//!                   └───────────┘
//! ```
//!
//! Nothing here reads a clock: times are nanoseconds since the failover was made.

mod history;
mod policy;
mod standing;

pub(crate) use history::{History, Verdict, nanos};
pub use policy::HealthPolicy;
pub(crate) use standing::{Gate, Standing, Status, next_spell};
