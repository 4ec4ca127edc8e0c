//! What makes no sense in a configuration.

use std::{error::Error, fmt, time::Duration};

/// Why a [`HedgeLayer`](crate::HedgeLayer) cannot be built.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A fixed `delay` of zero would make every call twice at once.
    ZeroDelay,
    /// The percentile of a `delay` is a number between 0 and 1, both excluded.
    Percentile(f64),
    /// `minimum_calls` of a `delay` is at least 1.
    ZeroMinimumCalls,
    /// A `delay` that is to be at least so long and at most so long.
    Bounds {
        /// At least.
        least: Duration,
        /// At most.
        most: Duration,
    },
    /// `max_hedges` is from 1 to 3.
    MaxHedges(usize),
    /// `budget` is hedges for each call: a number above 0 and up to 1.
    Budget(f64),
    /// With a `burst` of zero no hedge could ever be made.
    ZeroBurst,
    /// `nearly_out` is a share of a limit: a number from 0 to 1.
    NearlyOut(f64),
    /// `pause` is some time, and no longer than `longest_pause`.
    Pause {
        /// The pause.
        pause: Duration,
        /// The longest one.
        longest: Duration,
    },
}

impl ConfigError {
    /// The setting that makes no sense.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::ZeroDelay
            | Self::Percentile(_)
            | Self::ZeroMinimumCalls
            | Self::Bounds { .. } => "delay",
            Self::MaxHedges(_) => "max_hedges",
            Self::Budget(_) => "budget",
            Self::ZeroBurst => "burst",
            Self::NearlyOut(_) => "nearly_out",
            Self::Pause { .. } => "pause",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroDelay => f.write_str("delay must be longer than zero"),
            Self::Percentile(q) => {
                write!(f, "delay's percentile must be between 0 and 1, not {q}")
            }
            Self::ZeroMinimumCalls => f.write_str("delay's minimum_calls must be at least 1"),
            Self::Bounds { least, most } => {
                write!(
                    f,
                    "delay's at_least {least:?} is above its at_most {most:?}"
                )
            }
            Self::MaxHedges(n) => write!(f, "max_hedges must be from 1 to 3, not {n}"),
            Self::Budget(ratio) => {
                write!(f, "budget must be above 0 and up to 1, not {ratio}")
            }
            Self::ZeroBurst => f.write_str("burst must be at least 1"),
            Self::NearlyOut(share) => {
                write!(f, "nearly_out must be from 0 to 1, not {share}")
            }
            Self::Pause { pause, longest } => {
                write!(
                    f,
                    "pause {pause:?} must be above zero and up to longest_pause {longest:?}"
                )
            }
        }
    }
}

impl Error for ConfigError {}
