//! The http service as its callers see it.

#![expect(clippy::unwrap_used, reason = "a failure here is a failing test")]

mod anthropic;
mod crossing;
mod early;
mod embeddings;
mod endpoints;
mod errors;
mod mounts;
#[cfg(feature = "server")]
mod server;
mod sockets;
mod streams;
mod support;
mod unary;
