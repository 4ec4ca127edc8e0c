//! Codecs and transport for providers of language models, as tower services: OpenAI and every
//! compatible server (Azure OpenAI, OpenRouter, Ollama …), Anthropic, Gemini, and Ollama's own API.
//!
//! # What it does
//!
//! A [`Codec`] knows the words of a provider, in both directions, and nothing of connections.
//! [`Provider`] puts one over any `Service<http::Request<Full<Bytes>>>`, and is a
//! `Service<LlmRequest>`: the leaf of a stack. With the feature `hyper-client` (on by default) that
//! http service can be [`transport::HttpClient`].
//!
//! * What a caller sends and what a provider answers is passed on as it came where both speak the
//!   same dialect, so that members nobody here has heard of survive; else it goes through the
//!   vocabulary of `donjon-core`.
//! * Streams are read from packets split anywhere, malformed events are skipped and counted, a
//!   stream ends with `[DONE]`, `message_stop` or `done` and waits for nothing after it.
//! * Every error has its kind, by one table for each provider, with what the server said of limits
//!   and of waiting ([`hints`]).
//! * As a library of the two dialects ([`openai`], [`anthropic`]) it also writes what servers write,
//!   for those who serve these APIs themselves.
//!
//! # What it does not do
//!
//! No retry, no timeout, no failover: those are layers above. It resolves at the headers of a
//! stream; [`donjon_core::commit`] right above it makes that the commit point.
//!
//! # Where it stands
//!
//! Innermost. Here over an http service that answers by itself:
//!
//! ```
//! use bytes::Bytes;
//! use donjon_core::{CommitLayer, LlmError, LlmRequest, Message};
//! use donjon_providers::{OpenAi, Provider};
//! use http_body_util::Full;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let http = service_fn(|request: http::Request<Full<Bytes>>| async move {
//!     assert_eq!(request.uri(), "https://api.openai.com/v1/chat/completions");
//!     let answer = r#"{"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,
//!         "message":{"role":"assistant","content":"A keep."},"finish_reason":"stop"}]}"#;
//!     Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::from(answer)))
//! });
//! let codec = OpenAi::builder().api_key("sk-1").build()?;
//! let mut model = CommitLayer::new().layer(Provider::new(codec, http));
//!
//! let request = LlmRequest::chat("gpt-4o-mini", [Message::user("What is a donjon?")]);
//! let (head, answer) = model.ready().await?.call(request).await?.collect().await?;
//! assert_eq!(head.provider.as_deref(), Some("openai"));
//! assert_eq!(answer.as_chat().map(|chat| chat.first_text()).as_deref(), Some("A keep."));
//! # Ok(())
//! # }
//! ```

pub mod anthropic;
pub mod codec;
mod config;
mod embedder;
mod fault;
pub mod gemini;
pub mod hints;
mod json;
pub mod lines;
pub mod ollama;
pub mod openai;
mod prompt;
mod provider;
mod secret;
pub mod sse;
#[cfg(feature = "hyper-client")]
pub mod transport;

pub use anthropic::{Anthropic, AnthropicBuilder};
pub use codec::{Asked, Codec, Framing, Step, StreamDecoder};
pub use config::BuildError;
pub use embedder::{EmbedFuture, EmbedOneFuture, Embedder};
pub use gemini::{Gemini, GeminiBuilder};
pub use ollama::{Ollama, OllamaBuilder};
pub use openai::{OpenAi, OpenAiBuilder};
pub use provider::{Provider, ProviderFuture, ProviderHandle, ProviderStats};
pub use secret::ApiKey;
