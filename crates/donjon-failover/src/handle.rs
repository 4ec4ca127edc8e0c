//! The handle: figures, switches, events.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, Release},
};

use donjon_core::{Figure, Listener, Name, Snapshot};

use crate::{
    capability::Capability,
    error::UnknownTarget,
    event::FailoverEvent,
    report::{HealthReport, TargetStatus},
    resume::ResumeWay,
    state::{DISABLED, DRAINING, Shared, TargetState, UNLIMITED},
    stats::TargetStats,
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

    /// How many streams that broke were continued so; one that broke twice counts twice.
    pub fn resumed(&self, way: ResumeWay) -> u64 {
        self.shared.resumed[way as usize].load(Relaxed)
    }

    /// How many streams broke and could not be continued, where resuming is switched on.
    pub fn resume_failed(&self) -> u64 {
        self.shared.resume_failed.load(Relaxed)
    }

    /// How often a target rejected an answer that was begun elsewhere.
    pub fn prefill_rejected(&self) -> u64 {
        self.shared.prefill_rejected.load(Relaxed)
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

    /// Changes [`Target::continues`](crate::Target::continues). A rejected prefill before is forgotten.
    ///
    /// # Errors
    ///
    /// No target has this name.
    pub fn set_continues(&self, name: &str, continues: bool) -> Result<(), UnknownTarget> {
        self.change(name, |target| target.prefill.set(continues))
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
        if self.shared.config.resume.is_some() {
            for way in ResumeWay::ALL {
                let resumed = Figure::counter("resumed", self.resumed(way));
                figures.push(resumed.label("way", way.as_str()));
            }
            figures.push(Figure::counter("resume_failed", self.resume_failed()));
            figures.push(Figure::counter("prefill_rejected", self.prefill_rejected()));
        }
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
