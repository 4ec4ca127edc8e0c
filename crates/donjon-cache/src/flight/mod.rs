//! One call upstream for any number of identical concurrent ones.
//!
//! The call lives in a slot that every member polls; no task is spawned. Whoever is polled while the
//! call asks for it drives it, and when that one leaves another is woken. It ends with its answer, or
//! at once when the last member leaves. Its deadline is the latest of its members'; whoever runs out
//! of time leaves alone. A stream is kept from its beginning up to a bound, so that late ones get
//! what was said; beyond it nobody joins, and who reads too slowly is let go of.
//!
//! Whoever asks for a whole answer joins a stream, which is folded; whoever asks for a stream joins
//! no whole answer, since it would get its first token last. The first member is billed; the
//! others' answers have [`Origin::Coalesced`](donjon_core::Origin::Coalesced).
//!
//! An error is given to every member, and a panic is one. Only what is the affair of whoever made
//! the call, its own deadline or what it alone is refused, is kept from the others: one of them asks
//! again.
//!
//! # What it does not do
//!
//! It keeps no answers: that is the cache. It does not know whether several who ask the same want
//! several samples; see [`only_if`](SingleFlightLayer::only_if). Calls of other processes are not
//! seen.
//!
//! # Where it stands
//!
//! The [cache](crate::CacheLayer) has it built in, and switched on. Alone it stands outside
//! everything that makes calls or waits for them (retry, failover, pool), so that those who follow
//! hold nothing; and inside what judges each caller by itself (budget, rate limit). One set of
//! [`Flights`] must not stand twice in a stack, for a call would wait for itself.
//!
//! ```
//! use donjon_cache::flight::SingleFlightLayer;
//! use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message, Origin};
//! use tower::{Layer, Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LlmError> {
//! let model = service_fn(|request: LlmRequest| async move {
//!     tokio::task::yield_now().await;
//!     let answer = ChatCompletion::text(request.model().clone(), "It is a keep.");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let layer = SingleFlightLayer::default();
//! let mut model = layer.layer(model);
//! let ask = || LlmRequest::chat("m", [Message::user("What is a donjon?")]);
//! let (first, second) = tokio::join!(model.call(ask()), model.clone().call(ask()));
//! assert_eq!(first?.head.origin, Origin::Upstream);
//! assert_eq!(second?.head.origin, Origin::Coalesced);
//! assert_eq!((layer.handle().led(), layer.handle().joined()), (1, 1));
//! # Ok(()) }
//! ```

mod drive;
mod error;
mod flights;
mod future;
mod layer;
mod log;
mod member;
mod seeks;
mod slot;
mod sync;
mod turns;

use std::time::Duration;

pub use error::FlightConfigError;
pub use flights::{Flights, FlightsBuilder};
pub use future::FlightFuture;
pub(crate) use future::{Calls, Flying};
pub use layer::{SingleFlight, SingleFlightLayer};

use crate::key::CacheKey;

/// What holds for all flights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) max_bytes: usize,
    pub(crate) max_stall: Duration,
}

/// What single flight tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlightEvent {
    /// A call had the key of another one that asks something else, and is made apart.
    Mismatched {
        /// The key of both.
        key: CacheKey,
    },
    /// A stream grew so large that others can join it no more.
    Outgrown {
        /// Its key.
        key: CacheKey,
    },
    /// A call panicked, which its members are told as an error.
    Panicked {
        /// Its key.
        key: CacheKey,
    },
    /// Members read so slowly that they were let go of.
    LetGo {
        /// The key of the call.
        key: CacheKey,
        /// How many.
        members: u64,
    },
}
