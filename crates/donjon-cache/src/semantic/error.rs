//! What can be wrong with a configuration.

use std::{error::Error, fmt, time::Duration};

use crate::error::ConfigError;

/// Why a [`SemanticLayer`](super::SemanticLayer) cannot be built; it names the field.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SemanticConfigError {
    /// `threshold` is not a number above 0 and up to 1.
    Threshold(f32),
    /// `max_entries` is zero: nothing would ever be found.
    ZeroMaxEntries,
    /// `max_dimensions` is zero.
    ZeroMaxDimensions,
    /// `max_text_bytes` is zero.
    ZeroMaxTextBytes,
    /// `embed_timeout` is zero: the embedding would never be asked.
    ZeroEmbedTimeout,
    /// `embed_timeout` is longer than an hour.
    EmbedTimeoutTooLong(Duration),
    /// What is wrong with `ttl`, `max_bytes`, `max_entry_bytes` or `replay`.
    Kept(ConfigError),
}

impl fmt::Display for SemanticConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threshold(value) => {
                write!(f, "threshold must be above 0 and at most 1, not {value}")
            }
            Self::ZeroMaxEntries => f.write_str("max_entries must not be zero"),
            Self::ZeroMaxDimensions => f.write_str("max_dimensions must not be zero"),
            Self::ZeroMaxTextBytes => f.write_str("max_text_bytes must not be zero"),
            Self::ZeroEmbedTimeout => f.write_str("embed_timeout must not be zero"),
            Self::EmbedTimeoutTooLong(value) => {
                write!(f, "embed_timeout must be at most an hour, not {value:?}")
            }
            Self::Kept(error) => error.fmt(f),
        }
    }
}

impl Error for SemanticConfigError {}

impl From<ConfigError> for SemanticConfigError {
    fn from(error: ConfigError) -> Self {
        Self::Kept(error)
    }
}
