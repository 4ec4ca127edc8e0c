//! The figures of a provider.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use donjon_core::{Figure, Name, Snapshot};

/// What a provider and its clones have done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderStats {
    /// Calls made, the refused ones included.
    pub calls: u64,
    /// Streams that were begun.
    pub streams: u64,
    /// Events of streams that made no sense and were skipped.
    pub malformed_events: u64,
}

/// A handle on the figures of a [`Provider`](super::Provider); cheap to clone.
#[derive(Clone, Debug)]
pub struct ProviderHandle {
    counters: Arc<Counters>,
}

/// Relaxed: they order nothing.
#[derive(Debug)]
pub(super) struct Counters {
    provider: Name,
    calls: AtomicU64,
    streams: AtomicU64,
    malformed_events: AtomicU64,
}

impl Counters {
    pub(super) fn new(provider: Name) -> Self {
        Self {
            provider,
            calls: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            malformed_events: AtomicU64::new(0),
        }
    }

    pub(super) fn call(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(super) fn stream(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    pub(super) fn malformed_event(&self) {
        self.malformed_events.fetch_add(1, Relaxed);
    }
}

impl ProviderHandle {
    /// The figures now.
    pub fn stats(&self) -> ProviderStats {
        ProviderStats {
            calls: self.counters.calls.load(Relaxed),
            streams: self.counters.streams.load(Relaxed),
            malformed_events: self.counters.malformed_events.load(Relaxed),
        }
    }
}

impl From<Arc<Counters>> for ProviderHandle {
    fn from(counters: Arc<Counters>) -> Self {
        Self { counters }
    }
}

impl Snapshot for ProviderHandle {
    fn layer(&self) -> &'static str {
        "provider"
    }

    fn figures(&self) -> Vec<Figure> {
        let stats = self.stats();
        [
            ("calls_total", stats.calls),
            ("streams_total", stats.streams),
            ("malformed_events_total", stats.malformed_events),
        ]
        .into_iter()
        .map(|(name, value)| {
            Figure::counter(name, value).label("provider", self.counters.provider.to_string())
        })
        .collect()
    }
}
