//! What can be wrong with a configuration.

use std::{error::Error, fmt, time::Duration};

/// A value that makes no sense; it names the field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `ttl` is zero: nothing would ever be answered.
    ZeroTtl,
    /// `negative_ttl` is zero.
    ZeroNegativeTtl,
    /// `max_bytes` is zero.
    ZeroMaxBytes,
    /// `max_entry_bytes` is zero.
    ZeroMaxEntryBytes,
    /// `max_entry_bytes` is more than an eighth of `max_bytes`: few such answers would push all
    /// others out.
    MaxEntryBytes {
        /// What was asked for, in bytes.
        entry: u64,
        /// `max_bytes`.
        all: u64,
    },
    /// `store_timeout` is zero: the store would never be asked.
    ZeroStoreTimeout,
    /// `refresh_timeout` is zero.
    ZeroRefreshTimeout,
    /// `replay` has a speed that is not a number above zero.
    ReplaySpeed(String),
    /// A time is longer than a hundred years; the field and its value.
    TooLong(&'static str, Duration),
    /// `compress_above` is set, and the crate was built without the feature `zstd`.
    NoZstd,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroTtl => f.write_str("ttl must not be zero"),
            Self::ZeroNegativeTtl => f.write_str("negative_ttl must not be zero"),
            Self::ZeroMaxBytes => f.write_str("max_bytes must not be zero"),
            Self::ZeroMaxEntryBytes => f.write_str("max_entry_bytes must not be zero"),
            Self::MaxEntryBytes { entry, all } => write!(
                f,
                "max_entry_bytes is {entry}, more than an eighth of max_bytes, which is {all}"
            ),
            Self::ZeroStoreTimeout => f.write_str("store_timeout must not be zero"),
            Self::ZeroRefreshTimeout => f.write_str("refresh_timeout must not be zero"),
            Self::ReplaySpeed(speed) => {
                write!(f, "the replay's speed must be above zero, not {speed}")
            }
            Self::TooLong(field, value) => {
                write!(f, "{field} must be at most a hundred years, not {value:?}")
            }
            Self::NoZstd => f.write_str("compress_above needs the feature `zstd`"),
        }
    }
}

impl Error for ConfigError {}
