//! What the end of a call says of its target's health, and what comes of that.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Relaxed, Release},
    },
    time::Duration,
};

use donjon_core::{Call, DropReason, End, Health, LlmError, Observer, Outcome};

use crate::{
    event::{DownReason, FailoverEvent},
    health::{HealthPolicy, Standing, Status, Verdict, nanos, next_spell},
    measure::millis,
    state::{Shared, TargetState, lock},
};

/// What a call holds of the target that it asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    /// The spell in which it was asked.
    pub(crate) spell: u32,
    /// It finds out whether the target works.
    pub(crate) trial: bool,
    /// It is counted among the calls in progress.
    pub(crate) counted: bool,
}

/// What a call says against its target.
enum Charge<'a> {
    Error(&'a LlmError),
    Slow,
}

impl Shared {
    /// Lets go of what a call holds of `target`.
    #[inline]
    pub(crate) fn release(&self, target: &TargetState, hold: Hold) {
        if hold.counted {
            target.leave();
        }
        if hold.trial {
            target.gate.end_trial(hold.spell);
        }
    }

    /// The call has come to an answer, whole or to its first token. Whether that is held against its target,
    /// for coming late.
    #[inline]
    pub(crate) fn committed(
        &self,
        target: &Arc<TargetState>,
        hold: Hold,
        call: &Call,
        streamed: bool,
    ) -> bool {
        let took = if self.measures {
            target.measure(self, call, streamed)
        } else {
            None
        };
        let Some(policy) = &self.config.health else {
            return false;
        };
        if let (Some(took), Some(bound)) = (took, policy.bound(streamed))
            && took > bound
        {
            target.late.fetch_add(1, Relaxed);
            self.charge(policy, target, hold, &Charge::Slow);
            return true;
        }
        if hold.trial {
            self.pass_trial(target, hold);
        }
        if !streamed {
            self.succeeded(target, hold);
        }
        false
    }

    /// The call has ended well.
    #[inline]
    pub(crate) fn succeeded(&self, target: &TargetState, hold: Hold) {
        if target.streak.load(Relaxed) != 0 && target.gate.spell() == hold.spell {
            target.streak.store(0, Release);
        }
    }

    /// The call has failed.
    #[cold]
    pub(crate) fn failed(&self, target: &Arc<TargetState>, hold: Hold, error: &LlmError) {
        if let Some(policy) = &self.config.health {
            self.charge(policy, target, hold, &Charge::Error(error));
        }
    }

    /// The stream of a call that found out whether the target works has failed after its first token: what
    /// that said of the target is taken back.
    #[cold]
    fn broke_on_trial(&self, target: &Arc<TargetState>, hold: Hold, error: &LlmError) {
        let Some(policy) = &self.config.health else {
            return;
        };
        let hold = Hold {
            spell: next_spell(hold.spell),
            ..hold
        };
        let now = self.now();
        let standing = target.gate.standing();
        // It is this call that let the target return, and nothing else came of it since.
        if matches!(standing, Standing::Returning { .. })
            && target.gate.spell() == hold.spell
            && let Some((hint, why)) = self.fault(policy, error)
        {
            self.take_out(policy, target, hold, now, hint, why);
        }
    }

    /// How long the server asks to be left alone after this error, and how it is told; `None` if the error
    /// is no fault of the target.
    fn fault(
        &self,
        policy: &HealthPolicy,
        error: &LlmError,
    ) -> Option<(Option<Duration>, DownReason)> {
        let row = self.config.classify.classify(error);
        if row.health == Health::Neutral || error.kind().is_unsent() {
            return None;
        }
        let says = row.health == Health::Overload && policy.hints;
        let hint = error.retry_after().filter(|after| says && !after.is_zero());
        let hint = hint.map(|after| after.min(policy.longest));
        Some((hint, DownReason::Failing(error.kind())))
    }

