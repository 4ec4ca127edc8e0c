//! The handle: figures, switches, events.

use std::{
    error::Error,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use donjon_core::{ErrorKind, Figure, Listener, LlmError, Name, Snapshot};

use crate::state::{Shared, TargetState};

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
        self.shared.targets.iter().map(TargetStats::of).collect()
    }

    /// The target named `name`.
    pub fn target(&self, name: &str) -> Option<TargetStats> {
        self.state(name).map(TargetStats::of)
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

    fn switch(&self, name: &str, enabled: bool) -> Result<(), UnknownTarget> {
        let state = self.state(name).ok_or_else(|| UnknownTarget(name.into()))?;
        if state.set_enabled(enabled) {
            self.shared.events.tell(|| {
                let target = state.name;
                if enabled {
                    FailoverEvent::TargetEnabled { target }
                } else {
                    FailoverEvent::TargetDisabled { target }
                }
            });
        }
        Ok(())
    }

    fn state(&self, name: &str) -> Option<&TargetState> {
        self.shared.targets.iter().find(|t| &*t.name == name)
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
        for target in self.targets() {
            let name = String::from(target.name.as_str());
            let mut push = |figure: Figure| figures.push(figure.label("target", name.clone()));
            push(Figure::gauge(
                "enabled",
                f64::from(u8::from(target.enabled)),
            ));
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
        if self.shared.targets.iter().any(TargetState::is_enabled) {
            Ok(())
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
    fn of(state: &TargetState) -> Self {
        let figures = &state.figures;
        Self {
            name: state.name,
            enabled: state.is_enabled(),
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

/// No target has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTarget(Box<str>);

impl UnknownTarget {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnknownTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no target is named `{}`", self.0)
    }
}

impl Error for UnknownTarget {}
