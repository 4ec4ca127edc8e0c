//! What is counted in a pool of clients.

use donjon_core::{Figure, Snapshot};

use super::ClientPoolHandle;
use crate::figures::Count;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) made: Count,
    pub(super) failed: Count,
    pub(super) reaped: Count,
    pub(super) aged: Count,
    pub(super) unhealthy: Count,
    pub(super) discarded: Count,
}

impl Counters {
    /// How many clients there are.
    pub(super) fn living(&self) -> u64 {
        let dropped = [&self.reaped, &self.aged, &self.unhealthy, &self.discarded];
        let dropped: u64 = dropped.into_iter().map(Count::get).sum();
        self.made.get().saturating_sub(dropped)
    }

    pub(super) fn read(&self, total: usize, idle: usize, waiting: usize) -> ClientStats {
        ClientStats {
            total,
            idle,
            in_use: total - idle,
            waiting,
            made: self.made.get(),
            failed: self.failed.get(),
            reaped: self.reaped.get(),
            aged: self.aged.get(),
            unhealthy: self.unhealthy.get(),
            discarded: self.discarded.get(),
        }
    }
}

/// The figures of a pool of clients at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// How many clients there are, those included that are being made.
    pub total: usize,
    /// How many of them are idle.
    pub idle: usize,
    /// How many are checked out, or being made.
    pub in_use: usize,
    /// How many wait for one.
    pub waiting: usize,
    /// How many were made so far.
    pub made: u64,
    /// How often one could not be made.
    pub failed: u64,
    /// How many were dropped because they had been idle for too long.
    pub reaped: u64,
    /// How many because they were too old.
    pub aged: u64,
    /// How many because they failed the check.
    pub unhealthy: u64,
    /// How many because whoever used them said that they were broken.
    pub discarded: u64,
}

impl<S: Send + 'static> Snapshot for ClientPoolHandle<S> {
    fn layer(&self) -> &'static str {
        "client_pool"
    }

    fn figures(&self) -> Vec<Figure> {
        let stats = self.stats();
        let dropped = [
            ("idle", stats.reaped),
            ("age", stats.aged),
            ("check", stats.unhealthy),
            ("broken", stats.discarded),
        ];
        let mut figures = vec![
            gauge("total", stats.total),
            gauge("idle", stats.idle),
            gauge("in_use", stats.in_use),
            gauge("waiting", stats.waiting),
            Figure::counter("made", stats.made),
            Figure::counter("failed", stats.failed),
        ];
        for (reason, count) in dropped {
            figures.push(Figure::counter("dropped", count).label("reason", reason));
        }
        figures
    }
}

fn gauge(name: &'static str, value: usize) -> Figure {
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    Figure::gauge(name, value as f64)
}
