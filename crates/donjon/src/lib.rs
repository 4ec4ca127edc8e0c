//! Resilience middleware for calls to large language models: every layer, and the preset stack.
//!
//! This crate re-exports the others behind features and stacks them; it has no logic of its own.
//!
//! | feature | what it brings | default |
//! |---|---|---|
//! | `budget`, `budget-file-store` | [`budget`]: what may be spent and what was, at the prices of a list; kept in a file | `budget` |
//! | `cache` | [`cache`]: what was answered before, replayed chunk for chunk; one call for all who ask the same | yes |
//! | `circuit-breaker` | [`circuit_breaker`]: stops asking a target that fails or is slow | yes |
//! | `rate-limit` | [`rate_limit`]: requests and tokens over any windows, learned limits | yes |
//! | `pool` | [`pool`]: so many calls at a time, fixed or adaptive, a fair queue | yes |
//! | `retry` | [`retry`]: `Retry-After`, backoff with jitter, a retry budget | yes |
//! | `timeout` | [`timeout`]: first token, idle, response, total, each its own clock | yes |
//! | `token-count`, `tokenizer-files` | [`token_count`]: tokens, exact or with their error, and what does not fit a model | `token-count` |
//! | `failover` | [`failover`]: targets by route and health, and streams that go on where another target broke | yes |
//! | `hedge` | [`hedge`]: a second attempt when the first token is late, within a budget | yes |
//! | `preset` | [`Preset`] of all of these | yes |
//! | `providers` | [`providers`]: OpenAI and compatible servers, Anthropic, Gemini, Ollama, over any http service | yes |
//! | `hyper-client` | a client for them over hyper and rustls | |
//! | `serve`, `server` | [`serve`](https://docs.rs/donjon-serve): any service as an OpenAI- and Anthropic-compatible http service | |
//! | `full` | everything | |
//!
//! It is not a gateway and not a client: it is what stands between your code and a provider, or
//! between your http server and several of them.
//!
//! ```
//! use std::time::Duration;
//!
//! use donjon::{
//!     BoxLlmService, ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Message,
//!     Preset, failover::Target,
//! };
//! use tower::{Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two models: one is down, the other answers.
//! let down = service_fn(|_: LlmRequest| async {
//!     Err::<LlmResponse, _>(LlmError::new(ErrorKind::Authentication, "no such key"))
//! });
//! let up = service_fn(|request: LlmRequest| async move {
//!     let answer = ChatCompletion::text(request.model().clone(), "Hello!");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let mut model = Preset::new()
//!     .total_timeout(Duration::from_secs(60))
//!     .target(Target::new("main", BoxLlmService::new(down)))
//!     .target(Target::new("spare", BoxLlmService::new(up)))
//!     .build()?;
//!
//! let request = LlmRequest::chat("keep-1", [Message::user("Hello?")]);
//! let response = model.ready().await?.call(request).await?;
//! assert_eq!(response.head.target.as_deref(), Some("spare"));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "preset")]
mod cached;
#[cfg(feature = "preset")]
mod counted;
#[cfg(feature = "preset")]
mod hedged;
#[cfg(feature = "preset")]
mod preset;
#[cfg(feature = "preset")]
mod recipe;
#[cfg(feature = "preset")]
mod stack;

#[cfg(feature = "budget")]
pub use donjon_budget as budget;
#[cfg(feature = "cache")]
pub use donjon_cache as cache;
#[cfg(feature = "circuit-breaker")]
pub use donjon_circuit_breaker as circuit_breaker;
pub use donjon_core::*;
#[cfg(feature = "failover")]
pub use donjon_failover as failover;
#[cfg(feature = "hedge")]
pub use donjon_hedge as hedge;
#[cfg(feature = "pool")]
pub use donjon_pool as pool;
#[cfg(feature = "providers")]
pub use donjon_providers as providers;
#[cfg(feature = "rate-limit")]
pub use donjon_rate_limit as rate_limit;
#[cfg(feature = "retry")]
pub use donjon_retry as retry;
#[cfg(feature = "serve")]
pub use donjon_serve as serve;
#[cfg(feature = "timeout")]
pub use donjon_timeout as timeout;
#[cfg(feature = "token-count")]
pub use donjon_token_count as token_count;
#[cfg(feature = "preset")]
pub use preset::{Preset, PresetError};
#[cfg(feature = "preset")]
pub use stack::{Stack, StackFuture, TargetHandles};
