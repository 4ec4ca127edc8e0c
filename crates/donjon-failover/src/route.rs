//! Which target is asked next.

mod busy;
mod cost;
mod latency;
mod rotation;
mod sticky;
mod weighted;

use donjon_core::{LlmRequest, Name};

pub use busy::LeastBusy;
pub(crate) use cost::guess;
pub use cost::{LowestCost, Prices};
pub use latency::LeastLatency;
pub use rotation::{Ordered, RoundRobin};
pub use sticky::Sticky;
pub(crate) use sticky::text_hash;
pub use weighted::Weighted;

use crate::{
    measure::millis,
    scan::Which,
    state::{Roster, TargetState},
};

/// Chooses the target that a call asks, and, when it fails, the one after it.
///
/// It looks at the figures of the candidates and at the request, and neither waits nor asks anybody.
/// Who is a candidate is not its concern: targets that are switched off, out, at their cap, unable to do
/// what the request needs, or of a later priority, are not among them, nor is one that the call has asked
/// before.
pub trait Route: Send + Sync {
    /// The target to ask for `request`. `None`: nobody, and the call fails.
    fn choose<'a>(
        &self,
        candidates: Candidates<'a>,
        request: &LlmRequest,
    ) -> Option<TargetView<'a>>;

    /// Whether it looks at [`TargetView::in_flight`], which is not counted otherwise. Default yes.
    fn uses_load(&self) -> bool {
        true
    }

    /// Whether it looks at [`TargetView::latency`], which is not measured otherwise. Default yes.
    fn uses_latency(&self) -> bool {
        true
    }
}

/// The targets that may be asked, at least one, as they were configured.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    roster: &'a Roster,
    which: Which<'a>,
    /// Nanoseconds since the failover was made.
    now: u64,
    decay: std::time::Duration,
}

impl<'a> Candidates<'a> {
    pub(crate) const fn new(
        roster: &'a Roster,
        which: Which<'a>,
        now: u64,
        decay: std::time::Duration,
    ) -> Self {
        Self {
            roster,
            which,
            now,
            decay,
        }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always a candidate")]
    pub fn len(self) -> usize {
        match self.which {
            Which::All => self.roster.targets.len(),
            Which::Some(set) => set.len(),
        }
    }

    /// All of them, in the order in which they were configured.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = TargetView<'a>> {
        let targets = self.roster.targets.iter().enumerate();
        targets
            .filter(move |(place, _)| match self.which {
                Which::All => true,
                Which::Some(set) => set.has(*place),
            })
            .map(move |(place, target)| self.view(place, target))
    }

    /// The one that is number `nth` of them, from 0.
    #[inline]
    pub fn get(self, nth: usize) -> Option<TargetView<'a>> {
        let place = match self.which {
            Which::All => nth,
            Which::Some(set) => set.nth(nth)?,
        };
        let target = self.roster.targets.get(place)?;
        Some(self.view(place, target))
    }

    #[inline]
    const fn view(self, place: usize, target: &'a TargetState) -> TargetView<'a> {
        TargetView {
            state: target,
            place,
            now: millis(self.now),
            decay: self.decay,
        }
    }
}

/// One target, as a [`Route`] sees it: figures are read when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct TargetView<'a> {
    pub(crate) state: &'a TargetState,
    pub(crate) place: usize,
    now: u32,
    decay: std::time::Duration,
}

impl<'a> TargetView<'a> {
    /// Its name.
    pub const fn name(self) -> Name {
        self.state.name
    }

    /// How much it is to get in relation to others.
    #[inline]
    pub fn weight(self) -> u32 {
        use std::sync::atomic::Ordering::Relaxed;
        self.state.weight.load(Relaxed)
    }

    /// The model that it would be asked for instead of `asked`.
    pub fn model(self, asked: &'a str) -> &'a str {
        self.state.models.get(asked).map_or(asked, |own| own)
    }

    /// How many calls it was given.
    pub fn calls(self) -> u64 {
        self.state.figures.calls()
    }

    /// How many of them it has not ended yet: see [`Route::uses_load`].
    #[inline]
    pub fn in_flight(self) -> u32 {
        self.state.load()
    }

    /// How many of them succeeded.
    pub fn successes(self) -> u64 {
        self.state.figures.successes()
    }

    /// How many of them failed.
    pub fn failures(self) -> u64 {
        self.state.figures.failures()
    }

    /// How long it takes for a request like this one, in milliseconds: to the first token of a stream,
    /// or to a whole answer. `None` if that was never measured; see [`Route::uses_latency`].
    #[inline]
    pub fn latency(self, request: &LlmRequest) -> Option<f32> {
        let of = if request.is_stream() {
            &self.state.first_token
        } else {
            &self.state.answer
        };
        of.read(self.now, self.decay)
    }
}
