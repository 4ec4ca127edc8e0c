//! Where the state of limits lives.

use std::{fmt, sync::Arc};

use donjon_core::Key;

use crate::{limit::Unit, quota::Quotas};

/// Where the state of limits lives: one [`Meter`] for each key.
///
/// [`InMemory`](crate::InMemory) is the default and costs nothing for being behind this trait. What
/// shares limits among machines implements it too; it answers from what it has leased, for nothing
/// here waits for IO.
///
/// Moments are nanoseconds since the layer was built, by tokio's clock. Amounts are in the units of
/// the limits, in the order of the [`Quotas`].
pub trait Store: Send + Sync + 'static {
    /// The state of one key.
    type Meter: Meter;

    /// The state of a key that is new.
    fn open(&self, key: &Key, quotas: &Arc<Quotas>, now: u64) -> Self::Meter;
}

/// The state of the limits of one key.
pub trait Meter: Send + Sync + 'static {
    /// What was charged for a call, and where.
    type Charges: Send + fmt::Debug + 'static;

    /// Charges all of `need`, or nothing.
    ///
    /// # Errors
    ///
    /// What stands in the way, and until when.
    fn reserve(&self, need: &[u64], now: u64) -> Result<Self::Charges, Obstacle>;

    /// Books what was used instead of what was charged. `used` says how much of a unit, and `None`
    /// where it is what was charged; it is asked once for each limit, and for requests where they are
    /// kept apart: of a call that was not sent it was none. What was not used is given back where it was
    /// charged; what was used beyond it is charged now, whatever the limit. `now` is asked only for that.
    fn settle(
        &self,
        charges: Self::Charges,
        used: impl Fn(&Unit) -> Option<u64>,
        now: impl FnOnce() -> u64,
    ) -> Settled;

    /// When `need` fits behind `ahead` calls that are included in it, if nothing else is charged.
    fn fits_at(&self, need: &[u64], ahead: u64, now: u64) -> Obstacle;

    /// What is charged now of a limit.
    fn used(&self, limit: usize, now: u64) -> u64;

    /// What is allowed now of a limit, `None` for a learned one that nobody told of.
    fn allowed(&self, limit: usize, now: u64) -> Option<u64>;

    /// Takes in what a provider says of a limit.
    fn learn(&self, limit: usize, told: Told, now: u64);
}

/// What stands in the way of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacle {
    /// What it is.
    pub by: Obstructs,
    /// When it is gone; `None` if never.
    pub until: Option<u64>,
    /// Whether something was charged for a moment and given back: others may have been refused for
    /// it, so whoever waits shall look again.
    pub disturbed: bool,
}

impl Obstacle {
    /// `by` stands in the way until then; for ever if `None`.
    pub const fn new(by: Obstructs, until: Option<u64>) -> Self {
        Self {
            by,
            until,
            disturbed: false,
        }
    }
}

/// Which of the limits stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstructs {
    /// The limit at this place.
    Limit(usize),
    /// The least time between two requests.
    Spacing,
}

/// What came of settling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// Whether there is more room now.
    pub freed: bool,
    /// What was used beyond what was charged, of all limits.
    pub excess: u64,
}

/// What a provider says of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// How much is allowed.
    pub limit: Option<u64>,
    /// How much of it is left.
    pub remaining: Option<u64>,
    /// When all of it is there again.
    pub reset: Option<u64>,
}