    /// The call was dropped.
    #[cold]
    pub(crate) fn dropped(
        &self,
        target: &Arc<TargetState>,
        hold: Hold,
        outcome: Outcome<'_>,
        streamed: bool,
    ) {
        match outcome {
            Outcome::Failure(error) => self.failed(target, hold, error),
            Outcome::Cancelled {
                why: DropReason::Superseded,
                elapsed,
            } => {
                if self.measures {
                    let of = if streamed {
                        &target.first_token
                    } else {
                        &target.answer
                    };
                    of.at_least(millis(self.now()), elapsed, self.config.decay);
                }
                if let Some(policy) = &self.config.health
                    && policy.bound(streamed).is_some_and(|bound| elapsed > bound)
                {
                    self.charge(policy, target, hold, &Charge::Slow);
                }
            }
            Outcome::Success | Outcome::Cancelled { .. } => {}
        }
    }

    /// Takes in a charge, and takes the target out if it is one too many.
    fn charge(
        &self,
        policy: &HealthPolicy,
        target: &Arc<TargetState>,
        hold: Hold,
        charge: &Charge<'_>,
    ) {
        let (hint, mut why) = match charge {
            Charge::Slow => (None, DownReason::Slow),
            Charge::Error(error) => match self.fault(policy, error) {
                Some(fault) => fault,
                None => return,
            },
        };
        let now = self.now();
        if target.gate.spell() != hold.spell {
            // It says nothing of this spell, but what the server says counts.
            if let Some(after) = hint {
                let _changes = self.lock_changes();
                target.gate.extend(now.saturating_add(nanos(after)));
            }
            return;
        }
        match target.gate.standing().at(now, self.ramp()) {
            Status::Out { .. } => {
                if let Some(after) = hint {
                    let _changes = self.lock_changes();
                    target.gate.extend(now.saturating_add(nanos(after)));
                }
                return;
            }
            Status::Trial => {}
            Status::Up | Status::Returning { .. } => {
                let streak = target.streak.fetch_add(1, AcqRel).saturating_add(1);
                let late = target.late.load(Relaxed);
                let successes = target.figures.successes().saturating_sub(late);
                let verdict = lock(&target.history).fault(policy, now, streak, successes);
                match verdict {
                    Verdict::Stays if hint.is_none() => return,
                    Verdict::Rate => why = DownReason::FailureRate,
                    Verdict::Stays | Verdict::Consecutive => {}
                }
            }
        }
        self.take_out(policy, target, hold, now, hint, why);
    }

    fn take_out(
        &self,
        policy: &HealthPolicy,
        target: &Arc<TargetState>,
        hold: Hold,
        now: u64,
        hint: Option<Duration>,
        reason: DownReason,
    ) {
        let changes = self.lock_changes();
        if target.gate.spell() != hold.spell || !self.may_take_out(policy, target, now) {
            return;
        }
        let out_for = match hint {
            Some(after) => after,
            None => lock(&target.history).sentence(policy, now),
        };
        let until = now.saturating_add(nanos(out_for));
        target.gate.set(Standing::Out { until });
        lock(&target.history).reason = Some(reason);
        target.streak.store(0, Release);
        target.ejections.fetch_add(1, Relaxed);
        self.survey(&changes);
        drop(changes);
        self.events.tell(|| FailoverEvent::TargetDown {
            target: target.name,
            reason,
            out_for: Some(out_for),
        });
    }

