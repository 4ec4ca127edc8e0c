//! What makes no sense in a configuration.

use std::{error::Error, fmt};

/// Why a [`TokenCountLayer`](crate::TokenCountLayer) cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `default_output` is zero: then nothing would be reserved for answers without a limit.
    ZeroDefaultOutput,
    /// `remember` is zero.
    ZeroRemember,
    /// `max_models` is zero.
    ZeroMaxModels,
    /// `sampling` takes no sample.
    ZeroSamples,
    /// A model of the registry has room for nothing.
    ZeroLimit {
        /// The name it is registered under.
        model: String,
        /// `context`, `max_input` or `max_output`.
        limit: &'static str,
    },
    /// A model of the registry is said to take more than it has room for.
    LimitAboveContext {
        /// The name it is registered under.
        model: String,
        /// `max_input` or `max_output`.
        limit: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroDefaultOutput => f.write_str("default_output must be at least 1"),
            Self::ZeroRemember => f.write_str("remember must be at least 1"),
            Self::ZeroMaxModels => f.write_str("max_models must be at least 1"),
            Self::ZeroSamples => f.write_str("sampling must take at least 1 sample"),
            Self::ZeroLimit { model, limit } => {
                write!(f, "{limit} of the model `{model}` must be at least 1")
            }
            Self::LimitAboveContext { model, limit } => {
                write!(f, "{limit} of the model `{model}` is above its context")
            }
        }
    }
}

impl Error for ConfigError {}
