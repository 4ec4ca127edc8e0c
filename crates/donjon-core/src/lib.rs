//! The vocabulary of Donjon: what the layers around a call to a language model share.
mod clock;
pub mod commit;
pub mod error;
pub mod events;
pub mod hints;
pub mod ledger;
mod money;
mod observe;
mod service;
pub mod shape;
pub mod snapshot;
mod stream;
mod vocab;
mod watch;

pub use clock::WallClock;
pub use commit::{Commit, CommitLayer};
pub use error::{
    BoxError, Classify, DefaultTable, Disposition, ErrorKind, FailedAttempt, Health, LlmError,
    Scope, TimeoutClock,
};
pub use events::{Events, Heard, Listener};
pub use hints::{Hints, LimitHint, LimitUnit};
pub use ledger::{Attempt, AttemptCause, AttemptRef, Billed, DropReason, Ledger};
pub use money::NanoUsd;
pub use observe::{End, Observer, Outcome};
pub use service::{BoxLlmFuture, BoxLlmService, LlmService};
pub use snapshot::{Figure, FigureKind, Snapshot};
pub use stream::ResponseStream;
pub use vocab::*;
pub use watch::{Watch, watch};
