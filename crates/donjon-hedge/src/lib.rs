//! Hedging for calls to language models, as a tower layer.

mod bucket;
mod delay;
mod error;
mod future;
mod handle;
mod histogram;
mod layer;
mod limits;
mod race;
mod service;
mod state;

pub use delay::HedgeDelay;
pub use error::ConfigError;
pub use future::HedgeFuture;
pub use handle::{HedgeCause, HedgeEvent, HedgeHandle, Measured, Suppressed};
pub use layer::{HedgeBuilder, HedgeLayer};
pub use service::Hedge;
