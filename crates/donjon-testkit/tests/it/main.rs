//! The testkit, tested from the outside.

mod upstream;
