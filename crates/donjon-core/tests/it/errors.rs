//! Errors keep their cause, whatever they pass through.

use std::{error::Error, fmt, io, time::Duration};

use donjon_core::{BoxError, ErrorKind, FailedAttempt, LlmError};

#[derive(Debug)]
struct Wrapper(BoxError);

impl fmt::Display for Wrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl Error for Wrapper {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    chain
}

#[test]
fn it_is_one_word_wide() {
    assert_eq!(size_of::<LlmError>(), size_of::<usize>());
    assert_eq!(size_of::<Result<(), LlmError>>(), size_of::<usize>());
}

#[test]
fn it_is_found_inside_boxed_errors() {
    let own = LlmError::new(ErrorKind::RateLimited, "slow down")
        .with_retry_after(Duration::from_secs(2))
        .with_source(io::Error::other("root"));
    let boxed: BoxError = Box::new(own.clone());
    assert_eq!(LlmError::from(boxed).kind(), ErrorKind::RateLimited);

    let wrapped: BoxError = Box::new(Wrapper(Box::new(Wrapper(Box::new(own)))));
    let found = LlmError::from(wrapped);
    assert_eq!(found.kind(), ErrorKind::RateLimited);
    assert_eq!(found.retry_after(), Some(Duration::from_secs(2)));
    let slow = "rate_limit_exceeded: slow down";
    assert_eq!(chain(&found), [slow, "wrapped", "wrapped", slow, "root"]);
}

#[test]
fn an_error_without_a_kind_is_internal_and_keeps_its_chain() {
    let error = LlmError::from(Box::new(Wrapper(Box::new(io::Error::other("root")))) as BoxError);
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(
        chain(&error),
        ["internal_error: wrapped", "wrapped", "root"]
    );
}

#[test]
fn all_targets_failed_answers_with_what_they_agree_on() {
    let failed = |kinds: &[ErrorKind]| {
        let attempts = kinds
            .iter()
            .map(|kind| FailedAttempt::new("t", LlmError::new(*kind, "")));
        LlmError::new(ErrorKind::AllTargetsFailed, "").with_attempts(attempts.collect())
    };
    use ErrorKind::{ContextLength, RateLimited};
    assert_eq!(failed(&[RateLimited, RateLimited]).http_status(), 429);
    assert_eq!(failed(&[RateLimited, ContextLength]).http_status(), 503);
    // A deadline that passed is one, whatever failed before.
    let late = LlmError::new(ErrorKind::Timeout(donjon_core::TimeoutClock::Total), "")
        .with_attempts(failed(&[RateLimited]).attempts().to_vec());
    assert_eq!(late.http_status(), 504);
    let error = failed(&[ContextLength]);
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("context_length_exceeded")
    );
}

#[test]
fn a_field_is_named() {
    let error = LlmError::invalid_field("messages[0].role", "is missing");
    assert_eq!(error.field(), Some("messages[0].role"));
    assert_eq!(
        error.to_string(),
        "invalid_request: `messages[0].role`: is missing"
    );
}
