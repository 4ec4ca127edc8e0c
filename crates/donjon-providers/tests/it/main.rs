//! Integration tests, in one binary.

mod answers;
mod gemini;
mod ollama;
mod pass;
mod provider;
mod recorded;
mod streams;
mod support;
mod translate;
#[cfg(feature = "hyper-client")]
mod transport;
#[cfg(feature = "hyper-client")]
mod upstream;
