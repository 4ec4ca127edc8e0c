//! What a scripted model saw.

use donjon_core::{ErrorKind, LlmRequest};
use tokio::time::Instant;

/// One call that a [`ScriptedLlm`](super::ScriptedLlm) got, as far as it has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SeenCall {
    /// The request.
    pub request: LlmRequest,
    /// When `call` was called.
    pub at: Instant,
    /// When the head of a stream, a whole answer or an error before it was given.
    pub head_at: Option<Instant>,
    /// When it ended.
    pub ended_at: Option<Instant>,
    /// How it ended; `None` while it is in progress.
    pub end: Option<CallEnd>,
    /// How often its future and its stream were polled.
    pub polls: u64,
    /// How many chunks were given, of any kind.
    pub chunks: usize,
}

/// How a call ended, as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallEnd {
    /// Everything was given. A stream that is dropped once each choice had its finish reason was
    /// given whole.
    Answered,
    /// By this error, before the head or in the stream. A stream that was cut has failed as
    /// [`ErrorKind::Incomplete`].
    Failed(ErrorKind),
    /// It was dropped before the head of a stream, or before a whole answer.
    CancelledBeforeHead,
    /// It was dropped in the stream.
    CancelledMidStream {
        /// After so many chunks, of any kind.
        chunks: usize,
    },
    /// By a panic.
    Panicked,
}

impl CallEnd {
    /// Whether it was dropped before its end.
    pub fn is_cancelled(self) -> bool {
        matches!(
            self,
            Self::CancelledBeforeHead | Self::CancelledMidStream { .. }
        )
    }
}

/// The book that all clones of a model write in.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) calls: Vec<SeenCall>,
    pub(super) in_progress: usize,
    pub(super) peak: usize,
    pub(super) ready_polls: u64,
    pub(super) violations: usize,
}

impl Record {
    /// Opens the entry of a call and says its number.
    pub(super) fn open(&mut self, request: LlmRequest) -> usize {
        self.calls.push(SeenCall {
            request,
            at: Instant::now(),
            head_at: None,
            ended_at: None,
            end: None,
            polls: 0,
            chunks: 0,
        });
        self.in_progress += 1;
        self.peak = self.peak.max(self.in_progress);
        self.calls.len() - 1
    }

    pub(super) fn close(&mut self, number: usize, end: CallEnd) {
        self.in_progress -= 1;
        let call = &mut self.calls[number];
        call.end = Some(end);
        call.ended_at = Some(Instant::now());
    }
}
