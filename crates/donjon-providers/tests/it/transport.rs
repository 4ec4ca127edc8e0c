//! The HTTP client against real hyper servers: on loopback with an unpaused clock, or in memory with a paused one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cancel;
mod config;
mod errors;
mod http2;
mod limits;
mod pool;
mod proxy;
mod support;
mod tls;
