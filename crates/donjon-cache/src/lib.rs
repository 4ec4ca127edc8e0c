//! A cache for calls to language models, as tower layers.
//!
//! # What it does
//!
//! It answers what was answered before, without the service below: one look into a table, no lock of
//! its own, no allocation.
//!
//! * The [`CacheKey`] is a hash of 256 bits over all that decides an answer, in one canonical form: the
//!   order of members, white space and defaults that are written out make no difference. It is the same
//!   in every process. Tenants do not hear each other's answers, unless the [`Scope`] says so.
//! * A [`Strategy`] says which answers are kept and how long: by default only those that would be the
//!   same anyway. Callers have their own word ([`CacheDirective`](donjon_core::CacheDirective)).
//! * Streams are given again chunk for chunk as they came, at once or at their pace. A stream and a whole
//!   answer to the same question are one entry.
//! * Answers that are too old can be given while they are renewed, or where the call fails.
//! * Calls that ask the same at the same time become one: [`flight`].
//! * It takes no more bytes than it may, and releases what is too old unread. A [`Store`] can stand
//!   behind it, which costs no more than it is allowed to.
//! * The [`CacheHandle`] shows what happens, and forgets by key, tag, model or tenant.
//!
//! # What it does not do
//!
//! It keeps no errors (but the caller's own, where asked for), no streams that were cut off, nothing
//! without a finish reason, nothing that was dropped on its way. It does not know that the world has
//! changed: that is what times and invalidation are for.
//!
//! # Where it stands
//!
//! Outside of budget, rate limit, retry and failover: what is answered here costs none of these
//! anything. Inside of what changes the prompt or says on whose behalf it is asked.
//! Once in a stack: what came from another cache is not kept.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use donjon_cache::{CacheLayer, Strategy};
//! use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message, Origin};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = service_fn(|request: LlmRequest| async move {
//!     let answer = ChatCompletion::text(request.model().clone(), "The keep.");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let layer = CacheLayer::builder()
//!     .strategy(Strategy::Conservative)
//!     .ttl(Duration::from_secs(600))
//!     .build()?;
//! let handle = layer.handle();
//! let model = layer.layer(model);
//!
//! let request = LlmRequest::chat("some-model", [Message::user("What is a donjon?")]);
//! let first = model.clone().oneshot(request.clone()).await?;
//! assert_eq!(first.head.origin, Origin::Upstream);
//! // Asked for as a stream this time.
//! let second = model.clone().oneshot(request.streamed()).await?;
//! assert_eq!(second.head.origin, Origin::Cache);
//! assert_eq!(second.text().await?, "The keep.");
//! assert_eq!((handle.hits(), handle.misses()), (1, 1));
//! # Ok(())
//! # }
//! ```

mod codec;
mod entry;
mod error;
pub mod flight;
mod future;
mod handle;
mod key;
mod layer;
mod memory;
#[cfg(feature = "zstd")]
mod pack;
mod record;
mod replay;
pub mod semantic;
mod service;
mod state;
mod store;
mod strategy;
mod upstream;

pub use error::ConfigError;
pub use future::CacheFuture;
pub use handle::{CacheEvent, CacheHandle, Refused};
pub use key::{CacheKey, Scope};
pub use layer::{CacheBuilder, CacheLayer};
pub use replay::Replay;
pub use service::CacheService;
pub use store::{Invalidate, Store, StoreFuture, Stored};
pub use strategy::{Decide, Policy, Strategy};
