//! Any language model service as an OpenAI- and Anthropic-compatible http service.
//!
//! [`Serve`] takes any [`LlmService`](donjon_core::LlmService), a provider or the stack of layers
//! around several, and is a plain tower `Service<http::Request<_>>` that mounts in axum, hyper or a
//! tower-http stack:
//!
//! | endpoint | |
//! |---|---|
//! | `POST /v1/chat/completions` | in the words of OpenAI, whichever dialect the provider speaks |
//! | `POST /v1/embeddings` | likewise; vectors as numbers or in base64, as the caller asks |
//! | `POST /v1/messages` | in the words of Anthropic, likewise |
//! | `GET /v1/models`, `/v1/models/{id}` | the models that the builder was given |
//! | `GET /health` | every layer's health and figures |
//! | `GET /health/live`, `/health/ready` | probes; `ready` asks every layer |
//!
//! The head of an answer waits for the commit point of the call, so that a failure has its true
//! status, in the words of the endpoint, with `Retry-After` and `x-should-retry: false`. After it a
//! failure is told in the stream, which then has no `[DONE]`. A chunk goes out when it comes; a
//! caller who does not read stops the stream above, and one who leaves ends it.
//!
//! It does not listen (the module `server`, behind the feature of that name, does), does not check
//! keys, and adds no limits or retries of its own: those are layers of the service below, or of the http
//! stack above.
//!
//! ```
//! use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse};
//! use donjon_serve::Serve;
//! use http::Request;
//! use http_body_util::BodyExt;
//! use tower::{ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let llm = service_fn(|request: LlmRequest| async move {
//!     let answer = ChatCompletion::text(request.model().clone(), "A great tower.");
//!     Ok::<_, LlmError>(LlmResponse::complete(Head::new(request.model().clone()), answer))
//! });
//! let serve = Serve::builder(llm).models(["keep-1"]).build()?;
//! // In axum: Router::new().fallback_service(serve)
//!
//! let body = r#"{"model":"keep-1","messages":[{"role":"user","content":"What is a donjon?"}]}"#;
//! let request = Request::post("/v1/chat/completions").body(body.to_owned())?;
//! let response = serve.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.headers()["x-donjon-model"], "keep-1");
//! let answer = response.into_body().collect().await?.to_bytes();
//! assert!(answer.windows(14).any(|text| text == b"A great tower."));
//! # Ok(())
//! # }
//! ```

mod body;
mod builder;
mod dialect;
mod future;
mod gather;
mod health;
mod models;
mod reply;
mod route;
#[cfg(feature = "server")]
pub mod server;
mod service;
mod settings;
mod sse;
mod streamed;

pub use body::ServeBody;
pub use builder::{ConfigError, ServeBuilder};
pub use future::ServeFuture;
pub use service::Serve;
