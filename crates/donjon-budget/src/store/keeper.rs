//! The thread that keeps what was spent.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Store, StoreError, records};
use crate::{handle::BudgetEvent, shared::Shared};

/// What is to become of calls while what is spent cannot be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenUnkept {
    /// They pass. It is told, and kept as soon as that works again.
    #[default]
    Pass,
    /// They are refused.
    Refuse,
}

/// Counts for the figures.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) flushes: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) failing: AtomicBool,
}

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// Runs the thread as long as it lives, and has it keep everything when it goes.
pub(crate) struct Keeper {
    flushes: Option<Sender<Reply>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Puts back what `store` has, and starts to keep what is spent.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        mut store: Box<dyn Store>,
        every: Duration,
    ) -> Result<Self, StoreError> {
        let past = records::restore(shared, store.load()?);
        if !past.is_empty() {
            store.forget(&past)?;
        }
        let (flushes, asked) = channel();
        let shared = shared.clone();
        let thread = Builder::new()
            .name("donjon-budget".into())
            .spawn(move || keep(&shared, &mut *store, every, &asked))
            .map_err(|error| StoreError::new("no thread to write").with_source(error))?;
        Ok(Self {
            flushes: Some(flushes),
            thread: Some(thread),
        })
    }

    /// Asks for everything to be kept that was spent until now.
    pub(crate) fn flush(&self) -> oneshot::Receiver<Result<(), StoreError>> {
        let (reply, answer) = oneshot::channel();
        if let Some(flushes) = &self.flushes {
            // Where the thread is gone the answer is an error.
            let _ = flushes.send(reply);
        }
        answer
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.flushes = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked where this is an error, and nobody is left to be told.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

/// Keeps what changed every so often, when somebody asks, and at the end.
fn keep(shared: &Shared, store: &mut dyn Store, every: Duration, asked: &Receiver<Reply>) {
    loop {
        let (first, ends) = match asked.recv_timeout(every) {
            Ok(reply) => (Some(reply), false),
            Err(RecvTimeoutError::Timeout) => (None, false),
            Err(RecvTimeoutError::Disconnected) => (None, true),
        };
        // Whoever asked by now is served by one write.
        let replies: Vec<_> = first.into_iter().chain(asked.try_iter()).collect();
        let result = flush(shared, store);
        for reply in replies {
            let _ = reply.send(result.clone());
        }
        if ends {
            return;
        }
    }
}

fn flush(shared: &Shared, store: &mut dyn Store) -> Result<(), StoreError> {
    let kept = &shared.kept;
    let changed = records::changed(shared);
    if changed.is_empty() {
        return Ok(());
    }
    let result = store.save(&changed);
    kept.flushes.fetch_add(1, Relaxed);
    kept.failing.store(result.is_err(), Relaxed);
    if let Err(error) = &result {
        kept.failures.fetch_add(1, Relaxed);
        records::mark_all(shared);
        shared.events.tell(|| BudgetEvent::StoreFailed {
            error: error.clone(),
        });
    }
    result
}
