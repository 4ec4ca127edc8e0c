//! The testkit, tested from the outside.

mod contract;
mod probe;
mod scripted;
#[cfg(feature = "upstream")]
mod upstream;
