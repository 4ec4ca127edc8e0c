//! Where a target stands, in one word, and who may pass while it comes back.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use Ordering::{AcqRel, Acquire, Relaxed, Release};

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
    /// The number of the spell, twice, and one more while a call is finding out in it; so a new spell
    /// forgets that call, and one that comes late takes no place in it.
    ///
    /// The number goes on by one each time that the target is taken out or comes back: a call that began in
    /// an earlier spell says nothing of this one.
    spell: AtomicU32,
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
        self.spell.load(Acquire) >> 1
    }

    /// Changes it; for whoever holds the lock on changes.
    pub(crate) fn set(&self, standing: Standing) {
        if !matches!(standing, Standing::Up) {
            let next = |word: u32| Some((word & !TRIAL).wrapping_add(1 << 1));
            // It always succeeds: there is a next one of each.
            let _ = self.spell.fetch_update(AcqRel, Acquire, next);
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
        self.spell.load(Acquire) & TRIAL != 0
    }

    /// Takes the one place of those who find out in `spell`, if that is not over.
    pub(crate) fn try_trial(&self, spell: u32) -> bool {
        let (free, taken) = (spell << 1, spell << 1 | TRIAL);
        self.spell
            .compare_exchange(free, taken, AcqRel, Acquire)
            .is_ok()
    }

    /// Gives it back, unless it went with the spell.
    pub(crate) fn end_trial(&self, spell: u32) {
        let (free, taken) = (spell << 1, spell << 1 | TRIAL);
        let _ = self.spell.compare_exchange(taken, free, AcqRel, Acquire);
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

/// Somebody is finding out.
const TRIAL: u32 = 1;

/// The spell after this one.
pub(crate) const fn next_spell(spell: u32) -> u32 {
    // One bit of the word is not the number's.
    spell.wrapping_add(1) & (u32::MAX >> 1)
}

#[cfg(all(test, not(loom)))]
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
        assert!(!gate.try_trial(first), "a spell that is over has no place");
    }

    #[test]
    fn spells_go_round() {
        let gate = Gate::default();
        gate.spell.store(u32::MAX, Relaxed);
        let last = gate.spell();
        assert!(gate.is_on_trial());
        gate.set(Standing::Out { until: 9 });
        assert_eq!((gate.spell(), gate.is_on_trial()), (0, false));
        assert_eq!(next_spell(last), 0);
        assert!(gate.try_trial(0));
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

#[cfg(all(test, loom))]
mod model {
    use loom::{
        model,
        sync::{Arc, Mutex},
        thread,
    };

    use super::*;

    /// The gate of a target whose time is up, and the spells in which somebody finds out at the moment.
    fn out() -> (Arc<Gate>, Arc<Mutex<Vec<u32>>>) {
        let gate = Gate::default();
        gate.set(Standing::Out { until: 0 });
        (Arc::new(gate), Arc::new(Mutex::new(Vec::new())))
    }

    /// Finds out in `spell` if there is a place, and lets go of it.
    fn find_out(gate: &Gate, spell: u32, within: &Mutex<Vec<u32>>) -> bool {
        if !gate.try_trial(spell) {
            return false;
        }
        let mut others = within.lock().expect("no panic");
        assert!(!others.contains(&spell), "two find out in one spell");
        others.push(spell);
        drop(others);
        thread::yield_now();
        within.lock().expect("no panic").retain(|s| *s != spell);
        gate.end_trial(spell);
        true
    }

    #[test]
    fn one_finds_out_at_a_time() {
        model(|| {
            let (gate, within) = out();
            let spawn = || {
                let (gate, within) = (gate.clone(), within.clone());
                thread::spawn(move || find_out(&gate, gate.spell(), &within))
            };
            let other = spawn();
            let mine = find_out(&gate, gate.spell(), &within);
            let theirs = other.join().expect("no panic");
            assert!(mine || theirs, "a place that is free is given");
            assert!(!gate.is_on_trial(), "and given back");
        });
    }

    #[test]
    fn whoever_is_late_takes_no_place_of_a_new_spell() {
        model(|| {
            let (gate, within) = out();
            let late = gate.spell();
            let straggler = {
                let (gate, within) = (gate.clone(), within.clone());
                thread::spawn(move || find_out(&gate, late, &within))
            };
            let other = {
                let (gate, within) = (gate.clone(), within.clone());
                thread::spawn(move || find_out(&gate, gate.spell(), &within))
            };
            // The trial failed.
            gate.set(Standing::Out { until: 0 });
            find_out(&gate, gate.spell(), &within);
            straggler.join().expect("no panic");
            other.join().expect("no panic");
            assert_eq!(gate.spell(), late + 1);
            assert!(!gate.is_on_trial());
        });
    }
}
