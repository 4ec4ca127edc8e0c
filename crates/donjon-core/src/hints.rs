//! What a server says of its limits.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitUnit {
    /// Requests.
    Requests,
    /// Tokens, input and output together.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
}

/// What a server says of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitHint {
    /// What it counts.
    pub unit: LimitUnit,
    /// Over which time, if the server says so.
    pub window: Option<Duration>,
    /// How much is allowed.
    pub limit: Option<u64>,
    /// How much of it is left.
    pub remaining: Option<u64>,
    /// How long, from [`Hints::received_at`], until all of it is there again.
    pub reset: Option<Duration>,
}

impl LimitHint {
    /// A hint that says nothing yet.
    pub const fn new(unit: LimitUnit) -> Self {
        Self {
            unit,
            window: None,
            limit: None,
            remaining: None,
            reset: None,
        }
    }
}

/// What a server says of its limits, with success and with failure alike.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// One for each limit that it names.
    pub limits: SmallVec<[LimitHint; 2]>,
    /// When it said so.
    pub received_at: Instant,
}

impl Hints {
    /// These limits, told now.
    pub fn new(limits: impl IntoIterator<Item = LimitHint>) -> Self {
        Self {
            limits: limits.into_iter().collect(),
            received_at: Instant::now(),
        }
    }

    /// What it says of `unit`.
    pub fn of(&self, unit: LimitUnit) -> Option<&LimitHint> {
        self.limits.iter().find(|hint| hint.unit == unit)
    }
}
