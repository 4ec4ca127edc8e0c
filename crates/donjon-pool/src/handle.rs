//! What a pool shows of itself.

use std::{fmt, sync::Arc};

use donjon_core::{Events, Figure, Key, Snapshot};

use crate::{
    error::ConfigError,
    figures::{PoolStats, RejectReason},
    rooms::Rooms,
    slots::MAX_SIZE,
};

/// Reads and controls the pools that all clones and services of one [`PoolLayer`] share.
///
/// [`PoolLayer`]: crate::PoolLayer
#[derive(Clone)]
pub struct PoolHandle {
    rooms: Arc<Rooms>,
}

/// What a pool tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// A pool has another size.
    Resized {
        /// Which pool.
        key: Key,
        /// How many slots it had.
        from: u32,
        /// How many it has.
        to: u32,
        /// Whether somebody set it, and not an adaptive limit.
        by_hand: bool,
    },
    /// A call was refused.
    Rejected {
        /// By which pool.
        key: Key,
        /// Why.
        reason: RejectReason,
    },
    /// A temporary slot was taken.
    Temporary {
        /// Of which pool.
        key: Key,
        /// How many are in use beyond the size, with it.
        beyond: u32,
    },
}

/// Beyond so many pools only the sum of their figures is shown.
const SHOWN: usize = 64;

impl PoolHandle {
    pub(crate) fn new(rooms: Arc<Rooms>) -> Self {
        Self { rooms }
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<PoolEvent> {
        &self.rooms.common().events
    }

    /// The figures of all pools together.
    pub fn stats(&self) -> PoolStats {
        let mut all = PoolStats::default();
        self.rooms.for_each(|_, room| all.add(&room.stats()));
        let (refused, _) = self.rooms.refused_and_evicted();
        all.add_rejected(RejectReason::Keys, refused);
        all
    }

    /// The figures of the pool of `key`, if there is one.
    pub fn stats_of(&self, key: &Key) -> Option<PoolStats> {
        self.rooms.get(key).map(|room| room.stats())
    }

    /// Every pool with its figures, in no particular order.
    pub fn each(&self) -> Vec<(Key, PoolStats)> {
        let mut all = Vec::new();
        self.rooms
            .for_each(|key, room| all.push((key.clone(), room.stats())));
        all
    }

    /// Sets the size of every pool that has none of its own (from a profile, from `size_for`, by
    /// [`resize_key`](Self::resize_key)), also of those to come. An adaptive limit goes on from there,
    /// within its bounds.
    ///
    /// What is in use stays in use; what is gained goes to those who wait.
    ///
    /// # Errors
    ///
    /// A size of zero, or above a billion.
    pub fn resize(&self, size: u32) -> Result<(), ConfigError> {
        check(size)?;
        self.rooms.resize(size);
        Ok(())
    }

    /// Sets the size of the pool of `key`, which is not forgotten from then on. False if it is new and
    /// there may be no other pool.
    ///
    /// # Errors
    ///
    /// A size of zero, or above a billion.
    pub fn resize_key(&self, key: &Key, size: u32) -> Result<bool, ConfigError> {
        check(size)?;
        Ok(self.rooms.resize_key(key, size))
    }
}

fn check(size: u32) -> Result<(), ConfigError> {
    if size == 0 || size > MAX_SIZE {
        return Err(ConfigError::Size(size));
    }
    Ok(())
}

impl Snapshot for PoolHandle {
    fn layer(&self) -> &'static str {
        "pool"
    }

    fn figures(&self) -> Vec<Figure> {
        let (_, evicted) = self.rooms.refused_and_evicted();
        let mut figures = vec![
            gauge("pools", self.rooms.len() as u64),
            Figure::counter("pools_forgotten", evicted),
        ];
        if self.rooms.len() == 1 || self.rooms.len() > SHOWN {
            figures.extend(shown(&self.stats()));
            return figures;
        }
        for (key, stats) in self.each() {
            let name = key.to_string();
            let of_key = shown(&stats);
            figures.extend(of_key.map(|figure| figure.label("key", name.clone())));
        }
        let (refused, _) = self.rooms.refused_and_evicted();
        figures.push(rejected(RejectReason::Keys, refused));
        figures
    }

    /// Fails while a queue is full.
    fn health(&self) -> Result<(), String> {
        let mut full = None;
        self.rooms.for_each(|key, room| {
            if room.is_full() {
                full.get_or_insert_with(|| key.to_string());
            }
        });
        match full {
            Some(key) => Err(format!("the queue of the pool {key} is full")),
            None => Ok(()),
        }
    }
}

fn shown(stats: &PoolStats) -> impl Iterator<Item = Figure> + use<> {
    let waits = &stats.wait_times;
    let seconds = |part| waits.quantile(part).as_secs_f64();
    let mut figures = vec![
        gauge("size", stats.size),
        gauge("in_use", stats.in_use),
        gauge("available", stats.available),
        gauge("beyond", stats.beyond),
        gauge("waiting", stats.waiting),
        Figure::counter("admitted", stats.admitted),
        Figure::counter("waited", waits.count()),
        Figure::counter("temporary", stats.temporary),
        Figure::counter("left", stats.left),
        Figure::gauge("wait_seconds", seconds(0.5)).label("quantile", "0.5"),
        Figure::gauge("wait_seconds", seconds(0.9)).label("quantile", "0.9"),
        Figure::gauge("wait_seconds", seconds(0.99)).label("quantile", "0.99"),
    ];
    for &reason in RejectReason::ALL {
        figures.push(rejected(reason, stats.rejected(reason)));
    }
    figures.into_iter()
}

fn rejected(reason: RejectReason, count: u64) -> Figure {
    Figure::counter("rejected", count).label("reason", reason.as_str())
}

fn gauge(name: &'static str, value: u64) -> Figure {
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    Figure::gauge(name, value as f64)
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("PoolHandle")
            .field("pools", &self.rooms.len())
            .field("size", &stats.size)
            .field("in_use", &stats.in_use)
            .field("waiting", &stats.waiting)
            .finish_non_exhaustive()
    }
}
