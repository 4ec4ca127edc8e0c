//! What tests of tower layers around language models are made of.
//!
//! # What it is
//!
//! * [`ScriptedLlm`]: a model in this process that plays a [`Script`] for each call (an answer, words
//!   with gaps, silence, a cut, an error with any hint) and writes down what it saw, how each call
//!   ended and what is held. Under a paused clock its waits take no time.
//! * [`contract`]: checks of the laws that every layer should keep (readiness, cancellation, waking,
//!   errors, streams, ends), to be run on any layer with one call.
//! * [`upstream`] (feature `upstream`, on by default): the same scripts over real HTTP, in the
//!   dialects of OpenAI, Anthropic, Gemini and Ollama, with faults of the wire.
//! * [`AtOnce`]: a model that allocates nothing, to count what a layer allocates.
//! * [`probe`]: helpers that poll by hand, count wake-ups, and hear ends.
//!
//! # What it is not
//!
//! No recorder of real providers, no load generator, no mock that checks expectations: a test asks
//! what was seen and asserts on it.
//!
//! # Where it stands
//!
//! Beside the other crates, as a dev-dependency; above it stands nothing. A layer's whole contract is
//! one test:
//!
//! ```
//! use donjon_core::{ErrorKind, LlmRequest, Message};
//! use donjon_testkit::{CallEnd, Script, ScriptedLlm, contract, probe::collect_text};
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
//! # runtime.expect("a runtime").block_on(async {
//! // In tests: #[tokio::test(start_paused = true)]
//! let layer = ConcurrencyLimitLayer::new(10);
//! contract::check(|leaf| layer.layer(leaf)).await;
//!
//! // And what it does, against a model that misbehaves: a minute of silence, then an error.
//! let model = ScriptedLlm::new("Hello!")
//!     .then(Script::words(3).stall_after(1, Duration::from_secs(60)))
//!     .then(Script::fail(ErrorKind::RateLimited).retry_after(Duration::from_secs(2)));
//! let mut service = layer.layer(model.clone());
//! let request = LlmRequest::chat("any", [Message::user("Hi")]).streamed();
//!
//! let slow = service.ready().await.expect("ready").call(request.clone()).await.expect("a stream");
//! assert_eq!(collect_text(slow).await.expect("three words"), "w0 w1 w2 ");
//! let refused = service.ready().await.expect("ready").call(request).await.expect_err("refused");
//! assert_eq!(refused.retry_after(), Some(Duration::from_secs(2)));
//! let failed = CallEnd::Failed(ErrorKind::RateLimited);
//! assert_eq!(model.ends(), [Some(CallEnd::Answered), Some(failed)]);
//! assert_eq!(model.in_progress(), 0);
//! # });
//! ```

mod at_once;
pub mod contract;
pub mod probe;
pub mod scripted;
#[cfg(feature = "upstream")]
pub mod upstream;

pub use at_once::AtOnce;
pub use scripted::{CallEnd, Script, ScriptedLlm, SeenCall};
