//! How long things may take.

use std::{error::Error, fmt, time::Duration};

/// How long an attempt may take; what is not set does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// From the call to its commit point, on a stream.
    pub first_token: Option<Duration>,
    /// Between two chunks that carry something, on a stream.
    pub idle: Option<Duration>,
    /// The whole answer, where it comes whole.
    pub response: Option<Duration>,
}

impl Limits {
    /// No limits.
    pub const fn new() -> Self {
        Self {
            first_token: None,
            idle: None,
            response: None,
        }
    }

    /// Sets how long the first token of a stream may take.
    #[must_use]
    pub const fn first_token(mut self, limit: Duration) -> Self {
        self.first_token = Some(limit);
        self
    }

    /// Sets how long a stream may be silent.
    #[must_use]
    pub const fn idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Sets how long an answer that comes whole may take.
    #[must_use]
    pub const fn response(mut self, limit: Duration) -> Self {
        self.response = Some(limit);
        self
    }

    /// These limits, and where one is not set that of `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            first_token: self.first_token.or(other.first_token),
            idle: self.idle.or(other.idle),
            response: self.response.or(other.response),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let limits = [
            ("first_token", self.first_token),
            ("idle", self.idle),
            ("response", self.response),
        ];
        limits
            .into_iter()
            .try_for_each(|(field, limit)| check(field, limit))
    }
}

pub(crate) fn check(field: &'static str, limit: Option<Duration>) -> Result<(), ConfigError> {
    match limit {
        Some(limit) if limit.is_zero() => Err(ConfigError { field }),
        _ => Ok(()),
    }
}

/// A limit that nothing could keep: it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
}

impl ConfigError {
    /// The limit: `connect`, `first_token`, `idle`, `response` or `total`.
    pub const fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` must be longer than nothing", self.field)
    }
}

impl Error for ConfigError {}
