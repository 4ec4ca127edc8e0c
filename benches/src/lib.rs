//! Shared parts of the benches: instruments, a load generator and the fixed answers of the upstream they drive.
//!
//! Two things are measured here. `cargo bench -p donjon-benches --bench layers` times each layer alone, beside the nearest
//! peer, in the same run ([`meter`], [`report`]). The binaries measure whole programs over loopback TCP: `upstream` answers,
//! `proxy` is the least a proxy can do, `load` drives either, `gateway_bench` compares a gateway with both. `README.md`
//! tells how to run each and how to read it.
//!
//! Nothing here asserts a time.

pub mod alloc;
pub mod answers;
pub mod args;
pub mod child;
pub mod clock;
pub mod load;
pub mod meter;
pub mod process;
pub mod report;
pub mod stats;
