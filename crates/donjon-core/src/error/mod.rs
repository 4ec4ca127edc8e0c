//! What went wrong, for whom, and what to do about it.

mod disposition;
mod kind;

use std::{borrow::Cow, convert::Infallible, error::Error, fmt, sync::Arc, time::Duration};

pub use disposition::{Classify, DefaultTable, Disposition, Health};
pub use kind::{ErrorKind, Scope, TimeoutClock};

use crate::{hints::Hints, name::Name};

/// An error of any service or layer.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The error of a call to a language model: one word wide, cheap to clone.
///
/// What to do about it is decided by its [`kind`](Self::kind) through the table of
/// [`Disposition`], never by its status or its text.
#[derive(Clone)]
pub struct LlmError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    scope: Scope,
    message: Cow<'static, str>,
    provider: Option<Name>,
    target: Option<Name>,
    status: Option<u16>,
    code: Option<Box<str>>,
    field: Option<Box<str>>,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
    hints: Option<Arc<Hints>>,
    attempts: Vec<FailedAttempt>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Why one target of a call failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The target's name.
    pub target: Name,
    /// What its last attempt ended with.
    pub error: LlmError,
}

impl FailedAttempt {
    /// `target` failed with `error`.
    pub fn new(target: impl Into<Name>, error: LlmError) -> Self {
        Self {
            target: target.into(),
            error,
        }
    }
}

impl LlmError {
    /// An error of `kind` that says `message`; its scope is the kind's own.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            scope: kind.disposition().scope,
            message: message.into(),
            provider: None,
            target: None,
            status: None,
            code: None,
            field: None,
            retry_after: None,
            should_retry: None,
            hints: None,
            attempts: Vec::new(),
            source: None,
        }))
    }

    /// The refusal of a request whose `field` (a path such as `messages[0].role`) is wrong.
    pub fn invalid_field(field: &str, reason: &str) -> Self {
        let mut error = Self::new(ErrorKind::InvalidRequest, format!("`{field}`: {reason}"));
        error.edit().field = Some(field.into());
        error
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whom it concerns.
    pub fn scope(&self) -> Scope {
        self.0.scope
    }

    /// What was said about it.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The provider that said it.
    pub fn provider(&self) -> Option<Name> {
        self.0.provider
    }

    /// The target that it came from.
    pub fn target(&self) -> Option<Name> {
        self.0.target
    }

    /// The HTTP status that the provider answered with.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The provider's own code for it.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The field of the request that it is about.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// How long to wait before the next attempt, as the server or the refusing layer says.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What the server said of retrying (`x-should-retry`).
    pub fn should_retry(&self) -> Option<bool> {
        self.0.should_retry
    }

    /// What the server said of its limits.
    pub fn hints(&self) -> Option<&Arc<Hints>> {
        self.0.hints.as_ref()
    }

    /// Why each target failed, on [`ErrorKind::AllTargetsFailed`].
    pub fn attempts(&self) -> &[FailedAttempt] {
        &self.0.attempts
    }

    /// What to do about it by the default table, with what the error itself says taken into
    /// account: one that concerns the caller is final, `x-should-retry` overrides the table.
    pub fn disposition(&self) -> Disposition {
        DefaultTable.classify(self)
    }

    /// The HTTP status to answer with. When all targets failed alike it is theirs.
    pub fn http_status(&self) -> u16 {
        let own = self.disposition().status;
        if self.kind() != ErrorKind::AllTargetsFailed {
            return own;
        }
        let mut of_attempts = self.attempts().iter().map(|a| a.error.http_status());
        match of_attempts.next() {
            Some(first) if of_attempts.all(|status| status == first) => first,
            _ => own,
        }
    }

    /// Sets whom it concerns.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.edit().scope = scope;
        self
    }

    /// Sets the provider that said it.
    #[must_use]
    pub fn with_provider(mut self, provider: impl Into<Name>) -> Self {
        self.edit().provider = Some(provider.into());
        self
    }

    /// Sets the target that it came from.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<Name>) -> Self {
        self.edit().target = Some(target.into());
        self
    }

    /// Sets the HTTP status that the provider answered with.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.edit().status = Some(status);
        self
    }

    /// Sets the provider's own code for it.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Box<str>>) -> Self {
        self.edit().code = Some(code.into());
        self
    }

    /// Sets the field of the request that it is about.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<Box<str>>) -> Self {
        self.edit().field = Some(field.into());
        self
    }

    /// Sets how long to wait before the next attempt.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.edit().retry_after = Some(after);
        self
    }

    /// Sets what the server said of retrying.
    #[must_use]
    pub fn with_should_retry(mut self, should: bool) -> Self {
        self.edit().should_retry = Some(should);
        self
    }

    /// Sets what the server said of its limits.
    #[must_use]
    pub fn with_hints(mut self, hints: impl Into<Arc<Hints>>) -> Self {
        self.edit().hints = Some(hints.into());
        self
    }

    /// Sets why each target failed.
    #[must_use]
    pub fn with_attempts(mut self, attempts: Vec<FailedAttempt>) -> Self {
        self.edit().attempts = attempts;
        self
    }

    /// Sets the cause; the chain behind it stays reachable through [`Error::source`].
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.edit().source = Some(Arc::from(source.into()));
        self
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.kind)?;
        match (&self.0.target, &self.0.provider, self.0.status) {
            (Some(name), _, Some(status)) | (None, Some(name), Some(status)) => {
                write!(f, " ({name}, {status})")?;
            }
            (Some(name), _, None) | (None, Some(name), None) => write!(f, " ({name})")?,
            (None, None, Some(status)) => write!(f, " ({status})")?,
            (None, None, None) => {}
        }
        if !self.0.message.is_empty() {
            write!(f, ": {}", self.0.message)?;
        }
        for attempt in &self.0.attempts {
            write!(f, "; {}: {}", attempt.target, attempt.error)?;
        }
        Ok(())
    }
}

impl fmt::Debug for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("LlmError");
        out.field("kind", &self.0.kind)
            .field("scope", &self.0.scope)
            .field("message", &self.0.message);
        if let Some(provider) = &self.0.provider {
            out.field("provider", provider);
        }
        if let Some(target) = &self.0.target {
            out.field("target", target);
        }
        if let Some(status) = self.0.status {
            out.field("status", &status);
        }
        if let Some(code) = &self.0.code {
            out.field("code", code);
        }
        if let Some(retry_after) = self.0.retry_after {
            out.field("retry_after", &retry_after);
        }
        if !self.0.attempts.is_empty() {
            out.field("attempts", &self.0.attempts);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish_non_exhaustive()
    }
}

impl Error for LlmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            // The last target's reason stands for all of them.
            None => self
                .0
                .attempts
                .last()
                .map(|attempt| &attempt.error as &(dyn Error + 'static)),
        }
    }
}

impl From<BoxError> for LlmError {
    /// Finds the [`LlmError`] inside, so that layers which box their errors can sit anywhere in a
    /// stack; an error without one is [`ErrorKind::Internal`]. The chain is kept whole.
    fn from(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(inner) = cause {
            if let Some(own) = inner.downcast_ref::<Self>() {
                return own.clone().with_source(error);
            }
            cause = inner.source();
        }
        Self::new(ErrorKind::Internal, error.to_string()).with_source(error)
    }
}

impl From<Infallible> for LlmError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
