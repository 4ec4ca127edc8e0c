//! In which order targets are asked.

use donjon_core::LlmRequest;
use smallvec::SmallVec;

use crate::state::{Shared, TargetState};

/// Decides in which order the targets of a call are asked.
///
/// It is pure: it looks at the figures of the targets and at the request, and neither waits nor asks
/// anybody. Whether a target may be asked at all is not its concern: one that is disabled is passed
/// over whatever the order.
pub trait Route: Send + Sync {
    /// The places of the targets to ask for `request`, first to last. A target that is left out is
    /// not asked.
    fn order(&self, targets: Targets<'_>, request: &LlmRequest) -> Order;
}

/// Targets are asked in the order in which they were configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ordered;

impl Route for Ordered {
    fn order(&self, targets: Targets<'_>, _: &LlmRequest) -> Order {
        Order::in_turn(targets.len())
    }
}

/// Places of targets, each at most once.
#[derive(Clone, Debug)]
pub struct Order(Places);

#[derive(Clone, Debug)]
enum Places {
    /// So many, as they were configured: nothing needs to be written down.
    InTurn(u32),
    Listed(SmallVec<[u32; 4]>),
}

impl Order {
    /// The first `count` targets, in the order in which they were configured.
    #[inline]
    pub fn in_turn(count: usize) -> Self {
        Self(Places::InTurn(u32::try_from(count).unwrap_or(u32::MAX)))
    }

    /// Asks the target at `place` after those so far; one that was named before keeps its turn.
    pub fn push(&mut self, place: usize) {
        if let Places::InTurn(count) = self.0 {
            self.0 = Places::Listed((0..count).collect());
        }
        // There is no target at a place beyond four billion.
        if let (Places::Listed(places), Ok(place)) = (&mut self.0, u32::try_from(place))
            && !places.contains(&place)
        {
            places.push(place);
        }
    }

    /// The place that is asked as number `turn`, from 0.
    #[inline]
    pub fn get(&self, turn: usize) -> Option<usize> {
        match &self.0 {
            Places::InTurn(count) => (turn < *count as usize).then_some(turn),
            Places::Listed(places) => places.get(turn).map(|place| *place as usize),
        }
    }

    /// The places, first to last.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..).map_while(|turn| self.get(turn))
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::in_turn(0)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Order {}

impl FromIterator<usize> for Order {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let mut order = Self::default();
        for place in places {
            order.push(place);
        }
        order
    }
}

/// The targets, as a [`Route`] sees them: figures are read when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a>(&'a Shared);

impl<'a> Targets<'a> {
    pub(crate) const fn new(shared: &'a Shared) -> Self {
        Self(shared)
    }

    /// How many there are, at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always a target")]
    pub fn len(self) -> usize {
        self.0.targets.len()
    }

    /// The one at `place`.
    pub fn get(self, place: usize) -> Option<TargetView<'a>> {
        self.0.targets.get(place).map(TargetView)
    }

    /// All of them, by place.
    pub fn iter(self) -> impl Iterator<Item = TargetView<'a>> {
        self.0.targets.iter().map(TargetView)
    }
}

/// One target, as a [`Route`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct TargetView<'a>(&'a TargetState);

impl<'a> TargetView<'a> {
    /// Its name.
    pub fn name(self) -> &'a str {
        &self.0.name
    }

    /// Whether it may be asked.
    pub fn is_enabled(self) -> bool {
        self.0.is_enabled()
    }

    /// The model that it would be asked for instead of `asked`.
    pub fn model(self, asked: &'a str) -> &'a str {
        self.0.models.get(asked).map_or(asked, |own| own)
    }

    /// How many calls it was given.
    pub fn calls(self) -> u64 {
        self.0.figures.calls()
    }

    /// How many of them it has not ended yet.
    pub fn in_flight(self) -> u64 {
        self.0.figures.in_flight()
    }

    /// How many of them succeeded.
    pub fn successes(self) -> u64 {
        self.0.figures.successes()
    }

    /// How many of them failed.
    pub fn failures(self) -> u64 {
        self.0.figures.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_an_order_once() {
        let order: Order = [2, 0, 2, 1, 0].into_iter().collect();
        assert!(order.iter().eq([2, 0, 1]));
    }
}
