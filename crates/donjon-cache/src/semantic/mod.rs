//! Answers to what was asked before in other words.
//!
//! A text is turned into a vector by a service of yours, and the nearest of the questions that are kept
//! answers, if it is nearer than a threshold. Only what is compared may differ: the model, the
//! parameters, the system prompt, the rest of the conversation, the tenant must be the same, as for an
//! exact cache. The search is a scan of all vectors of such a partition, and so exact.
//!
//! # What it does not do
//!
//! It does not know whether two questions mean the same. A negation or another number is often nearer
//! than the threshold: try it in [shadow](SemanticBuilder::shadow) mode first, where it reports what it
//! would have answered, and never let it stand where a wrong answer costs more than a call. Calls that
//! offer tools are not answered, unless [told so](SemanticBuilder::answer_with_tools).
//!
//! # Where it stands
//!
//! Inside the exact [cache](crate::CacheLayer), outside everything that calls: what was asked in the
//! same words then costs no embedding, many who ask at once are one flight and one embedding, and the
//! exact cache does not keep an answer that is only near, since it comes with
//! [`Origin::Cache`](donjon_core::Origin::Cache).
//!
//! ```
//! use std::sync::Arc;
//! use donjon_cache::semantic::SemanticLayer;
//! use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message, Origin};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // How often each letter occurs: enough of a meaning for an example.
//! let letters = service_fn(|text: Arc<str>| async move {
//!     let mut vector = vec![0.0_f32; 26];
//!     for letter in text.to_ascii_lowercase().bytes().filter(u8::is_ascii_lowercase) {
//!         vector[usize::from(letter - b'a')] += 1.0;
//!     }
//!     Ok::<_, LlmError>(vector)
//! });
//! let model = service_fn(|request: LlmRequest| async move {
//!     let answer = ChatCompletion::text(request.model().clone(), "It is a keep.");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//!
//! let layer = SemanticLayer::builder(letters).threshold(0.97).build()?;
//! let mut model = layer.layer(model);
//! let ask = |text: &str| LlmRequest::chat("m", [Message::user(text)]);
//! model.ready().await?.call(ask("What is a donjon?")).await?;
//! let near = model.ready().await?.call(ask("what is a donjon")).await?;
//! assert_eq!(near.head.origin, Origin::Cache);
//! assert_eq!(layer.handle().hits(), 1);
//! # Ok(()) }
//! ```

mod embed;
mod error;
mod future;
mod handle;
mod index;
mod layer;
mod service;
mod shared;
mod text;
mod vector;

pub use embed::{EmbedBy, EmbedByFuture};
pub use error::SemanticConfigError;
pub use future::SemanticFuture;
pub use handle::{SemanticEvent, SemanticHandle};
pub use layer::{SemanticBuilder, SemanticLayer};
pub use service::SemanticService;
pub use text::Compared;