    /// Whether one more may be out, and somebody is left.
    fn may_take_out(&self, policy: &HealthPolicy, target: &TargetState, now: u64) -> bool {
        let roster = self.roster.load();
        let (mut enabled, mut left) = (0_u32, 0_u32);
        for other in &roster.targets {
            enabled += u32::from(other.is_enabled());
            left += u32::from(other.name != target.name && other.is_available(now));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a number of targets"
        )]
        let most = (f64::from(enabled) * policy.most_out).ceil() as u32;
        left > 0 && enabled.saturating_sub(left) <= most
    }

    /// Whoever was to find out whether it works was served.
    #[cold]
    fn pass_trial(&self, target: &Arc<TargetState>, hold: Hold) {
        let now = self.now();
        let changes = self.lock_changes();
        let out = matches!(target.gate.standing(), Standing::Out { .. });
        if !out || target.gate.spell() != hold.spell {
            return;
        }
        self.let_back(target, now);
        self.survey(&changes);
        drop(changes);
        self.events.tell(|| FailoverEvent::FailedBack {
            target: target.name,
        });
    }

    /// Lets a target return; for whoever holds the lock on changes.
    pub(crate) fn let_back(&self, target: &TargetState, now: u64) {
        lock(&target.history).returned(now);
        target.streak.store(0, Release);
        target.gate.set(Standing::Returning { from: now });
    }

    /// Targets that have returned are up.
    #[cold]
    pub(crate) fn settle(&self, now: u64) {
        let changes = self.lock_changes();
        let roster = self.roster.load();
        let back = |target: &&Arc<TargetState>| {
            let standing = target.gate.standing();
            let returning = matches!(standing, Standing::Returning { .. });
            returning && standing.at(now, self.ramp()) == Status::Up
        };
        let back: Vec<_> = roster.targets.iter().filter(back).cloned().collect();
        for target in &back {
            target.gate.set(Standing::Up);
        }
        self.survey(&changes);
        drop(changes);
        for target in back {
            self.events.tell(|| FailoverEvent::TargetUp {
                target: target.name,
            });
        }
    }

    /// What a probe says: up or down, and why.
    pub(crate) fn probed(&self, target: &Arc<TargetState>, up: bool) {
        let changes = self.lock_changes();
        if !target.switch(crate::state::DOWN, !up) {
            return;
        }
        if up && target.gate.standing() == Standing::Up {
            self.let_back(target, self.now());
        }
        if !up {
            lock(&target.history).reason = Some(DownReason::Probe);
        }
        self.survey(&changes);
        drop(changes);
        self.events.tell(|| {
            let target = target.name;
            if up {
                FailoverEvent::FailedBack { target }
            } else {
                FailoverEvent::TargetDown {
                    target,
                    reason: DownReason::Probe,
                    out_for: None,
                }
            }
        });
    }
}

/// Hears the end of a call whose answer comes chunk by chunk.
pub(crate) struct Tally {
    shared: Arc<Shared>,
    target: Arc<TargetState>,
    hold: Hold,
    /// Its first token was what let the target return.
    on_trial: bool,
    /// It came late, which is a fault although it ends well.
    late: bool,
    ended: bool,
}

impl Tally {
    pub(crate) const fn new(shared: Arc<Shared>, target: Arc<TargetState>, hold: Hold) -> Self {
        // At the first token it was found out, unless it breaks later.
        let on_trial = hold.trial;
        let hold = Hold {
            trial: false,
            ..hold
        };
        Self {
            shared,
            target,
            hold,
            on_trial,
            late: false,
            ended: false,
        }
    }

    /// The first token is there.
    pub(crate) fn committed(&mut self, call: &Call) {
        let hold = Hold {
            trial: self.on_trial,
            ..self.hold
        };
        self.late = self.shared.committed(&self.target, hold, call, true);
    }
}

impl Observer for Tally {
    fn end(&mut self, end: &End<'_>) {
        self.ended = true;
        self.target.figures.end(end.outcome);
        self.shared.release(&self.target, self.hold);
        match end.outcome {
            Outcome::Success if self.late => {}
            Outcome::Success => self.shared.succeeded(&self.target, self.hold),
            Outcome::Failure(error) if self.on_trial => {
                self.shared.broke_on_trial(&self.target, self.hold, error);
            }
            Outcome::Failure(error) => self.shared.failed(&self.target, self.hold, error),
            Outcome::Cancelled { .. } => {}
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.release(&self.target, self.hold);
        }
    }
}
