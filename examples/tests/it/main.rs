//! The gateway over real HTTP on the loopback: callers before it, providers that misbehave behind
//! it, and every attempt counted at the provider.
//!
//! Sockets and a paused clock do not mix, so the clock runs; the gateway is given waits of
//! milliseconds, and what is asserted is order and number, not duration.

mod admission;
mod budget;
mod cache;
mod client;
mod config;
mod dialects;
mod disconnect;
mod embeddings;
mod errors;
mod limits;
mod message;
mod odd;
mod outage;
mod routing;
mod stream;
mod support;
