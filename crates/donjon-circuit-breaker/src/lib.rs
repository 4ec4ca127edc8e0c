//! Circuit breaker for calls to language models, as tower layers.
//!
//! # What it does
//!
//! It stops asking a target that fails, or that is slow to say its first word, and finds out with a
//! few calls when it is well again. The semantics are those of
//! [resilience4j](https://resilience4j.readme.io/docs/circuitbreaker).
//!
//! * It judges by the latest calls, or by those of the latest time ([`Window`]): by the share that
//!   failed, by the share that was slow, or by failures one after the other. The share of failures
//!   that is too large is given, or learned ([`Adaptive`]).
//! * Calls are judged when their response ends, so a stream that breaks in the middle has failed. What
//!   is the target's fault is said by the table of [`Disposition`](donjon_core::Disposition):
//!   the caller's own mistakes, cancellations, and calls that never left say nothing.
//! * Open, it rejects with [`ErrorKind::CircuitOpen`](donjon_core::ErrorKind::CircuitOpen) and says
//!   for how long; the delay [grows](OpenDelay), and a server's `Retry-After` makes it longer.
//!   Half-open, it lets a few probes pass. A call counts only for the state that admitted it.
//! * A [handle](BreakerHandle) shows states and figures, and sets states by hand.
//!
//! # What it does not do
//!
//! It asks no other target: that is failover. It limits neither rate nor number of calls, and it cuts
//! no call short: those are rate limit, pool and timeout. Where nothing else ends a call, a target
//! that says nothing at all is never judged by it.
//!
//! # Where it stands
//!
//! Inside retry and failover, once for each target. Alone, [`BreakerLayer`] stands right around what
//! is called. Where calls wait in between, for a permit or for their turn at a rate limit, it stands
//! twice over one state: [`peek`](BreakerLayer::peek) outside of the queues rejects at once, and
//! [`admit`](BreakerLayer::admit) inside of them decides when a call is about to be sent. So calls
//! that wait do not pour into a target that is down, and time in our own queues is not the target's.
//!
//! # Example
//!
//! ```
//! use donjon_circuit_breaker::{BreakerLayer, CircuitState, OpenDelay, Window};
//! use donjon_core::{ErrorKind, Key, LlmError, LlmRequest, LlmResponse, Message};
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model that is down.
//! let model = service_fn(|_: LlmRequest| async {
//!     Err::<LlmResponse, _>(LlmError::new(ErrorKind::ServerError, "down"))
//! });
//!
//! let layer = BreakerLayer::builder()
//!     .window(Window::time(Duration::from_secs(60)))
//!     .failure_rate(0.5)
//!     .minimum_calls(5)
//!     .open_delay(OpenDelay::fixed(Duration::from_secs(10)).jitter(0.0))
//!     .build()?;
//! let handle = layer.handle();
//! let mut model = layer.layer(model);
//!
//! let request = LlmRequest::chat("some-model", [Message::user("Hello!")]);
//! for _ in 0..5 {
//!     let error = model.ready().await?.call(request.clone()).await.unwrap_err();
//!     assert_eq!(error.kind(), ErrorKind::ServerError);
//! }
//! assert_eq!(handle.state(&Key::Global), CircuitState::Open);
//!
//! // From now on nobody is asked, and callers hear when to come back.
//! let error = model.ready().await?.call(request).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::CircuitOpen);
//! assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));
//! # Ok(()) }
//! ```

mod breaker;
mod builder;
mod circuit;
mod delay;
mod error;
mod figures;
mod handle;
mod layer;
mod permit;
mod policy;
mod probes;
mod service;
mod state;
mod sync;
mod window;

pub use builder::BreakerBuilder;
pub use circuit::Reason;
pub use delay::OpenDelay;
pub use error::ConfigError;
pub use handle::{BreakerEvent, BreakerHandle, CallFigures, CircuitHandle, Transition};
pub use layer::{AdmitLayer, BreakerLayer, PeekLayer};
pub use permit::Permit;
pub use policy::{Adaptive, Exceeded};
pub use service::{Admit, Breaker, Peek, Peeked};
pub use state::CircuitState;
pub use window::{Window, WindowCalls};
