//! The place of a call in the book.

use std::sync::Arc;

use donjon_core::{AttemptRef, Chunk};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Shared, record::CallEnd};

/// A call in progress: holds its permit and its place in the book until it ends. Dropped before an
/// end was told, it is the caller who left.
pub(super) struct Ticket {
    pub(super) number: usize,
    pub(super) attempt: AttemptRef,
    shared: Arc<Shared>,
    permit: Option<OwnedSemaphorePermit>,
    in_stream: bool,
    chunks: usize,
    choices: u32,
    finished: Vec<u32>,
    ended: bool,
}

impl Ticket {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: usize,
        attempt: AttemptRef,
        permit: Option<OwnedSemaphorePermit>,
        choices: u32,
    ) -> Self {
        Self {
            number,
            attempt,
            shared,
            permit,
            in_stream: false,
            chunks: 0,
            choices,
            finished: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn polled(&self) {
        self.shared.record().calls[self.number].polls += 1;
    }

    /// The head of a stream is given, a whole answer, or an error before it.
    pub(super) fn head(&self) {
        self.shared.record().calls[self.number].head_at = Some(Instant::now());
    }

    /// The rest is a stream.
    pub(super) fn streams(&mut self) {
        self.in_stream = true;
    }

    pub(super) fn chunk(&mut self, chunk: &Chunk) {
        self.chunks += 1;
        self.shared.record().calls[self.number].chunks = self.chunks;
        for choice in &chunk.choices {
            if choice.finish_reason.is_some() && !self.finished.contains(&choice.index) {
                self.finished.push(choice.index);
            }
        }
    }

    /// Whether each choice had its finish reason.
    pub(super) fn is_complete(&self) -> bool {
        self.finished.len() >= self.choices as usize
    }

    pub(super) fn end(&mut self, end: CallEnd) {
        if !std::mem::replace(&mut self.ended, true) {
            self.shared.record().close(self.number, end);
            self.permit = None;
        }
    }

    pub(super) fn panic(&mut self, message: &str) -> ! {
        self.end(CallEnd::Panicked);
        panic!("{message}")
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let end = if self.in_stream && self.is_complete() {
            CallEnd::Answered
        } else if self.in_stream {
            CallEnd::CancelledMidStream {
                chunks: self.chunks,
            }
        } else {
            CallEnd::CancelledBeforeHead
        };
        self.end(end);
    }
}
