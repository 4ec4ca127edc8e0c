//! Concurrency limits for calls to language models, as a tower layer, and pools of clients.
//!
//! # What it does
//!
//! It lets so many calls be in progress at a time and makes the rest wait, or refuses them. A call
//! holds its slot until its *response* ends, a stream to its last chunk.
//!
//! * How many is fixed, or learned: [`Aimd`] follows overload errors, [`Gradient`] the time to first
//!   token, never the length of answers. Both grow only when they were what bound.
//! * Who waits is served by priority, fairly between tenants, first come first served within a tenant;
//!   no priority starves. A slot that is given back goes straight to who is next. What could not be served
//!   before its deadline, by the pace at which slots come back, is refused at once, with the time at
//!   which it could.
//! * Each key ([`KeyBy`](donjon_core::KeyBy)) can have slots of its own, and so can named
//!   [`Profile`]s, with a model and parameters of their own.
//! * Sizes can be changed while it runs. The [`PoolHandle`] shows what is in use, who waits and for how
//!   long, and who was refused and why.
//! * [`ClientPool`] pools clients that a factory makes, where making one is dear.
//!
//! While nobody waits a call takes and gives back its slot by one compare-and-swap each: no lock, no
//! allocation.
//!
//! # What it does not do
//!
//! It counts calls in progress, not calls a minute: that is rate-limit. It retries nothing that it
//! refused, and asks no other target: its refusals ([`QueueFull`](donjon_core::ErrorKind::QueueFull))
//! let failover do so.
//!
//! # Where it stands
//!
//! Once for each target, inside retry, so that no slot is held during backoff; outside the provider's rate
//! limit, the circuit breaker's admission and the timeouts, whose clocks must not run while a call
//! waits here. Over a service that resolves at the [commit point](donjon_core::commit), so that the
//! time to first token is known.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use donjon_core::{
//!     ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message, Priority,
//! };
//! use donjon_pool::PoolLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model that takes a second.
//! let model = service_fn(|request: LlmRequest| async move {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     let answer = ChatCompletion::text(request.model().clone(), "Here you are.");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let layer = PoolLayer::builder().size(2).max_queued(100).build()?;
//! let handle = layer.handle();
//! let model = layer.layer(model);
//!
//! let request = LlmRequest::chat("some-model", [Message::user("Hello!")]);
//! let ask = |request| model.clone().oneshot(request);
//! let batch = [(); 4].map(|()| ask(request.clone().with_priority(Priority::BATCH)));
//! let [a, b, c, d] = batch;
//! let urgent = ask(request.with_priority(Priority::INTERACTIVE));
//! // Two run at a time; the urgent one is next.
//! let (a, b, c, d, urgent) = tokio::join!(a, b, c, d, urgent);
//! for answer in [a, b, c, d, urgent] {
//!     assert_eq!(answer?.text().await?, "Here you are.");
//! }
//! assert_eq!(handle.stats().wait_times.count(), 3);
//! assert_eq!(handle.stats().in_use, 0);
//! # Ok(()) }
//! ```

mod client;
mod error;
mod figures;
mod handle;
mod hold;
mod layer;
mod limit;
mod line;
mod permit;
mod profile;
mod queue;
mod room;
mod rooms;
mod rules;
mod service;
mod slots;
mod source;
mod sync;
mod wait;
mod wait_times;

pub use client::{
    Checkout, Client, ClientPool, ClientPoolBuilder, ClientPoolHandle, ClientStats, Pooled,
    PooledFuture,
};
pub use error::ConfigError;
pub use figures::{PoolStats, RejectReason};
pub use handle::{PoolEvent, PoolHandle};
pub use layer::{PoolBuilder, PoolLayer};
pub use limit::{Aimd, Fixed, Gradient, Limit, Sample, Signal};
pub use permit::Permit;
pub use profile::Profile;
pub use rules::{HoldUntil, Overflow};
pub use service::{Admitter, Pool};
pub use wait::Wait;
pub use wait_times::WaitTimes;
