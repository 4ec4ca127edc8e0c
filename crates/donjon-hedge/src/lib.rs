//! Hedging for calls to language models, as a tower layer.
//!
//! # What it does
//!
//! When the first token of an answer is later than a delay, it makes a second attempt beside the
//! first. Whichever commits first is the answer; the other one is dropped in the same poll.
//!
//! * The delay is a time, or a live percentile of how long first attempts take
//!   ([`HedgeDelay`]), counted from when the attempt was sent, where that is stamped.
//! * A first attempt that fails is not waited for: the second is made at once where
//!   another attempt can help, or the error is handed on.
//! * Hedges are a share of the traffic, and no more ([`HedgeBuilder::budget`]). They
//!   stop for a while when anybody has too much to do: a 429, an overload, a limit of ours, or a limit that
//!   is nearly used up.
//! * The call's one [`Ledger`](donjon_core::Ledger) knows every attempt, and a cap on the call holds for
//!   both lines of attempts together. Whoever watches the loser hears that it was superseded, so that
//!   its permits go back, its cost is booked, and a slow target is known to be slow.
//!
//! # What it does not do
//!
//! It never doubles what has shown something to the caller: from the commit point on there is one attempt. It
//! chooses no target: put it around failover, which sends the second attempt to
//! another one. It does not know which requests must not be made twice: say so with [`HedgeBuilder::when`].
//!
//! # Where it stands
//!
//! Around failover and inside everything that holds for the whole call: deadline, cache, the caller's own
//! limits. Over a service that resolves at the [commit point](donjon_core::commit).
//!
//! # Example
//!
//! ```
//! use std::{sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}}, time::Duration};
//!
//! use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message};
//! use donjon_hedge::HedgeLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model whose first answer takes a minute.
//! let asked = Arc::new(AtomicU32::new(0));
//! let model = service_fn(move |request: LlmRequest| {
//!     let wait = if asked.fetch_add(1, Relaxed) == 0 { 60 } else { 1 };
//!     async move {
//!         tokio::time::sleep(Duration::from_secs(wait)).await;
//!         let answer = ChatCompletion::text(request.model().clone(), "Here you are.");
//!         Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//!     }
//! });
//!
//! let layer = HedgeLayer::builder().delay(Duration::from_secs(2)).build()?;
//! let handle = layer.handle();
//! let mut model = layer.layer(model);
//!
//! let began = tokio::time::Instant::now();
//! let request = LlmRequest::chat("some-model", [Message::user("Hello!")]);
//! model.ready().await?.call(request).await?;
//! assert_eq!(began.elapsed(), Duration::from_secs(3));
//! assert_eq!(handle.won_by_hedge(), 1);
//! # Ok(()) }
//! ```

mod bucket;
mod delay;
mod error;
mod future;
mod handle;
mod histogram;
mod layer;
mod limits;
mod race;
mod service;
mod state;

pub use delay::HedgeDelay;
pub use error::ConfigError;
pub use future::HedgeFuture;
pub use handle::{HedgeCause, HedgeEvent, HedgeHandle, Measured, Suppressed};
pub use layer::{HedgeBuilder, HedgeLayer};
pub use service::Hedge;
