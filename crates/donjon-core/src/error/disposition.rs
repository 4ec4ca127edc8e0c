//! The one table from what went wrong to what is done about it.

use super::{ErrorKind, LlmError, Scope, TimeoutClock};

/// What an error does to the picture of its target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Nothing: the target did nothing wrong, or was not asked.
    Neutral,
    /// It is broken.
    Fault,
    /// It has too much to do.
    Overload,
}

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disposition {
    /// Whether the same target may be asked again.
    pub retry: bool,
    /// Whether another target may be asked.
    pub failover: bool,
    /// Whether the target is to blame.
    pub health: Health,
    /// The HTTP status to answer with.
    pub status: u16,
    /// Whom it concerns, unless the error itself says otherwise.
    pub scope: Scope,
}

impl ErrorKind {
    /// The row of this kind in the table.
    #[rustfmt::skip]
    pub const fn disposition(self) -> Disposition {
        use Health::{Fault, Neutral, Overload};
        use Scope::{Attempt, Caller, Target};
        use TimeoutClock as Clock;
        const Y: bool = true;
        const N: bool = false;
        const fn row(retry: bool, failover: bool, health: Health, status: u16, scope: Scope) -> Disposition {
            Disposition { retry, failover, health, status, scope }
        }
        match self {
            //                                     same  other
            //                                  target?  target?  health    status  scope
            Self::Connect                     => row(Y,   Y,      Fault,    502,    Attempt),
            Self::Transport                   => row(Y,   Y,      Fault,    502,    Attempt),
            Self::StreamBroken                => row(Y,   Y,      Fault,    502,    Attempt),
            Self::Incomplete                  => row(Y,   Y,      Fault,    502,    Attempt),
            Self::InvalidResponse             => row(Y,   Y,      Fault,    502,    Attempt),
            Self::RateLimited                 => row(Y,   Y,      Overload, 429,    Attempt),
            Self::QuotaExhausted              => row(N,   Y,      Fault,    429,    Target),
            Self::Overloaded                  => row(Y,   Y,      Overload, 503,    Attempt),
            Self::ServerError                 => row(Y,   Y,      Fault,    502,    Attempt),
            Self::Unavailable                 => row(Y,   Y,      Fault,    503,    Attempt),
            Self::Authentication              => row(N,   Y,      Fault,    401,    Target),
            Self::PermissionDenied            => row(N,   Y,      Neutral,  403,    Target),
            Self::ModelNotFound               => row(N,   Y,      Neutral,  404,    Target),
            Self::InvalidRequest              => row(N,   N,      Neutral,  400,    Caller),
            Self::RequestTooLarge             => row(N,   Y,      Neutral,  413,    Target),
            Self::ContextLength               => row(N,   Y,      Neutral,  400,    Target),
            Self::ContentPolicy               => row(N,   N,      Neutral,  400,    Caller),
            Self::Unsupported                 => row(N,   Y,      Neutral,  400,    Target),
            Self::Timeout(Clock::Connect)     => row(Y,   Y,      Fault,    504,    Attempt),
            Self::Timeout(Clock::FirstToken)  => row(N,   Y,      Fault,    504,    Target),
            Self::Timeout(Clock::Idle)        => row(N,   Y,      Fault,    504,    Target),
            Self::Timeout(Clock::Response)    => row(N,   Y,      Fault,    504,    Target),
            Self::Timeout(Clock::Total)       => row(N,   N,      Fault,    504,    Caller),
            Self::CircuitOpen                 => row(N,   Y,      Neutral,  503,    Target),
            Self::QueueFull                   => row(N,   Y,      Neutral,  503,    Target),
            Self::LimitedLocally              => row(N,   Y,      Neutral,  429,    Target),
            Self::OverBudget                  => row(N,   Y,      Neutral,  429,    Caller),
            Self::Unsent                      => row(N,   Y,      Neutral,  503,    Target),
            Self::AllTargetsFailed            => row(N,   N,      Neutral,  503,    Caller),
            Self::Internal                    => row(N,   N,      Neutral,  500,    Caller),
        }
    }
}

/// Decides what is done about an error. Any `Fn(&LlmError) -> Disposition` is one.
pub trait Classify: Send + Sync {
    /// What is done about `error`.
    fn classify(&self, error: &LlmError) -> Disposition;
}

impl<F: Fn(&LlmError) -> Disposition + Send + Sync> Classify for F {
    fn classify(&self, error: &LlmError) -> Disposition {
        self(error)
    }
}

/// The default: the table, with what the error itself says taken into account. An error that
/// concerns the caller is final and blames nobody but by its kind; the server's `x-should-retry`
/// overrides whether the same target is asked again.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultTable;

impl Classify for DefaultTable {
    fn classify(&self, error: &LlmError) -> Disposition {
        let mut row = error.kind().disposition();
        row.scope = error.scope();
        if let Some(should) = error.should_retry() {
            row.retry = should && row.failover;
        }
        if row.scope == Scope::Caller {
            row.retry = false;
            row.failover = false;
        }
        row
    }
}
