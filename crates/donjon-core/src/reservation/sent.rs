//! What was sent since a reservation was made, and what attempts that did not serve have used.

use std::sync::Arc;

use super::Settlement;
use crate::{
    error::{ErrorKind, LlmError, TimeoutClock},
    ledger::{Attempt, AttemptCause, AttemptRef, Billed, Ledger},
    vocab::{Call, Usage},
};

/// The attempts that a reservation stands for.
pub(super) enum Sent {
    /// This one, and those that repeat it or that drivers further in make under it.
    Under(AttemptRef),
    /// All of this call from this place on: none was open.
    Since(Arc<Ledger>, u32),
    /// The call has not begun: nobody can tell.
    Unknown,
}

/// What attempts have used without having served.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) usage: Usage,
    /// Whether any was sent to where it is counted.
    pub(super) counted: bool,
    /// Whether anything was used.
    any: bool,
    /// Whether some of it is not the provider's own figure.
    pub(super) estimated: bool,
}

impl Spent {
    /// If anything was used.
    pub(super) fn settlement(&self) -> Option<Settlement> {
        let known = match self.estimated {
            true => Settlement::Estimated(self.usage),
            false => Settlement::Actual(self.usage),
        };
        self.any.then_some(known)
    }
}

impl Sent {
    pub(super) fn of(call: &Call) -> Self {
        match (call.attempt(), call.ledger()) {
            (Some(attempt), _) => Self::Under(attempt.clone()),
            (None, Some(ledger)) => Self::Since(ledger.clone(), ledger.opened()),
            (None, None) => Self::Unknown,
        }
    }

    /// Whether there is no more than one attempt, so that the one that served is all there is.
    pub(super) fn is_one(&self) -> bool {
        match self {
            Self::Under(attempt) => attempt.ledger().opened() <= attempt.index() + 1,
            // A driver may have opened one for a group, and sent one under it.
            Self::Since(ledger, from) => {
                ledger.opened() <= from + 1 || *from == 0 && ledger.sent() <= 1
            }
            Self::Unknown => true,
        }
    }

    /// The attempt that serves: of a call that has `committed` the last that did, else the last that
    /// is under way.
    pub(super) fn serving(&self, committed: bool) -> Option<u32> {
        let attempts = self.attempts();
        let last = |serves: fn(&Attempt) -> bool| attempts.iter().rfind(|one| serves(one));
        let stamped = match committed {
            true => last(|attempt| attempt.committed_at.is_some()),
            false => None,
        };
        let serving = stamped.or_else(|| last(is_under_way));
        serving.map(|attempt| attempt.index)
    }

    /// What all attempts but the `serving` one have used. Where it is not known what an attempt failed
    /// with, it was `error`; where it is not known what it used, it was a prompt of `input` tokens. Where
    /// the answer `told` what it used and was resumed, it told that of all which had committed.
    pub(super) fn spent(
        &self,
        serving: Option<u32>,
        told: bool,
        error: Option<&LlmError>,
        input: u64,
    ) -> Spent {
        let mut spent = Spent::default();
        let attempts = self.attempts();
        let resumes = |attempt: &Attempt| attempt.cause == AttemptCause::Resume;
        let told = told && attempts.iter().any(resumes);
        for attempt in attempts {
            if Some(attempt.index) == serving || attempt.sent_at.is_none() {
                continue;
            }
            if told && attempt.committed_at.is_some() {
                continue;
            }
            let error = match (&attempt.error, attempt.dropped) {
                (None, None) => error,
                (error, _) => error.as_ref(),
            };
            // Where no connection stood, nobody has counted it.
            spent.counted |= error.is_none_or(|error| error.kind() != ErrorKind::Connect);
            // A provider that answers with an error charges nothing, unless it said so; one that was
            // waited for in vain, or broke off, has worked.
            let refused = attempt.billed == Billed::No
                || attempt.committed_at.is_none()
                    && error.is_some_and(|error| !waited_in_vain(error.kind()));
            let told = attempt.usage;
            if refused && told.total() == 0 {
                continue;
            }
            spent.any = true;
            spent.estimated |= !refused;
            spent.usage = spent.usage.plus(Usage {
                input: if told.input > 0 { told.input } else { input },
                ..told
            });
        }
        spent
    }

    fn attempts(&self) -> Vec<Attempt> {
        match self {
            Self::Under(first) => {
                let from = first.index();
                let all: Vec<Attempt> = first.ledger().attempts().skip(from as usize).collect();
                let under = all.iter().filter(|one| is_under(&all, from, one));
                under.cloned().collect()
            }
            Self::Since(ledger, from) => ledger.attempts().skip(*from as usize).collect(),
            Self::Unknown => Vec::new(),
        }
    }
}

/// Whether an attempt is the one at `from`, the first of `all`, or was made further in than that: again, or first
/// by a driver for whom that one stands. What drivers further out make follows from it, too.
fn is_under(all: &[Attempt], from: u32, attempt: &Attempt) -> bool {
    let (mut at, mut inside) = (attempt, true);
    while at.index > from {
        inside = matches!(at.cause, AttemptCause::Retry | AttemptCause::First);
        // What a hedge follows from may be far further in than who made it.
        let above = match at.cause {
            AttemptCause::Hedge => at.beside,
            _ => at.parent,
        };
        match above.and_then(|above| all.get(above.checked_sub(from)? as usize)) {
            Some(above) => at = above,
            None => return false,
        }
    }
    inside
}

fn is_under_way(attempt: &Attempt) -> bool {
    attempt.sent_at.is_some() && attempt.error.is_none() && attempt.dropped.is_none()
}

/// The provider may have worked all the while.
pub(super) const fn waited_in_vain(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout(clock) if !matches!(clock, TimeoutClock::Connect))
}
