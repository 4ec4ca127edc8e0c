//! What makes no sense in a configuration.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::{queue::MAX_WEIGHT, slots::MAX_SIZE};

/// Why a [`PoolLayer`](crate::PoolLayer) or a [`ClientPool`](crate::ClientPool) cannot be built, or
/// a size not be set.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `size` is from 1 to about a billion slots.
    Size(u32),
    /// `initial` of an adaptive limit is between its bounds.
    Initial {
        /// Where it would start.
        initial: u32,
        /// The lower bound.
        least: u32,
        /// The upper bound.
        most: u32,
    },
    /// The bounds of an adaptive limit are at least 1, the lower one first.
    Bounds {
        /// The lower bound.
        least: u32,
        /// The upper bound.
        most: u32,
    },
    /// `backoff` is a number from 0.1 to below 1.
    Backoff(f64),
    /// `tolerance` is a number from 1 to 10.
    Tolerance(f64),
    /// `first_token_within` is more than zero.
    ZeroFirstToken,
    /// `look_every` is at least a second.
    LookEvery(Duration),
    /// `ageing` is more than zero.
    ZeroAgeing,
    /// `max_wait` is more than zero; ask for [`Overflow::Reject`](crate::Overflow::Reject) instead.
    ZeroMaxWait,
    /// `Overflow::Temporary` is for at least one slot.
    ZeroTemporary,
    /// `max_keys` is at least 1.
    ZeroMaxKeys,
    /// `weight` of a tenant is from 1 to 1,000.
    Weight {
        /// The tenant.
        tenant: Arc<str>,
        /// The weight.
        weight: u32,
    },
    /// Two profiles have the same name.
    SameProfile(Arc<str>),
    /// There are profiles and nothing to choose one by: set `key_by`.
    ProfilesWithoutKey,
    /// A pool of clients holds at least one.
    ZeroMaxClients,
    /// No more clients can be kept warm than there may be.
    Warm {
        /// How many are to be kept warm.
        min: usize,
        /// How many there may be.
        max: usize,
    },
    /// A time to live of zero, of the field of this name.
    ZeroAge(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "size must be from 1 to {MAX_SIZE}, not {size}"),
            Self::Initial {
                initial,
                least,
                most,
            } => write!(f, "initial must be from {least} to {most}, not {initial}"),
            Self::Bounds { least, most } => write!(
                f,
                "the bounds of a limit must be from 1 to {MAX_SIZE}, the lower one first, not \
                 {least} to {most}"
            ),
            Self::Backoff(backoff) => {
                write!(f, "backoff must be from 0.1 to below 1, not {backoff}")
            }
            Self::Tolerance(times) => write!(f, "tolerance must be from 1 to 10, not {times}"),
            Self::ZeroFirstToken => f.write_str("first_token_within must not be zero"),
            Self::LookEvery(every) => {
                write!(f, "look_every must be 1 s or more, not {every:?}")
            }
            Self::ZeroAgeing => f.write_str("ageing must not be zero"),
            Self::ZeroMaxWait => {
                f.write_str("max_wait must not be zero; Overflow::Reject lets nobody wait")
            }
            Self::ZeroTemporary => f.write_str("Overflow::Temporary must be at least 1 slot"),
            Self::ZeroMaxKeys => f.write_str("max_keys must be at least 1"),
            Self::Weight { tenant, weight } => write!(
                f,
                "the weight of tenant {tenant:?} must be from 1 to {MAX_WEIGHT}, not {weight}"
            ),
            Self::SameProfile(name) => write!(f, "two profiles are called {name:?}"),
            Self::ProfilesWithoutKey => {
                f.write_str("profiles are chosen by key_by, which is not set")
            }
            Self::ZeroMaxClients => f.write_str("max of a client pool must be at least 1"),
            Self::Warm { min, max } => {
                write!(f, "min_warm ({min}) must not be above max ({max})")
            }
            Self::ZeroAge(field) => write!(f, "{field} must not be zero"),
        }
    }
}

impl Error for ConfigError {}
