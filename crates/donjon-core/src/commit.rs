//! Resolving a call at its commit point.
//!
//! A service that resolves when the headers of a stream arrive has told its caller nothing yet; a
//! failure before the first token would have to be told in-band, and every layer above would need a
//! second code path for it. [`CommitLayer`] moves the moment: the future resolves at the *commit
//! point*, whichever is first of
//!
//! * the complete answer, where it comes whole;
//! * the first chunk that shows anything: text, a refusal, a tool call, audio, an image, or a kind
//!   that is not known here. A role, an empty text, bare usage do not; reasoning does, unless
//!   configured otherwise;
//! * the finish reason, since an answer may legally be empty;
//! * 64 events or 256 KiB, so that what is held back stays bounded.
//!
//! Until then every failure is an `Err`. An answer that a filter withheld, with nothing shown, is
//! `Err` of [`ErrorKind::ContentPolicy`](crate::ErrorKind::ContentPolicy).
//!
//! It stands innermost, right around the provider. What is held back is replayed in front of the
//! rest; pings are dropped.

mod future;

use std::task::{self, Poll};

use tower_layer::Layer;
use tower_service::Service;

pub use future::CommitFuture;

use crate::{
    error::LlmError,
    vocab::{LlmRequest, LlmResponse},
};

/// The most events that are held back.
const MAX_EVENTS: usize = 64;
/// The most bytes of text that are held back.
const MAX_BYTES: usize = 256 * 1024;

/// Makes a service resolve at its commit point; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct CommitLayer {
    reasoning: bool,
}

impl CommitLayer {
    /// Commits at whatever is shown first, reasoning included.
    pub const fn new() -> Self {
        Self { reasoning: true }
    }

    /// Whether reasoning commits; default true. Say false where it is hidden from the caller: then
    /// it is held back, within the bound, until the answer proper begins.
    #[must_use]
    pub const fn reasoning_commits(mut self, commits: bool) -> Self {
        self.reasoning = commits;
        self
    }
}

impl Default for CommitLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CommitLayer {
    type Service = Commit<S>;

    fn layer(&self, inner: S) -> Commit<S> {
        Commit {
            inner,
            reasoning: self.reasoning,
        }
    }
}

/// A service that resolves at its commit point; see the [module](self).
#[derive(Clone, Debug)]
pub struct Commit<S> {
    inner: S,
    reasoning: bool,
}

impl<S> Service<LlmRequest> for Commit<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = CommitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        let attempt = request.call.dispatch().clone();
        let until = request.call.until();
        CommitFuture::new(self.inner.call(request), attempt, until, self.reasoning)
    }
}
