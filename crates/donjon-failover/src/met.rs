//! Whether a call comes to the same failover once more.

use donjon_core::{Attempt, AttemptCause, AttemptRef, Call, Ledger};

use crate::{rivals::Rivals, state::Roster};

/// Whether the call was here before, and its targets were added to those that the ledger knows: under
/// the attempt that it comes with, or one that this repeats, our targets were asked. (A failover that
/// is a target of another adds its own, one of them being the target that it is.)
/// In another line of attempts, a hedge, the same targets were added by the first.
#[cold]
pub(crate) fn meets_again(roster: &Roster, call: &Call, ledger: &Ledger) -> bool {
    let under = call.attempt().map(AttemptRef::index);
    Rivals::of(roster, call, under).any() || was_met(roster, ledger, call.attempt())
}

/// Whether nobody has driven the call yet, but whoever opened the attempt that it comes with.
#[inline]
pub(crate) fn is_fresh(call: &Call) -> bool {
    let known = u32::from(call.attempt().is_some());
    call.ledger().is_none_or(|ledger| ledger.opened() <= known)
}

#[cold]
fn was_met(roster: &Roster, ledger: &Ledger, attempt: Option<&AttemptRef>) -> bool {
    let all: Vec<_> = ledger.attempts().collect();
    let at = |index: u32| all.get(index as usize);
    // Whoever begins a call anew, without an attempt that is repeated, opens another first one.
    let begins = |index: Option<u32>| {
        let first = |seen: &Attempt| seen.cause == AttemptCause::First && seen.parent.is_none();
        index.is_none_or(|index| at(index).is_some_and(first))
    };
    let ours = |name| roster.targets.iter().any(|target| target.name == name);
    let mut under = attempt.map(AttemptRef::index);
    loop {
        let asked = |seen: &Attempt| {
            seen.cause != AttemptCause::Retry
                && seen.target.is_some_and(ours)
                // Ours stand under an attempt if the call came with one.
                && seen.parent.is_some() == under.is_some()
                && (seen.parent == under || begins(under) && begins(seen.parent))
        };
        if all.iter().any(asked) {
            return true;
        }
        match under.and_then(at) {
            Some(seen) if seen.cause == AttemptCause::Retry => under = seen.parent,
            _ => return false,
        }
    }
}
