//! Where a target stands, in one word, and who may pass while it comes back.

use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

/// Where a target stands, as it is written down. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Up,
    Out { until: u64 },
    Returning { from: u64 },
}

/// What that means at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Status {
    Up,
    Out {
        until: u64,
    },
    /// Its time is up, and a call is to find out whether it works.
    Trial,
    /// It gets this share of what it would get.
    Returning {
        share: f64,
    },
}

/// The least that a target gets when it returns.
const LEAST: f64 = 0.05;

impl Standing {
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(crate) fn at(self, now: u64, ramp: Duration) -> Status {
        match self {
            Self::Up => Status::Up,
            Self::Out { until } if now < until => Status::Out { until },
            Self::Out { .. } => Status::Trial,
            Self::Returning { from } => {
                let ramp = ramp.as_nanos() as f64;
                let gone = now.saturating_sub(from) as f64;
                if gone >= ramp {
                    Status::Up
                } else {
                    let share = (gone / ramp).max(LEAST);
                    Status::Returning { share }
                }
            }
        }
    }

    fn pack(self) -> u64 {
        match self {
            Self::Up => 0,
            Self::Out { until } => OUT | until.min(TIME),
            Self::Returning { from } => RETURNING | from.min(TIME),
        }
    }

    const fn unpack(word: u64) -> Self {
        match word & !TIME {
            OUT => Self::Out { until: word & TIME },
            RETURNING => Self::Returning { from: word & TIME },
            _ => Self::Up,
        }
    }
}

const OUT: u64 = 1 << 62;
const RETURNING: u64 = 2 << 62;
const TIME: u64 = (1 << 62) - 1;

/// The standing of a target, the number of its spell, and the sieve of those that return.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    standing: AtomicU64,
    /// Goes on by one each time that the target is taken out or lets itself be tried: a call that began
    /// in an earlier spell says nothing of this one.
    spell: AtomicU32,
    /// The spell in which a call is finding out, and one; so a new spell forgets it.
    on_trial: AtomicU32,
    /// What is left over of the shares so far, in parts of 2^16.
    sieve: AtomicU32,
}

impl Gate {
    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        Standing::unpack(self.standing.load(Acquire))
    }

    #[inline]
    pub(crate) fn spell(&self) -> u32 {
        self.spell.load(Acquire)
    }

    /// Changes it; for whoever holds the lock on changes.
    pub(crate) fn set(&self, standing: Standing) {
        if !matches!(standing, Standing::Up) {
            self.spell.fetch_add(1, AcqRel);
        }
        self.standing.store(standing.pack(), Release);
    }

    /// Makes it later that it comes back; for whoever holds the lock on changes. A later time stays.
    pub(crate) fn extend(&self, until: u64) {
        if let Standing::Out { until: set } = self.standing()
            && until > set
        {
            self.standing.store(Standing::Out { until }.pack(), Release);
        }
    }

    /// Whether somebody is finding out already.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.on_trial.load(Acquire) == mark(self.spell())
    }

    /// Takes the one place of those who find out in `spell`.
    pub(crate) fn try_trial(&self, spell: u32) -> bool {
        let before = self.on_trial.load(Acquire);
        before != mark(spell)
            && self
                .on_trial
                .compare_exchange(before, mark(spell), AcqRel, Acquire)
                .is_ok()
    }

    /// Gives it back, unless it went with the spell.
    pub(crate) fn end_trial(&self, spell: u32) {
        let _ = self
            .on_trial
            .compare_exchange(mark(spell), 0, AcqRel, Acquire);
    }

    /// Lets `share` of those who ask pass, evenly.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 2^16"
    )]
    pub(crate) fn passes(&self, share: f64) -> bool {
        let part = (share.clamp(0.0, 1.0) * f64::from(WHOLE)) as u32;
        let before = self.sieve.fetch_add(part, Relaxed) % WHOLE;
        before + part >= WHOLE
    }
}

const WHOLE: u32 = 1 << 16;

/// 0 stands for nobody.
const fn mark(spell: u32) -> u32 {
    match spell.wrapping_add(1) {
        0 => 1,
        mark => mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAMP: Duration = Duration::from_nanos(100);

    #[test]
    fn what_is_written_down_is_read_back() {
        for standing in [
            Standing::Up,
            Standing::Out { until: 7 },
            Standing::Out { until: TIME },
            Standing::Returning { from: 0 },
        ] {
            assert_eq!(Standing::unpack(standing.pack()), standing);
        }
    }

    #[test]
    fn time_alone_leads_from_out_to_trial_and_from_returning_to_up() {
        let out = Standing::Out { until: 50 };
        assert_eq!(out.at(49, RAMP), Status::Out { until: 50 });
        assert_eq!(out.at(50, RAMP), Status::Trial);
        let returning = Standing::Returning { from: 50 };
        assert_eq!(returning.at(50, RAMP), Status::Returning { share: LEAST });
        assert_eq!(returning.at(75, RAMP), Status::Returning { share: 0.25 });
        assert_eq!(returning.at(150, RAMP), Status::Up);
        assert_eq!(returning.at(50, Duration::ZERO), Status::Up);
    }

    #[test]
    fn a_share_passes_and_no_two_at_once() {
        let gate = Gate::default();
        let passed: Vec<_> = (0..1_000).map(|_| gate.passes(0.25)).collect();
        assert_eq!(passed.iter().filter(|passed| **passed).count(), 250);
        assert!(passed.windows(2).all(|two| two != [true, true]));
        assert!((0..10).all(|_| gate.passes(1.0)));
        assert!(!(0..10).any(|_| gate.passes(0.0)));
    }

    #[test]
    fn one_finds_out_at_a_time_and_a_new_spell_forgets_who_did() {
        let gate = Gate::default();
        let first = gate.spell();
        assert!(gate.try_trial(first));
        assert!(!gate.try_trial(first));
        gate.set(Standing::Out { until: 9 });
        assert!(!gate.is_on_trial());
        assert!(gate.try_trial(gate.spell()), "a new spell");
        gate.end_trial(first);
        assert!(gate.is_on_trial(), "whoever was late gives nothing back");
        gate.end_trial(gate.spell());
        assert!(!gate.is_on_trial());
    }

    #[test]
    fn a_time_out_is_only_made_longer() {
        let gate = Gate::default();
        gate.extend(5);
        assert_eq!(gate.standing(), Standing::Up);
        gate.set(Standing::Out { until: 9 });
        gate.extend(5);
        assert_eq!(gate.standing(), Standing::Out { until: 9 });
        gate.extend(12);
        assert_eq!(gate.standing(), Standing::Out { until: 12 });
    }
}
