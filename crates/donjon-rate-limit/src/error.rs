//! What makes no sense in a configuration, and why a call was refused.

use std::{error::Error, fmt, time::Duration};

use crate::limit::{Limit, Unit};

/// Why a [`RateLimitLayer`](crate::RateLimitLayer) cannot be built, or a limit not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Without `limit`, `min_spacing` or `learn` nothing would be limited.
    NoLimit,
    /// A `limit` of zero lets nothing pass.
    ZeroLimit(Unit),
    /// A `burst` of zero lets nothing pass.
    ZeroBurst(Unit),
    /// A window is at least 1 ms and at most 10 years.
    Window(Unit, Duration),
    /// A `burst` that takes more than 10 years to come due.
    Burst(Unit, u64),
    /// Two limits count the same over the same window.
    Twice(Limit),
    /// `max_keys` is at least 1.
    ZeroMaxKeys,
    /// With `max_queue` zero no call could ever wait; say `Overflow::Reject` instead.
    ZeroMaxQueue,
    /// The layer has no limit of this unit over this window.
    UnknownLimit(Limit),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLimit => f.write_str("no limit, no min_spacing and nothing to learn"),
            Self::ZeroLimit(unit) => write!(f, "the limit of {unit:?} must be at least 1"),
            Self::ZeroBurst(unit) => write!(f, "the burst of {unit:?} must be at least 1"),
            Self::Window(unit, window) => write!(
                f,
                "the window of {unit:?} must be from 1 ms to 10 years, not {window:?}"
            ),
            Self::Burst(unit, burst) => write!(
                f,
                "the burst of {burst} {unit:?} takes more than 10 years at its rate"
            ),
            Self::Twice(limit) => write!(f, "there are two limits such as {limit}"),
            Self::ZeroMaxKeys => f.write_str("max_keys must be at least 1"),
            Self::ZeroMaxQueue => f.write_str("max_queue must be at least 1"),
            Self::UnknownLimit(limit) => write!(f, "there is no limit such as {limit}"),
        }
    }
}

impl Error for ConfigError {}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A limit is used up, and calls do not wait.
    Limit,
    /// It needs more than the whole of a limit, and will never fit.
    TooLarge,
    /// The queue is full.
    QueueFull,
    /// Its wait would be, or was, longer than the deadline or the patience of the call allows.
    Deadline,
    /// Its wait would be, or was, longer than the layer's `max_wait`.
    MaxWait,
    /// There is no room for another key.
    Keys,
}

impl Reason {
    pub(crate) const ALL: [Self; 6] = [
        Self::Limit,
        Self::TooLarge,
        Self::QueueFull,
        Self::Deadline,
        Self::MaxWait,
        Self::Keys,
    ];

    /// A word for it in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::Deadline => "deadline",
            Self::MaxWait => "max_wait",
            Self::Keys => "keys",
        }
    }
}

/// A refusal. It is the source of the [`LlmError`](donjon_core::LlmError) that a refused call is
/// answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What stood in the way.
    pub by: Blocker,
    /// How long until it would fit, if nobody else comes; `None` if never, or nobody can tell.
    pub retry_after: Option<Duration>,
}

/// What stands in the way of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocker {
    /// A limit.
    Limit {
        /// Which one.
        limit: Limit,
        /// How much of it the call needs.
        need: u64,
        /// How much there is of it at most.
        capacity: u64,
    },
    /// The least time between two requests.
    Spacing,
    /// The provider, which asked to be left alone.
    Provider,
    /// Those who wait already.
    Queue,
    /// The bound on keys.
    Keys,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit {
                limit,
                need,
                capacity,
            } => {
                let unit = limit.unit().name();
                write!(
                    f,
                    "the limit of {limit} (needed are {need} {unit} of {capacity})"
                )
            }
            Self::Spacing => f.write_str("the least time between two requests"),
            Self::Provider => f.write_str("the provider asked for a pause"),
            Self::Queue => f.write_str("the calls that wait already"),
            Self::Keys => f.write_str("too many keys are in use"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = &self.by;
        match self.reason {
            Reason::TooLarge => return write!(f, "the request will never fit: {by}"),
            Reason::QueueFull => write!(f, "the queue is full behind {by}")?,
            Reason::Deadline => write!(f, "deadline or patience do not allow to wait: {by}")?,
            Reason::MaxWait => write!(f, "the wait is longer than max_wait: {by}")?,
            Reason::Limit | Reason::Keys => write!(f, "{by}")?,
        }
        match self.retry_after {
            Some(after) => write!(f, "; it fits in {after:?}"),
            None => Ok(()),
        }
    }
}

impl Error for Refusal {}
