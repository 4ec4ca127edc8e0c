//! Integration tests of the vocabulary.

mod commit;
mod disposition;
mod driver;
mod end;
mod errors;
mod ledger;
mod shapes;
mod wire;

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use donjon_core::{Chunk, DropReason, End, ErrorKind, Head, LlmError, Observer, Outcome};
use futures_core::Stream;

/// What an observer heard.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Committed,
    Chunk(String),
    Success,
    Failure(ErrorKind),
    Cancelled(DropReason, Duration),
}

/// Writes down what it hears, under its name.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(&'static str, Heard)>>>);

impl Log {
    fn observer(&self, name: &'static str) -> impl Observer + use<> {
        Named(name, self.clone())
    }

    fn heard(&self) -> Vec<Heard> {
        self.entries().into_iter().map(|(_, heard)| heard).collect()
    }

    fn entries(&self) -> Vec<(&'static str, Heard)> {
        self.0.lock().expect("no test panics here").clone()
    }

    fn ends(&self) -> usize {
        let is_end = |h: &Heard| !matches!(h, Heard::Committed | Heard::Chunk(_));
        self.heard().iter().filter(|h| is_end(h)).count()
    }
}

struct Named(&'static str, Log);

impl Named {
    fn write(&self, heard: Heard) {
        let mut entries = self.1.0.lock().expect("no test panics here");
        entries.push((self.0, heard));
    }
}

impl Observer for Named {
    fn committed(&mut self, _: &Head) {
        self.write(Heard::Committed);
    }

    fn chunk(&mut self, chunk: &Chunk) {
        self.write(Heard::Chunk(chunk.delta_text()));
    }

    fn end(&mut self, end: &End<'_>) {
        self.write(match end.outcome {
            Outcome::Success => Heard::Success,
            Outcome::Failure(error) => Heard::Failure(error.kind()),
            Outcome::Cancelled { why, elapsed } => Heard::Cancelled(why, elapsed),
        });
    }
}

trait DeltaText {
    fn delta_text(&self) -> String;
}

impl DeltaText for Chunk {
    fn delta_text(&self) -> String {
        // The inherent `text` makes a chunk; the one of the delta reads it.
        std::ops::Deref::deref(self)
            .text()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A stream of these items; where there is none it is pending until it is polled again.
struct Items(Vec<Option<Result<Chunk, LlmError>>>);

impl Stream for Items {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        match self.0.remove(0) {
            Some(item) => Poll::Ready(Some(item)),
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
