//! The clocks of a language model call as one tower layer.
//!
//! One limit on the whole call says little about a model: a long answer may take minutes and be
//! healthy, and a stream whose first token does not come is dead after seconds. [`TimeoutLayer`] has
//! a clock for each, and its errors name the clock that ran out
//! ([`ErrorKind::Timeout`](donjon_core::ErrorKind::Timeout)):
//!
//! | clock | runs | default |
//! |---|---|---|
//! | connect | until a connection stands; carried here for the transport, see [`TimeoutLayer::connect`] | 5 s |
//! | first token | from the call to its commit point, on a stream | none |
//! | idle | between two chunks that carry something, on a stream, while a poll is pending | none |
//! | response | from the call to the whole answer, where it comes whole | none |
//! | total | from the beginning of the call to its end; the call's own deadline | none |
//!
//! Pings, role chunks and empty deltas reset no clock. A slow reader is not blamed on the provider:
//! idle time counts only while the reader waits, and what is ready goes before any clock. A unary
//! answer has no first token, and nothing substitutes its whole time for it; with
//! [`unary_over_stream`](TimeoutBuilder::unary_over_stream) it is fetched as a stream and folded, so that
//! the clocks of streams guard it too.
//!
//! It does not retry and does not choose another target: the disposition of its errors says who may.
//!
//! It stands innermost, right around [`CommitLayer`](donjon_core::CommitLayer), so that each attempt
//! has its clocks and that the layers of a target hear a failure and not a cancellation.
//! [`DeadlineLayer`] stands outermost and sets the call's deadline, which this layer and every wait
//! of every other enforce.
//!
//! ```
//! use std::time::Duration;
//!
//! use donjon_core::{CommitLayer, ErrorKind, LlmError, LlmRequest, LlmResponse, TimeoutClock};
//! use donjon_timeout::TimeoutLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model that never answers.
//! let silent = service_fn(|_: LlmRequest| std::future::pending::<Result<LlmResponse, LlmError>>());
//!
//! let timeout = TimeoutLayer::builder()
//!     .first_token(Duration::from_secs(10))
//!     .idle(Duration::from_secs(15))
//!     .build()?;
//! let model = ServiceBuilder::new().layer(timeout).layer(CommitLayer::new()).service(silent);
//!
//! let error = model.oneshot(LlmRequest::chat("m", []).streamed()).await.expect_err("silence");
//! assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::FirstToken));
//! # Ok(())
//! # }
//! ```

mod config;
mod deadline;
mod future;
mod handle;
mod idle;
mod layer;
mod service;

pub use config::{ConfigError, Limits};
pub use deadline::{Deadline, DeadlineLayer};
pub use future::TimeoutFuture;
pub use handle::TimeoutHandle;
pub use layer::{TimeoutBuilder, TimeoutLayer};
pub use service::Timeout;
