//! How long each part of a call may take.

use std::{error::Error, fmt, time::Duration};

use donjon_core::TimeoutClock;

/// How long each part of a call may take; `None` is for ever.
///
/// ```
/// use donjon_timeout::Timeouts;
/// use std::time::Duration;
///
/// let patient = Timeouts::default().first_token(Duration::from_secs(300)).idle(None);
/// assert_eq!(patient.connect, Some(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Timeouts {
    /// Until the connection stands. The transport keeps it; it is only carried here. Default 5 s.
    pub connect: Option<Duration>,
    /// From the call to its commit point, where the answer is streamed. Default 60 s.
    pub first_token: Option<Duration>,
    /// Between two chunks that carry something, where the answer is streamed. Default 60 s.
    pub idle: Option<Duration>,
    /// The whole answer, where it comes whole. Default none: only the deadline counts.
    pub response: Option<Duration>,
    /// The whole call from its beginning, with all of its attempts; an earlier deadline stays.
    /// Default 10 min.
    pub total: Option<Duration>,
    /// Whether an answer that is to come whole is fetched as a stream, so that the clocks of
    /// streams guard it too. Default no.
    pub unary_over_stream: bool,
}

impl Timeouts {
    /// No limit at all.
    pub const fn none() -> Self {
        Self {
            connect: None,
            first_token: None,
            idle: None,
            response: None,
            total: None,
            unary_over_stream: false,
        }
    }

    /// Sets [`connect`](Self::connect).
    pub fn connect(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.connect = limit.into();
        self
    }

    /// Sets [`first_token`](Self::first_token).
    pub fn first_token(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.first_token = limit.into();
        self
    }

    /// Sets [`idle`](Self::idle).
    pub fn idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle = limit.into();
        self
    }

    /// Sets [`response`](Self::response).
    pub fn response(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.response = limit.into();
        self
    }

    /// Sets [`total`](Self::total).
    pub fn total(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.total = limit.into();
        self
    }

    /// Sets [`unary_over_stream`](Self::unary_over_stream).
    pub const fn unary_over_stream(mut self, over_stream: bool) -> Self {
        self.unary_over_stream = over_stream;
        self
    }

    pub(crate) fn check(&self, of: Option<&str>) -> Result<(), ConfigError> {
        for (clock, limit) in [
            (TimeoutClock::Connect, self.connect),
            (TimeoutClock::FirstToken, self.first_token),
            (TimeoutClock::Idle, self.idle),
            (TimeoutClock::Response, self.response),
            (TimeoutClock::Total, self.total),
        ] {
            if limit == Some(Duration::ZERO) {
                let of = of.map(Into::into);
                return Err(ConfigError::Zero { clock, of });
            }
        }
        Ok(())
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Some(Duration::from_secs(5)),
            first_token: Some(Duration::from_secs(60)),
            idle: Some(Duration::from_secs(60)),
            response: None,
            total: Some(Duration::from_secs(600)),
            unary_over_stream: false,
        }
    }
}

/// Why a layer cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit of zero, which nothing could keep; `None` switches a clock off.
    Zero {
        /// Whose limit.
        clock: TimeoutClock,
        /// The model or target that it was set for; `None` for all.
        of: Option<Box<str>>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Zero { clock, of } = self;
        write!(f, "the {} limit", name(*clock))?;
        if let Some(of) = of {
            write!(f, " of `{of}`")?;
        }
        f.write_str(" must not be zero; leave it out for no limit")
    }
}

impl Error for ConfigError {}

/// The word for a clock in figures and configuration.
pub(crate) const fn name(clock: TimeoutClock) -> &'static str {
    match clock {
        TimeoutClock::Connect => "connect",
        TimeoutClock::FirstToken => "first_token",
        TimeoutClock::Idle => "idle",
        TimeoutClock::Response => "response",
        TimeoutClock::Total => "total",
        _ => "other",
    }
}
