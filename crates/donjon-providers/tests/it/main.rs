//! Integration tests, in one binary.

#[cfg(feature = "hyper-client")]
mod transport;
