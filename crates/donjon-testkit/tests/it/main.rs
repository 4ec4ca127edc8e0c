//! The testkit, tested from the outside.

mod scripted;
#[cfg(feature = "upstream")]
mod upstream;
