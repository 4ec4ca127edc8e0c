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

use super::{Record, Store, StoreError, journal::Ink, records, sums::Sums};
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
    /// Of the journal.
    pub(crate) damaged: AtomicU64,
}

impl Kept {
    /// Keeping what is spent has failed; says whether it had not before.
    pub(crate) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Relaxed);
        !self.failing.swap(true, Relaxed)
    }
}

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// A store that was read, with what its journal had for it.
pub(crate) struct Opened {
    store: Box<dyn Store>,
    records: Vec<Record>,
    /// The sums of a journal that is in use.
    sums: Option<Sums>,
    pub(crate) ink: Option<Ink>,
    damaged: u64,
}

impl Opened {
    /// Reads `store`. What its journal has for it is added up once, whether it is to be `journaled` from now on
    /// or not.
    pub(crate) fn read(mut store: Box<dyn Store>, journaled: bool) -> Result<Self, StoreError> {
        let records = store.load()?;
        let Some(journal) = store.journal() else {
            return Ok(Self {
                store,
                records,
                sums: None,
                ink: None,
                damaged: 0,
            });
        };
        let mut sums = Sums::of(&records);
        let closed = journal.close(sums.generation)?;
        sums.fold(&closed);
        sums.mend();
        let changed = sums.changed();
        if !changed.is_empty() {
            store.save(&changed)?;
            sums.saved();
        }
        journal.forget(sums.generation)?;
        Ok(Self {
            store,
            records: sums.all(),
            sums: journaled.then_some(sums),
            ink: journaled.then(|| Ink::new(journal)),
            damaged: closed.damaged_bytes,
        })
    }
}

/// Runs the thread as long as it lives, and has it keep everything when it goes.
pub(crate) struct Keeper {
    flushes: Option<Sender<Reply>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Puts back what the store has, and starts to keep what is spent.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        opened: Opened,
        every: Duration,
    ) -> Result<Self, StoreError> {
        let Opened {
            mut store,
            records,
            mut sums,
            damaged,
            ..
        } = opened;
        shared.kept.damaged.store(damaged, Relaxed);
        let past = records::restore(shared, records);
        if !past.is_empty() {
            store.forget(&past)?;
        }
        if let Some(sums) = &mut sums {
            sums.forget(|id, period| records::is_past(shared, id, period));
        }
        let (flushes, asked) = channel();
        let mut keeping = Keeping {
            shared: shared.clone(),
            store,
            sums,
            forgotten_at: shared.clock.nanos(),
        };
        let thread = Builder::new()
            .name("donjon-budget".into())
            .spawn(move || keeping.run(every, &asked))
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

/// What the thread has.
struct Keeping {
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    /// As the store has them; without a journal nobody needs them.
    sums: Option<Sums>,
    /// When it was looked last for what is past.
    forgotten_at: u64,
}

/// An hour.
const FORGET: u64 = 3_600_000_000_000;

impl Keeping {
    /// Keeps what changed every so often, when somebody asks, and at the end.
    fn run(&mut self, every: Duration, asked: &Receiver<Reply>) {
        loop {
            let (first, ends) = match asked.recv_timeout(every) {
                Ok(reply) => (Some(reply), false),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            // Whoever asked by now is served by one write.
            let replies: Vec<_> = first.into_iter().chain(asked.try_iter()).collect();
            let result = self.flush();
            for reply in replies {
                let _ = reply.send(result.clone());
            }
            if ends {
                return;
            }
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Self { shared, store, .. } = self;
        let written = match (&mut self.sums, &shared.ink) {
            (Some(sums), Some(ink)) => fold(shared, &mut **store, ink, sums),
            _ => write(shared, &mut **store),
        };
        let kept = &shared.kept;
        match written {
            Ok(any) => {
                kept.flushes.fetch_add(u64::from(any), Relaxed);
                kept.failing.store(false, Relaxed);
                self.forget()
            }
            Err(error) => {
                kept.flushes.fetch_add(1, Relaxed);
                kept.failed();
                let told = error.clone();
                shared
                    .events
                    .tell(|| BudgetEvent::StoreFailed { error: told });
                Err(error)
            }
        }
    }

    /// Forgets now and then what is past.
    fn forget(&mut self) -> Result<(), StoreError> {
        let Some(sums) = &mut self.sums else {
            return Ok(());
        };
        let now = self.shared.clock.nanos();
        if now.saturating_sub(self.forgotten_at) < FORGET {
            return Ok(());
        }
        self.forgotten_at = now;
        let past = sums.forget(|id, period| records::is_past(&self.shared, id, period));
        match past.is_empty() {
            true => Ok(()),
            false => self.store.forget(&past),
        }
    }
}

/// Saves the sums that changed; says whether any had.
fn write(shared: &Shared, store: &mut dyn Store) -> Result<bool, StoreError> {
    let changed = records::changed(shared);
    if changed.is_empty() {
        return Ok(false);
    }
    store
        .save(&changed)
        .inspect_err(|_| records::mark_all(shared))?;
    Ok(true)
}

/// Adds up what the journal says, and saves the sums that changed with it; says whether any had.
///
/// Killed between any two steps, the store has the sums and the number of the generation that they
/// have, or neither: what is above that number is read again, and nothing else.
fn fold(
    shared: &Shared,
    store: &mut dyn Store,
    ink: &Ink,
    sums: &mut Sums,
) -> Result<bool, StoreError> {
    let closed = ink.journal.close(sums.generation);
    // Asked for after the journal was closed: what stands there may take off what was missed before.
    sums.add(&ink.missed());
    if let Ok(closed) = &closed {
        sums.fold(closed);
        let damaged = &shared.kept.damaged;
        damaged.fetch_add(closed.damaged_bytes, Relaxed);
    }
    let changed = sums.changed();
    if !changed.is_empty() {
        store.save(&changed)?;
        sums.saved();
        ink.journal.forget(sums.generation)?;
    }
    closed.map(|_| !changed.is_empty())
}
