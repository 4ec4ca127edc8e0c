//! What makes no sense in a configuration.

use std::{error::Error, fmt, time::Duration};

/// Why a [`RetryLayer`](crate::RetryLayer) or a [`RetryBudget`](crate::RetryBudget) cannot be built.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `max_attempts` counts the first attempt, so it is at least 1.
    ZeroMaxAttempts,
    /// `total_attempts` counts the first attempt, so it is at least 1.
    ZeroTotalAttempts,
    /// With `max_parked` zero no call could ever wait; ask for one attempt instead.
    ZeroMaxParked,
    /// The factor of an exponential backoff is a number of at least 1.
    BackoffFactor(f64),
    /// A backoff that grows needs something to grow from; say `Backoff::none()` for no wait.
    ZeroBackoff,
    /// The cap of a backoff is shorter than its base.
    BackoffCap {
        /// The base.
        base: Duration,
        /// The cap.
        cap: Duration,
    },
    /// The ratio of a budget is retries for each request: a number from 0 to 10.
    BudgetRatio(f64),
    /// A budget that earns for requests must be able to keep at least one retry.
    ZeroBurst,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroMaxAttempts => f.write_str("max_attempts must be at least 1"),
            Self::ZeroTotalAttempts => f.write_str("total_attempts must be at least 1"),
            Self::ZeroMaxParked => f.write_str("max_parked must be at least 1"),
            Self::BackoffFactor(factor) => {
                write!(f, "the backoff factor must be 1 or more, not {factor}")
            }
            Self::ZeroBackoff => f.write_str("the base of a backoff that grows must not be zero"),
            Self::BackoffCap { base, cap } => {
                write!(
                    f,
                    "the backoff cap {cap:?} is shorter than its base {base:?}"
                )
            }
            Self::BudgetRatio(ratio) => {
                write!(f, "the budget's ratio must be from 0 to 10, not {ratio}")
            }
            Self::ZeroBurst => f.write_str("the budget's burst must be at least 1"),
        }
    }
}

impl Error for ConfigError {}
