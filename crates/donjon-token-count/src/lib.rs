//! Counts the tokens of calls to language models, as a tower layer.
//!
//! # What it does
//!
//! * It counts the prompt for the model that is to serve, and puts the figure on the request
//!   ([`Call::estimate`](donjon_core::Call::estimate)), for limits and budgets below it.
//! * Counts are exact where the tokenizer is public: the encodings of OpenAI ([`OpenAi`]), any
//!   `tokenizer.json` of Hugging Face (the feature `huggingface`), a [`Tokenizer`] of your own. Otherwise they are
//!   estimates ([`Estimator`]), and a [`Count`] says how far off they may be. What messages, names, tools and
//!   images add is counted by the [`Rules`] of the provider.
//! * A request that cannot fit the model's context window is refused with
//!   [`ErrorKind::ContextLength`](donjon_core::ErrorKind::ContextLength), so that failover takes it to a larger
//!   model; or the oldest of the conversation is left out, where that is asked for.
//! * It learns from the usage that answers report: estimates are corrected, and the
//!   [handle](TokenHandle) shows counted against actual tokens by model.
//! * Messages are remembered by a hash, and whole prompts by their place in memory: a new turn costs the
//!   counting of one message, another attempt nothing.
//! * A call counts for no more than some 2 ms of any language, code or data: what a long prompt has beyond
//!   that is sampled, and the error stated ([`Sampling`]); or all is counted, where that is asked for.
//!
//! # What it does not do
//!
//! It limits no rate and spends no money: those are the rate limit and the budget, which read its figure.
//! It sends nothing, also not to the counting endpoints that some providers have.
//!
//! # Where it stands
//!
//! Inside failover, at each target, so that it counts for the model that will serve; outside of the
//! budget and of the limits that need its figure. For limits outside of failover,
//! [`figure`](TokenCountLayer::figure) puts the number on the request and does nothing else.
//!
//! # Example
//!
//! ```
//! use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse, Message};
//! use donjon_token_count::{Estimator, Model, Rules, TokenCountLayer};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model that says how long the prompt is.
//! let model = service_fn(|request: LlmRequest| async move {
//!     let input = request.call.estimate.expect("it was counted").input;
//!     let answer = donjon_core::ChatCompletion::text("small", input.to_string());
//!     Ok::<_, LlmError>(LlmResponse::complete(donjon_core::Head::new("small"), answer))
//! });
//! let small = Model::new(Estimator::new("small"), Rules::chatml()).context(100);
//! let layer = TokenCountLayer::builder().model("small", small).build()?;
//! let mut model = layer.layer(model);
//!
//! let short = LlmRequest::chat("small", [Message::user("How long is this?")]);
//! assert_eq!(model.ready().await?.call(short).await?.text().await?, "13");
//!
//! let long = LlmRequest::chat("small", [Message::user("word ".repeat(1_000))]);
//! let error = model.ready().await?.call(long).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::ContextLength);
//! # Ok(()) }
//! ```
#![cfg_attr(not(feature = "openai"), allow(rustdoc::broken_intra_doc_links))]

mod builder;
mod calibration;
mod count;
mod counter;
mod error;
mod estimator;
mod figure;
mod figures;
mod handle;
#[cfg(feature = "huggingface")]
mod huggingface;
mod image;
mod layer;
mod limits;
mod memo;
mod models;
#[cfg(feature = "openai")]
mod openai;
mod permit;
mod picture;
mod registry;
mod ruler;
mod rules;
mod sample;
mod seen;
mod shared;
mod slot;
mod sync;
mod tokenizer;
mod tools;
mod trim;
#[cfg(feature = "openai")]
mod windows;

pub use builder::{Fit, TokenCountBuilder};
pub use count::Count;
pub use counter::{TokenCount, TokenCounter};
pub use error::ConfigError;
pub use estimator::Estimator;
pub use figure::{TokenFigure, TokenFigures};
pub use figures::Figures;
pub use handle::{Correction, TokenEvent, TokenHandle};
#[cfg(feature = "huggingface")]
pub use huggingface::{HuggingFace, TokenizerFileError};
pub use layer::TokenCountLayer;
#[cfg(feature = "openai")]
pub use openai::OpenAi;
pub use permit::Permit;
pub use registry::{Model, Registry};
pub use rules::{ImageRule, Rules, ToolRule};
pub use sample::Sampling;
pub use tokenizer::Tokenizer;
