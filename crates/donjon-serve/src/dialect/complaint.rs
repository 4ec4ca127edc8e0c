//! What a caller is told of an error, whatever words it is told in.

use std::{borrow::Cow, time::Duration};

use donjon_core::{FailedAttempt, LlmError};
use donjon_providers::openai::public_message;

/// An error as it is told to the caller.
#[derive(Debug)]
pub(crate) struct Complaint<'a> {
    error: &'a LlmError,
    told: Cow<'a, LlmError>,
}

impl<'a> Complaint<'a> {
    pub(crate) fn of(error: &'a LlmError) -> Self {
        Self {
            error,
            told: told(error),
        }
    }

    /// What the caller is told: where several targets failed, why each of them did, and as an error
    /// of their kind if they failed alike.
    pub(crate) fn told(&self) -> &LlmError {
        &self.told
    }

    /// How long the caller must wait at least: what was said of it, or the least that any target
    /// said.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.error.retry_after().or_else(|| {
            let attempts = self.error.attempts().iter();
            attempts.filter_map(|a| a.error.retry_after()).min()
        })
    }
}

fn told(error: &LlmError) -> Cow<'_, LlmError> {
    if error.attempts().is_empty() {
        return Cow::Borrowed(error);
    }
    let reason = reason(error);
    let mut message = public_message(error).to_owned();
    for attempt in error.attempts() {
        message.push_str("; ");
        message.push_str(&attempt.target);
        message.push_str(": ");
        message.push_str(public_message(&attempt.error));
    }
    let mut told = LlmError::new(reason.kind(), message).with_attempts(error.attempts().to_vec());
    if let Some(provider) = reason.provider() {
        told = told.with_provider(provider);
    }
    if let Some(code) = reason.code() {
        told = told.with_code(code);
    }
    if let Some(field) = reason.field() {
        told = told.with_field(field);
    }
    Cow::Owned(told)
}

/// The error that stands for all where every target failed alike.
fn reason(error: &LlmError) -> &LlmError {
    let attempts = error.attempts();
    let alike = |pair: &[FailedAttempt]| pair[0].error.kind() == pair[1].error.kind();
    match attempts.last() {
        Some(last) if attempts.windows(2).all(alike) => reason(&last.error),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::ErrorKind;

    use super::*;

    fn failed(errors: impl IntoIterator<Item = LlmError>) -> LlmError {
        let attempts = errors
            .into_iter()
            .zip(["a", "b", "c"])
            .map(|(error, target)| FailedAttempt::new(target, error));
        LlmError::new(ErrorKind::AllTargetsFailed, "every target failed")
            .with_attempts(attempts.collect())
    }

    #[test]
    fn targets_that_failed_alike_speak_for_all() {
        let quota = LlmError::new(ErrorKind::QuotaExhausted, "no money");
        let error = failed([quota.clone(), quota.clone()]);
        let complaint = Complaint::of(&error);
        let told = complaint.told();
        assert_eq!(told.http_status(), 429);
        assert_eq!(told.kind(), ErrorKind::QuotaExhausted);
        assert_eq!(
            told.message(),
            "every target failed; a: no money; b: no money"
        );
        let error = failed([quota, LlmError::new(ErrorKind::ServerError, "")]);
        let complaint = Complaint::of(&error);
        let told = complaint.told();
        assert_eq!(told.http_status(), 503);
        assert_eq!(told.kind(), ErrorKind::AllTargetsFailed);
        assert_eq!(
            told.message(),
            "every target failed; a: no money; b: server_error"
        );
    }

    #[test]
    fn the_earliest_hint_counts() {
        let limited = |secs| {
            let error = LlmError::new(ErrorKind::RateLimited, "");
            error.with_retry_after(Duration::from_secs(secs))
        };
        let error = failed([limited(9), limited(4)]);
        assert_eq!(
            Complaint::of(&error).retry_after(),
            Some(Duration::from_secs(4))
        );
        let error = error.with_retry_after(Duration::from_secs(1));
        assert_eq!(
            Complaint::of(&error).retry_after(),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn a_key_is_not_quoted() {
        let error = LlmError::new(ErrorKind::Authentication, "wrong key sk-1234").with_status(401);
        let error = failed([error]);
        let complaint = Complaint::of(&error);
        assert_eq!(complaint.told().http_status(), 401);
        assert!(!complaint.told().message().contains("sk-"));
        // One that was told in a stream has no status.
        for kind in [ErrorKind::Authentication, ErrorKind::PermissionDenied] {
            let error = failed([LlmError::new(kind, "wrong key sk-1234").with_provider("p")]);
            assert!(!Complaint::of(&error).told().message().contains("sk-"));
        }
    }
}
