//! The five clocks of a call to a language model, as one tower layer.
//!
//! # What it does
//!
//! A call to a language model has no single time after which it is too slow. So there are
//! [five](Timeouts), and each error names the one that ran out
//! ([`ErrorKind::Timeout`](donjon_core::ErrorKind::Timeout)):
//!
//! | clock | runs | default |
//! |---|---|---|
//! | connect | until the connection stands; kept by the transport, carried here | 5 s |
//! | first token | from the call to its [commit point](donjon_core::commit), on a stream | 60 s |
//! | idle | between two chunks that carry something, on a stream | 60 s |
//! | response | over the whole answer, where it comes whole | none |
//! | total | over the whole call with all its attempts: its deadline | 10 min |
//!
//! Keep-alives, roles and empty deltas are no sign of life. The idle clock runs only while somebody
//! waits for the stream, and what has arrived is taken before any clock is looked at, so that a slow
//! reader is never taken for a silent provider. When a clock runs out, what stands below is let go
//! of at once, and the connection with it. All limits can be set by model and by target.
//!
//! With [`unary_over_stream`](Timeouts::unary_over_stream) a whole answer is fetched as a stream and
//! put together here, so that a dead provider is noticed at the first token and not at the deadline.
//!
//! # What it does not do
//!
//! It asks nobody again; that is retry and failover. It does not limit how long a caller waits for
//! `poll_ready`: no call has begun there.
//!
//! # Where it stands
//!
//! [`TimeoutLayer`] stands innermost, right around [`CommitLayer`](donjon_core::CommitLayer) and the
//! provider, inside retry, so that each attempt has its own clocks. [`DeadlineLayer`] stands
//! outermost and sets the deadline, which every wait between the two keeps.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse, Message, TimeoutClock};
//! use donjon_timeout::TimeoutLayer;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model that never says a word.
//! let model = service_fn(|_: LlmRequest| std::future::pending::<Result<LlmResponse, LlmError>>());
//!
//! let layer = TimeoutLayer::builder()
//!     .first_token(Duration::from_secs(10))
//!     .for_model("deep-thinker", |all| all.first_token(Duration::from_secs(300)))
//!     .build()?;
//! let mut model = layer.layer(model);
//!
//! let request = LlmRequest::chat("some-model", [Message::user("Hello?")]).streamed();
//! let error = model.ready().await?.call(request).await.expect_err("it is silent");
//! assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::FirstToken));
//! assert_eq!(error.message(), "no first token within 10s");
//! # Ok(()) }
//! ```

mod clock;
mod deadline;
mod future;
mod guard;
mod handle;
mod layer;
mod service;
mod timeouts;

pub use deadline::{Deadline, DeadlineFuture, DeadlineLayer};
pub use future::TimeoutFuture;
pub use handle::TimeoutHandle;
pub use layer::{TimeoutBuilder, TimeoutLayer};
pub use service::Timeout;
pub use timeouts::{ConfigError, Timeouts};
