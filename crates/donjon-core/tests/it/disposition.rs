//! The table of dispositions, row by row.

use std::collections::HashSet;

use donjon_core::{ErrorKind, Health, LlmError, Scope, TimeoutClock as Clock};

#[test]
fn every_row() {
    use ErrorKind as K;
    use Health::{Fault, Neutral, Overload};
    use Scope::{Attempt, Caller, Target};
    let (y, n) = (true, false);
    #[rustfmt::skip]
    let rows = [
        (K::Connect,                    y, y, Fault,    502, Attempt),
        (K::Transport,                  y, y, Fault,    502, Attempt),
        (K::StreamBroken,               y, y, Fault,    502, Attempt),
        (K::Incomplete,                 y, y, Fault,    502, Attempt),
        (K::InvalidResponse,            y, y, Fault,    502, Attempt),
        (K::RateLimited,                y, y, Overload, 429, Attempt),
        (K::QuotaExhausted,             n, y, Fault,    429, Target),
        (K::Overloaded,                 y, y, Overload, 503, Attempt),
        (K::ServerError,                y, y, Fault,    502, Attempt),
        (K::Unavailable,                y, y, Fault,    503, Attempt),
        (K::Authentication,             n, y, Fault,    401, Target),
        (K::PermissionDenied,           n, y, Neutral,  403, Target),
        (K::ModelNotFound,              n, y, Neutral,  404, Target),
        (K::InvalidRequest,             n, n, Neutral,  400, Caller),
        (K::RequestTooLarge,            n, y, Neutral,  413, Target),
        (K::ContextLength,              n, y, Neutral,  400, Target),
        (K::ContentPolicy,              n, n, Neutral,  400, Caller),
        (K::Unsupported,                n, y, Neutral,  400, Target),
        (K::Timeout(Clock::Connect),    y, y, Fault,    504, Attempt),
        (K::Timeout(Clock::FirstToken), n, y, Fault,    504, Target),
        (K::Timeout(Clock::Idle),       n, y, Fault,    504, Target),
        (K::Timeout(Clock::Response),   n, y, Fault,    504, Target),
        (K::Timeout(Clock::Total),      n, n, Fault,    504, Caller),
        (K::CircuitOpen,                n, y, Neutral,  503, Target),
        (K::QueueFull,                  n, y, Neutral,  503, Target),
        (K::LimitedLocally,             n, y, Neutral,  429, Target),
        (K::OverBudget,                 n, n, Neutral,  429, Caller),
        (K::Unsent,                     n, y, Neutral,  503, Target),
        (K::AllTargetsFailed,           n, n, Neutral,  503, Caller),
        (K::Internal,                   n, n, Neutral,  500, Caller),
    ];
    let mut tested = HashSet::new();
    for (kind, retry, failover, health, status, scope) in rows {
        let row = LlmError::new(kind, "").disposition();
        let found = (row.retry, row.failover, row.health, row.status, row.scope);
        assert_eq!(found, (retry, failover, health, status, scope), "{kind}");
        assert!(tested.insert(kind), "{kind} stands twice");
    }
    assert_eq!(tested, ErrorKind::ALL.iter().copied().collect());
}

#[test]
fn no_two_kinds_share_a_word() {
    let words: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words.len(), ErrorKind::ALL.len());
}

#[test]
fn a_refusal_that_concerns_the_caller_is_final() {
    let error = LlmError::new(ErrorKind::LimitedLocally, "");
    assert!(
        error.disposition().failover,
        "the provider's limit, at the target"
    );
    let error = error.with_scope(Scope::Caller);
    let row = error.disposition();
    assert!(!row.retry && !row.failover, "the tenant's own limit");
    let error = LlmError::new(ErrorKind::OverBudget, "").with_scope(Scope::Target);
    assert!(error.disposition().failover, "the budget of one model");
}

#[test]
fn the_server_may_forbid_or_ask_for_a_retry() {
    let error = LlmError::new(ErrorKind::ServerError, "").with_should_retry(false);
    assert!(!error.disposition().retry);
    assert!(error.disposition().failover, "it speaks for itself alone");
    let error = LlmError::new(ErrorKind::PermissionDenied, "").with_should_retry(true);
    assert!(error.disposition().retry);
    let error = LlmError::new(ErrorKind::InvalidRequest, "").with_should_retry(true);
    assert!(!error.disposition().retry, "the caller's mistake stays one");
}
