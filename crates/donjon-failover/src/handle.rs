//! The handle: figures, switches, events.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    time::Duration,
};

use donjon_core::{ErrorKind, Figure, Listener, LlmError, Name, Snapshot};

use crate::{
    capability::Capability,
    error::UnknownTarget,
    report::{HealthReport, TargetStatus},
    state::{DISABLED, DRAINING, Shared, TargetState, UNLIMITED, millis},
};

/// Reads and controls a [`Failover`](crate::Failover), all clones of it together.
#[derive(Clone, Debug)]
pub struct FailoverHandle {
    shared: Arc<Shared>,
}

impl FailoverHandle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The targets with their figures, as configured.
    pub fn targets(&self) -> Vec<TargetStats> {
        let roster = self.shared.roster.load();
        roster
            .targets
            .iter()
            .map(|t| TargetStats::of(&self.shared, t))
            .collect()
    }

    /// The target named `name`.
    pub fn target(&self, name: &str) -> Option<TargetStats> {
        let target = self.state(name).ok()?;
        Some(TargetStats::of(&self.shared, &target))
    }

    /// How often another target was asked after one failed.
    pub fn failovers(&self) -> u64 {
        self.shared.failovers.load(Relaxed)
    }

    /// How many calls no target could serve.
    pub fn exhausted(&self) -> u64 {
        self.shared.exhausted.load(Relaxed)
    }

    /// Asks `name` from now on.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn enable(&self, name: &str) -> Result<(), UnknownTarget> {
        self.switch(name, true)
    }

    /// Asks `name` no more. Calls that it has go on.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn disable(&self, name: &str) -> Result<(), UnknownTarget> {
        self.switch(name, false)
    }

    /// Listens to what happens from now on.
    pub fn listen(&self) -> Listener<FailoverEvent> {
        self.shared.events.listen()
    }

    /// How each target stands.
    pub fn report(&self) -> HealthReport {
        HealthReport::of(&self.shared)
    }

    /// Asks `name` no more until [`undrain`](Self::undrain), to take it away once its calls have ended:
    /// see [`TargetStats::in_flight`].
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn drain(&self, name: &str) -> Result<(), UnknownTarget> {
        self.turn(name, DRAINING, true, |target| FailoverEvent::Draining {
            target,
        })
    }

    /// Asks `name` again.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn undrain(&self, name: &str) -> Result<(), UnknownTarget> {
        self.turn(name, DRAINING, false, |target| FailoverEvent::TargetUp {
            target,
        })
    }

    /// Changes [`Target::priority`](crate::Target::priority).
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn set_priority(&self, name: &str, priority: u32) -> Result<(), UnknownTarget> {
        self.change(name, |target| target.priority.store(priority, Release))
    }

    /// Changes [`Target::weight`](crate::Target::weight); zero is taken for one.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn set_weight(&self, name: &str, weight: u32) -> Result<(), UnknownTarget> {
        self.change(name, |target| target.weight.store(weight.max(1), Release))
    }

    /// Changes [`Target::max_in_flight`](crate::Target::max_in_flight); zero is taken for one. Calls that
    /// a target without a limit has are not counted against a new one.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn set_max_in_flight(
        &self,
        name: &str,
        most: impl Into<Option<u32>>,
    ) -> Result<(), UnknownTarget> {
        let most = most.into().map_or(UNLIMITED, |most| most.max(1));
        self.change(name, |target| target.cap.store(most, Release))
    }

    /// Says whether it can do this.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn set_capability(
        &self,
        name: &str,
        capability: Capability,
        able: bool,
    ) -> Result<(), UnknownTarget> {
        self.change(name, |target| target.set_ability(capability, able))
    }

    /// Changes [`Target::context_window`](crate::Target::context_window).
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn set_context_window(
        &self,
        name: &str,
        tokens: impl Into<Option<u64>>,
    ) -> Result<(), UnknownTarget> {
        let tokens = tokens.into();
        self.change(name, |target| target.set_context_window(tokens))
    }

    fn switch(&self, name: &str, enabled: bool) -> Result<(), UnknownTarget> {
        self.turn(name, DISABLED, !enabled, |target| {
            if enabled {
                FailoverEvent::TargetEnabled { target }
            } else {
                FailoverEvent::TargetDisabled { target }
            }
        })
    }

    fn turn(
        &self,
        name: &str,
        switch: u32,
        on: bool,
        event: impl FnOnce(Name) -> FailoverEvent,
    ) -> Result<(), UnknownTarget> {
        let mut changed = None;
        self.change(name, |target| {
            changed = target.switch(switch, on).then_some(target.name);
        })?;
        if let Some(target) = changed {
            self.shared.events.tell(|| event(target));
        }
        Ok(())
    }

    fn change(&self, name: &str, change: impl FnOnce(&TargetState)) -> Result<(), UnknownTarget> {
        let changes = self.shared.lock_changes();
        change(&*self.state(name)?);
        self.shared.survey(&changes);
        Ok(())
    }

    fn state(&self, name: &str) -> Result<Arc<TargetState>, UnknownTarget> {
        let roster = self.shared.roster.load();
        let target = roster.find(name).cloned();
        target.ok_or_else(|| UnknownTarget::new(name))
    }
}

