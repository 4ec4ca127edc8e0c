//! The kinds of errors.

use std::fmt;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection: name, address, TLS. Nothing was sent.
    Connect,
    /// The connection broke before an answer came.
    Transport,
    /// The connection broke, or the server reported an error, in the middle of an answer.
    StreamBroken,
    /// The answer ended without a finish reason.
    Incomplete,
    /// The answer cannot be understood: no JSON, an HTML page, a success that holds no answer.
    InvalidResponse,
    /// The provider's rate limit (429).
    RateLimited,
    /// The account has no money or quota left (402, or 429 `insufficient_quota`).
    QuotaExhausted,
    /// The provider has too much to do (529, or 503 that says so).
    Overloaded,
    /// The provider failed (500).
    ServerError,
    /// The provider cannot be reached behind its own front (408, 409, 502, 503, 504).
    Unavailable,
    /// The key is wrong (401).
    Authentication,
    /// The key may not do this (403).
    PermissionDenied,
    /// The target has no such model or endpoint (404).
    ModelNotFound,
    /// The request makes no sense (400, 422).
    InvalidRequest,
    /// The body is too large for the target (413).
    RequestTooLarge,
    /// The prompt is longer than the model's context window.
    ContextLength,
    /// The provider's content policy refuses the prompt or withholds the answer.
    ContentPolicy,
    /// The target cannot do this: operation, modality, parameter.
    Unsupported,
    /// A clock ran out.
    Timeout(TimeoutClock),
    /// The circuit breaker is open.
    CircuitOpen,
    /// A queue of ours is full.
    QueueFull,
    /// A limit of ours is reached.
    LimitedLocally,
    /// A budget of ours is spent.
    OverBudget,
    /// Given up before anything was sent: the wait was longer than deadline or patience allow.
    Unsent,
    /// Every target failed; [`attempts`](crate::LlmError::attempts) says why.
    AllTargetsFailed,
    /// Something that should not happen: an error without a kind, a bug.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: &'static [Self] = &[
        Self::Connect,
        Self::Transport,
        Self::StreamBroken,
        Self::Incomplete,
        Self::InvalidResponse,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Overloaded,
        Self::ServerError,
        Self::Unavailable,
        Self::Authentication,
        Self::PermissionDenied,
        Self::ModelNotFound,
        Self::InvalidRequest,
        Self::RequestTooLarge,
        Self::ContextLength,
        Self::ContentPolicy,
        Self::Unsupported,
        Self::Timeout(TimeoutClock::Connect),
        Self::Timeout(TimeoutClock::FirstToken),
        Self::Timeout(TimeoutClock::Idle),
        Self::Timeout(TimeoutClock::Response),
        Self::Timeout(TimeoutClock::Total),
        Self::CircuitOpen,
        Self::QueueFull,
        Self::LimitedLocally,
        Self::OverBudget,
        Self::Unsent,
        Self::AllTargetsFailed,
        Self::Internal,
    ];

    /// Whether a call that failed so never left: nothing was sent for it, nothing is billed for it,
    /// and it uses up no attempt.
    pub const fn is_unsent(self) -> bool {
        matches!(
            self,
            Self::CircuitOpen
                | Self::QueueFull
                | Self::LimitedLocally
                | Self::OverBudget
                | Self::Unsent
        )
    }

    /// The word for it in logs, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect_error",
            Self::Transport => "transport_error",
            Self::StreamBroken => "stream_broken",
            Self::Incomplete => "incomplete_response",
            Self::InvalidResponse => "invalid_response",
            Self::RateLimited => "rate_limit_exceeded",
            Self::QuotaExhausted => "insufficient_quota",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Unavailable => "unavailable",
            Self::Authentication => "invalid_api_key",
            Self::PermissionDenied => "permission_denied",
            Self::ModelNotFound => "model_not_found",
            Self::InvalidRequest => "invalid_request",
            Self::RequestTooLarge => "request_too_large",
            Self::ContextLength => "context_length_exceeded",
            Self::ContentPolicy => "content_policy_violation",
            Self::Unsupported => "unsupported",
            Self::Timeout(TimeoutClock::Connect) => "connect_timeout",
            Self::Timeout(TimeoutClock::FirstToken) => "first_token_timeout",
            Self::Timeout(TimeoutClock::Idle) => "idle_timeout",
            Self::Timeout(TimeoutClock::Response) => "response_timeout",
            Self::Timeout(TimeoutClock::Total) => "deadline_exceeded",
            Self::CircuitOpen => "circuit_open",
            Self::QueueFull => "queue_full",
            Self::LimitedLocally => "limited",
            Self::OverBudget => "over_budget",
            Self::Unsent => "unsent",
            Self::AllTargetsFailed => "all_targets_failed",
            Self::Internal => "internal_error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The clocks of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimeoutClock {
    /// Until the connection stood.
    Connect,
    /// From the attempt's beginning to its commit point, on a stream.
    FirstToken,
    /// Between two chunks that carry something, on a stream.
    Idle,
    /// The whole answer, where it comes whole.
    Response,
    /// The whole call, its deadline.
    Total,
}

/// Whom an error concerns, and so how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Whoever made the call: no attempt and no target changes it. Final.
    Caller,
    /// The target: another one may serve.
    Target,
    /// This attempt: the next one may succeed, here or elsewhere.
    Attempt,
}
