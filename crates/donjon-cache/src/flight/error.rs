//! What makes no sense in a configuration.

use std::{error::Error, fmt};

/// Why [`Flights`](super::Flights) cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlightConfigError {
    /// With `max_bytes` zero nobody could join a stream.
    ZeroMaxBytes,
}

impl fmt::Display for FlightConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroMaxBytes => f.write_str("max_bytes must be at least 1"),
        }
    }
}

impl Error for FlightConfigError {}