impl Snapshot for FailoverHandle {
    fn layer(&self) -> &'static str {
        "failover"
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![
            Figure::counter("failovers", self.failovers()),
            Figure::counter("exhausted", self.exhausted()),
        ];
        let roster = self.shared.roster.load();
        for target in roster
            .targets
            .iter()
            .map(|t| TargetStats::of(&self.shared, t))
        {
            let name = String::from(target.name.as_str());
            let mut push = |figure: Figure| figures.push(figure.label("target", name.clone()));
            push(Figure::gauge(
                "enabled",
                f64::from(u8::from(target.enabled)),
            ));
            push(Figure::gauge(
                "up",
                f64::from(u8::from(target.status == TargetStatus::Up)),
            ));
            // One that is 1, for how it stands and why.
            let mut status = Figure::gauge("status", 1.0).label("status", target.status.as_str());
            if let Some(reason) = target.reason {
                status = status.label("reason", reason.as_str());
            }
            push(status);
            if let TargetStatus::Out { left } = target.status {
                push(Figure::gauge("out_for_seconds", left.as_secs_f64()));
            }
            if let Some(latency) = target.first_token {
                push(Figure::gauge("first_token_seconds", latency.as_secs_f64()));
            }
            push(Figure::counter("ejections", target.ejections));
            push(Figure::counter("incapable", target.incapable));
            push(Figure::counter("calls", target.calls));
            push(Figure::counter("successes", target.successes));
            push(Figure::counter("cancelled", target.cancelled));
            for (kind, count) in target.failures {
                push(Figure::counter("failures", count).label("kind", kind.as_str()));
            }
        }
        figures
    }

    fn health(&self) -> Result<(), String> {
        let roster = self.shared.roster.load();
        let now = self.shared.now();
        if roster.targets.iter().any(|t| t.is_available(now)) {
            Ok(())
        } else if roster.targets.iter().any(|t| t.is_enabled()) {
            Err("every target is out".into())
        } else {
            Err("no target is enabled".into())
        }
    }
}

/// The figures of one target.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetStats {
    /// Its name.
    pub name: Name,
    /// Whether it is asked.
    pub enabled: bool,
    /// How it stands.
    pub status: TargetStatus,
    /// Why it was taken out, until it is up again.
    pub reason: Option<DownReason>,
    /// How often it was taken out.
    pub ejections: u64,
    /// For how many calls it could not do what they need.
    pub incapable: u64,
    /// How long it takes to the first token, where that is measured; it fades.
    pub first_token: Option<Duration>,
    /// How many calls it was given; retries further in are not counted.
    pub calls: u64,
    /// How many of them succeeded, streams to their last chunk.
    pub successes: u64,
    /// How many of them were dropped.
    pub cancelled: u64,
    /// How many of them failed, before the commit point or after it, by kind.
    pub failures: Vec<(ErrorKind, u64)>,
    /// What the last of these failed with.
    pub last_error: Option<LlmError>,
}

impl TargetStats {
    fn of(shared: &Shared, state: &TargetState) -> Self {
        let figures = &state.figures;
        let now = millis(shared.now());
        let first_token = state.first_token.read(now, shared.config.decay);
        Self {
            name: state.name,
            enabled: state.is_enabled(),
            status: TargetStatus::of(shared, state),
            reason: TargetStatus::reason(shared, state),
            ejections: state.ejections.load(Relaxed),
            incapable: state.incapable.load(Relaxed),
            first_token: first_token.map(|ms| Duration::from_secs_f32(ms / 1e3)),
            successes: figures.successes(),
            cancelled: figures.cancelled(),
            failures: figures.failures_by_kind(),
            last_error: figures.last_error(),
            // Read last, so that no more seem to have ended than began.
            calls: figures.calls(),
        }
    }

    /// How many calls failed with `kind`.
    pub fn failed_with(&self, kind: ErrorKind) -> u64 {
        let mut of_kind = self.failures.iter().filter(|(k, _)| *k == kind);
        of_kind.next().map_or(0, |(_, count)| *count)
    }

    /// How many calls failed.
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }

    /// How many calls have not ended.
    pub fn in_flight(&self) -> u64 {
        let ended = self.successes + self.cancelled + self.failed();
        self.calls.saturating_sub(ended)
    }
}

/// Why a target was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownReason {
    /// It failed once too often, the last time with this.
    Failing(ErrorKind),
    /// Too many of its calls failed.
    FailureRate,
    /// It was slow once too often.
    Slow,
    /// Its probes fail.
    Probe,
}

impl DownReason {
    /// The word for it; of a target that is failing, that of its last error.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing(kind) => kind.as_str(),
            Self::FailureRate => "failure_rate",
            Self::Slow => "slow",
            Self::Probe => "probe",
        }
    }
}

/// What happens in a failover.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailoverEvent {
    /// A target failed, and another is asked.
    FailedOver {
        /// The one that failed.
        from: Name,
        /// The one that is asked.
        to: Name,
        /// What it failed with.
        kind: ErrorKind,
    },
    /// No target could serve a call.
    AllFailed {
        /// How many were asked.
        asked: usize,
    },
    /// A target is taken out.
    TargetDown {
        /// The target.
        target: Name,
        /// Why.
        reason: DownReason,
        /// For how long; `None`: until its probes say otherwise.
        out_for: Option<Duration>,
    },
    /// A target that was out works again, and gets more calls by and by.
    FailedBack {
        /// The target.
        target: Name,
    },
    /// A target that was out, or draining, gets all its calls again.
    TargetUp {
        /// The target.
        target: Name,
    },
    /// A target gets no more calls, and ends those that it has.
    Draining {
        /// The target.
        target: Name,
    },
    /// A target was added, or took the place of one of its name.
    TargetAdded {
        /// The target.
        target: Name,
    },
    /// A target was taken away.
    TargetRemoved {
        /// The target.
        target: Name,
    },
    /// A target is asked from now on.
    TargetEnabled {
        /// The target.
        target: Name,
    },
    /// A target is no longer asked.
    TargetDisabled {
        /// The target.
        target: Name,
    },
}
