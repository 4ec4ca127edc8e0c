//! Codecs and transport for language model providers as tower services: OpenAI and compatible servers, Anthropic.

#[cfg(feature = "hyper-client")]
pub mod transport;
