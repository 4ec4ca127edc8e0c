//! What other lines of attempts of the same call do at our targets.
//!
//! A hedge is a line of its own beside the first, through the same failover. Each target is asked in one
//! line, so that they never wait for the same one while there is another, and so that all lines
//! together ask no more targets than one would.

use donjon_core::{Attempt, AttemptCause, Call};

use crate::state::Roster;

/// What the other lines have made of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rival {
    /// They have not asked it.
    Untouched,
    /// They asked it, and it did not serve.
    Asked,
    /// It is being asked.
    Open,
}

/// What the other lines have made of each target, by its place.
#[derive(Debug, Default)]
pub(crate) struct Rivals(Vec<Rival>);

impl Rivals {
    /// What they have made of `roster` in `call`, which came here with the attempt at `under`.
    #[cold]
    pub(crate) fn of(roster: &Roster, call: &Call, under: Option<u32>) -> Self {
        let Some(ledger) = call.ledger().filter(|ledger| ledger.hedges() > 0) else {
            return Self::default();
        };
        let all: Vec<_> = ledger.attempts().collect();
        let mine = line(&all, under);
        // A group of another name may have targets of the same names.
        let name = |index: Option<u32>| all.get(index? as usize)?.target;
        let group = name(under);
        let others = all
            .iter()
            .filter(|a| line(&all, Some(a.index)) != mine && name(group_of(&all, a)) == group);
        let others: Vec<_> = others.collect();
        let place = |name| {
            let at = others.iter().filter(|a| a.target == Some(name));
            let open = |a: &&Attempt| a.ended_at.is_none() && a.dropped.is_none();
            let seen = at.map(|a| if open(a) { Rival::Open } else { Rival::Asked });
            seen.max().unwrap_or(Rival::Untouched)
        };
        Self(roster.targets.iter().map(|t| place(t.name)).collect())
    }

    /// What they have made of the target at `place`.
    pub(crate) fn at(&self, place: usize) -> Rival {
        self.0.get(place).copied().unwrap_or(Rival::Untouched)
    }

    /// Whether they have come here.
    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|rival| *rival > Rival::Untouched)
    }

    /// Whether they are still at it.
    pub(crate) fn any_open(&self) -> bool {
        self.0.contains(&Rival::Open)
    }
}

/// The attempt that whoever drives this one came with.
fn group_of(all: &[Attempt], attempt: &Attempt) -> Option<u32> {
    let mut seen = attempt;
    while matches!(
        seen.cause,
        AttemptCause::Failover | AttemptCause::Retry | AttemptCause::Resume
    ) {
        seen = all.get(seen.parent? as usize)?;
    }
    seen.parent
}

/// The line that an attempt belongs to, by the hedge that it follows from; `None` for the first.
fn line(all: &[Attempt], mut index: Option<u32>) -> Option<u32> {
    while let Some(seen) = index.and_then(|index| all.get(index as usize)) {
        if seen.cause == AttemptCause::Hedge {
            return Some(seen.index);
        }
        index = seen.parent;
    }
    None
}
