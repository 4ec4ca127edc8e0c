//! What makes no sense in a configuration, and why a call was refused.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use donjon_core::{Key, NanoUsd};

use crate::{prices::PriceError, store::StoreError};

/// Why [`Budgets`](crate::Budgets) cannot be built, or a limit not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The `amount` of a limit is from a billionth of a dollar to 72 million dollars.
    Amount(NanoUsd),
    /// A `rolling` period is from a minute to a year.
    Rolling(Duration),
    /// Two limits have one name; give one of them another.
    Twice(Arc<str>),
    /// `time_zone` is no name of the tz database.
    TimeZone(String),
    /// `max_keys` is at least 1.
    ZeroMaxKeys,
    /// `max_lines` is at least 1.
    ZeroMaxLines,
    /// `flush_every` is at least a millisecond.
    FlushEvery(Duration),
    /// There is no limit of this name.
    UnknownLimit(String),
    /// The `prices` are refused.
    Prices(PriceError),
    /// The `store` cannot be read.
    Store(StoreError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(amount) => write!(
                f,
                "the amount of a limit must be from $0.000000001 to $72,000,000, not {amount}"
            ),
            Self::Rolling(length) => write!(
                f,
                "a rolling period must be from a minute to a year, not {length:?}"
            ),
            Self::Twice(name) => write!(f, "there are two limits named {name:?}"),
            Self::TimeZone(name) => write!(f, "the time_zone {name:?} is not known"),
            Self::ZeroMaxKeys => f.write_str("max_keys must be at least 1"),
            Self::ZeroMaxLines => f.write_str("max_lines must be at least 1"),
            Self::FlushEvery(every) => {
                write!(
                    f,
                    "flush_every must be at least a millisecond, not {every:?}"
                )
            }
            Self::UnknownLimit(name) => write!(f, "there is no limit named {name:?}"),
            Self::Prices(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Prices(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<PriceError> for ConfigError {
    fn from(error: PriceError) -> Self {
        Self::Prices(error)
    }
}

impl From<StoreError> for ConfigError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a call was refused: the source of its [`LlmError`](donjon_core::LlmError).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It might have passed a hard limit.
    OverBudget {
        /// The name of the limit.
        limit: Arc<str>,
        /// For which key.
        key: Key,
        /// How much is allowed.
        amount: NanoUsd,
        /// How much is spent, and reserved for calls under way.
        used: NanoUsd,
        /// How much the call might cost.
        needed: NanoUsd,
        /// How long until it fits, if nothing else is spent; `None` if it never will.
        resets_in: Option<Duration>,
    },
    /// Nobody knows what it costs.
    UnknownPrice {
        /// The provider of the target, if it was said.
        provider: Option<Arc<str>>,
        /// The model.
        model: Arc<str>,
    },
    /// As many keys have spent something as are kept apart.
    Keys {
        /// The name of the limit.
        limit: Arc<str>,
    },
    /// What is spent cannot be kept.
    Store,
}

impl Refusal {
    /// A word for it, for figures.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::OverBudget { .. } => "over_budget",
            Self::UnknownPrice { .. } => "unknown_price",
            Self::Keys { .. } => "keys",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverBudget {
                limit,
                key,
                amount,
                used,
                needed,
                resets_in,
            } => {
                write!(
                    f,
                    "the budget {limit:?} of {key} is {amount}, of which {used} are spent or reserved; this call may cost {needed}"
                )?;
                match resets_in {
                    Some(after) => write!(f, " and fits in {} s", after.as_secs_f64().ceil()),
                    None => f.write_str(" and never fits"),
                }
            }
            Self::UnknownPrice {
                provider: Some(provider),
                model,
            } => {
                write!(f, "the price of {model} at {provider} is not known")
            }
            Self::UnknownPrice {
                provider: None,
                model,
            } => {
                write!(f, "the price of {model} is not known")
            }
            Self::Keys { limit } => {
                write!(f, "the budget {limit:?} keeps no more keys apart")
            }
            Self::Store => f.write_str("what is spent cannot be kept at present"),
        }
    }
}

impl Error for Refusal {}
