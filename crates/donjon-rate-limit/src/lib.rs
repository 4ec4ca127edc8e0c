//! Rate limits for calls to language models, as a tower layer.
//!
//! # What it does
//!
//! It lets calls pass as limits allow: requests, tokens of prompt and answer together or apart, or a
//! unit of your own, over any windows, any number of limits at once, for each key ([`KeyBy`]: tenant,
//! user, model, …).
//!
//! * A call is charged for all limits or for none, with what it is expected to use
//!   ([`Call::estimate`]), before it is sent. When its response has ended, what was not used is given
//!   back; all of it if nothing was sent or if the answer came from a cache. An error before the first
//!   token gives the tokens back, and not the request, which the provider has counted. What was used
//!   beyond the estimate is charged then.
//! * Windows slide: in none of the stated length is more admitted than the limit, wherever it begins,
//!   and a steady caller can use 98.4 % of it.
//! * A call that does not fit waits for its turn, first come, first served, or is refused, as
//!   [`Overflow`], the bounds of the queue, and the call's deadline and patience say. A refusal says
//!   exactly when the call would fit ([`LlmError::retry_after`]); one that will never fit says so.
//! * What the provider says of its limits with answers and errors makes them tighter before the first
//!   429; a 429 stops admission for as long as the provider asks.
//!
//! # What it does not do
//!
//! It counts no tokens: another layer puts an estimate on the request, or the same default is taken for
//! each. It limits rates and not how many calls are under way: that is a pool. Its state lives in this
//! process, unless another [`Store`] is given.
//!
//! # Where it stands
//!
//! The limits of tenants and users stand outside failover, built with
//! [`for_callers`](RateLimitBuilder::for_callers): a refusal is final then, and a call is charged once.
//! The quota of a provider stands at its target, inside retry and pool, as the last that waits, so that
//! what it admits is sent now.
//!
//! # Example
//!
//! ```
//! use donjon_core::{
//!     ChatCompletion, ErrorKind, Estimate, Head, Key, LlmError, LlmRequest, LlmResponse, Message, Usage,
//! };
//! use donjon_rate_limit::{Limit, Overflow, RateLimitLayer};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = service_fn(|request: LlmRequest| async move {
//!     let mut answer = ChatCompletion::text("m", "Here you are.");
//!     answer.usage = Some(Usage::new(100, 50));
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new("m"), answer))
//! });
//!
//! let layer = RateLimitLayer::builder()
//!     .limit(Limit::requests(100).per_minute())
//!     .limit(Limit::tokens(1_000).per_minute())
//!     .overflow(Overflow::Reject)
//!     .build()?;
//! let handle = layer.handle();
//! let mut model = layer.layer(model);
//!
//! let mut request = LlmRequest::chat("m", [Message::user("Hello!")]);
//! request.call.estimate = Some(Estimate::new(100, 700));
//! model.ready().await?.call(request.clone()).await?;
//! // 150 tokens were used of the 800 it was charged, and 850 are left.
//! assert_eq!(handle.peek(&Key::Global)[1].remaining(), 850);
//!
//! model.ready().await?.call(request.clone()).await?;
//! request.call.estimate = Some(Estimate::new(100, 800));
//! let refused = model.ready().await?.call(request.clone()).await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::LimitedLocally);
//! tokio::time::sleep(refused.retry_after().unwrap()).await;
//! model.ready().await?.call(request).await?;
//! # Ok(()) }
//! ```
//!
//! [`KeyBy`]: donjon_core::KeyBy
//! [`Call::estimate`]: donjon_core::Call::estimate
//! [`LlmError::retry_after`]: donjon_core::LlmError::retry_after

mod admit;
mod error;
mod figures;
mod handle;
mod layer;
mod limit;
mod local;
mod meter;
mod policy;
mod queue;
mod quota;
mod service;
mod state;
mod wait;
mod window;

pub use admit::{Limiter, Permit};
pub use error::{Blocker, ConfigError, Reason, Refusal};
pub use figures::RateLimitEvent;
pub use handle::{Acquired, RateLimitHandle, Standing};
pub use layer::{RateLimitBuilder, RateLimitLayer};
pub use limit::{Limit, Unit, Weigh, Weight};
pub use local::{Charges, InMemory, LocalMeter};
pub use meter::{Meter, Obstacle, Obstructs, Settled, Store, Told};
pub use policy::{Overflow, WhenFull};
pub use quota::{Quota, Quotas};
pub use service::RateLimit;
pub use wait::Waiting;
