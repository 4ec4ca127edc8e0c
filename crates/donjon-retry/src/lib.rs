//! Retry for calls to language models, as a tower layer.
//!
//! # What it does
//!
//! It asks the same target again after an error that the table of
//! [`Disposition`](donjon_core::Disposition) says may pass: a broken connection, a 429, a 500, a
//! 529, and not a wrong key, an exhausted quota or a prompt that is too long.
//!
//! * It waits as long as the server asks (`Retry-After` in all its forms, the reset of a limit that
//!   is used up): never shorter, at most a tenth longer. Where that is longer than the call's
//!   deadline or patience allows, the error is handed on at once, so that another target can serve.
//!   Where the server says nothing, [`Backoff`] with jitter decides.
//! * It keeps within the attempts of the target and of the whole call, which are counted in the
//!   call's one [`Ledger`](donjon_core::Ledger), and leaves one for each target that was not tried.
//! * It keeps within a [`RetryBudget`], so that retries do not multiply the load of a provider that
//!   is down; and within a number of calls that may wait at a time.
//!
//! # What it does not do
//!
//! It asks no other target: that is failover. It sets no deadline and no limit on an attempt: that
//! is timeout. It repairs no stream that broke after something was shown.
//!
//! # Where it stands
//!
//! Inside failover, once for each target, and outside everything that limits or times one attempt
//! (circuit breaker, pool, rate limit, timeout): while it waits it holds nothing of theirs. Over a
//! service that resolves at the [commit point](donjon_core::commit), whatever fails before the first
//! token can be retried.
//!
//! # Example
//!
//! ```
//! use std::{sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}}, time::Duration};
//!
//! use donjon_core::{
//!     ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Message,
//! };
//! use donjon_retry::{Backoff, RetryLayer};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model that has too much to do, twice.
//! let refusals = Arc::new(AtomicU32::new(2));
//! let model = service_fn(move |request: LlmRequest| {
//!     let busy = refusals.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
//!     async move {
//!         if busy {
//!             let error = LlmError::new(ErrorKind::RateLimited, "slow down");
//!             return Err(error.with_retry_after(Duration::from_secs(2)));
//!         }
//!         let answer = ChatCompletion::text(request.model().clone(), "Here you are.");
//!         Ok(LlmResponse::complete(Head::new(request.model().clone()), answer))
//!     }
//! });
//!
//! let layer = RetryLayer::builder()
//!     .max_attempts(4)
//!     .backoff(Backoff::exponential(Duration::from_millis(200)))
//!     .build()?;
//! let handle = layer.handle();
//! let mut model = layer.layer(model);
//!
//! let request = LlmRequest::chat("some-model", [Message::user("Hello!")]);
//! let (_, answer) = model.ready().await?.call(request).await?.collect().await?;
//! assert_eq!(answer.as_chat().unwrap().first_text(), "Here you are.");
//! assert_eq!(handle.retries_after(ErrorKind::RateLimited), 2);
//! # Ok(()) }
//! ```

mod backoff;
mod bucket;
mod budget;
mod decide;
mod error;
mod future;
mod handle;
mod layer;
mod policy;
mod rate;
mod service;

pub use backoff::{Backoff, BackoffState, Jitter};
pub use budget::{RetryBudget, RetryBudgetBuilder};
pub use error::ConfigError;
pub use future::RetryFuture;
pub use handle::{RetryEvent, RetryHandle};
pub use layer::{RetryBuilder, RetryLayer};
pub use policy::{GiveUp, KindPolicy};
pub use service::Retry;
