//! How the targets stand, for `/health`.

use std::{fmt, time::Duration};

use donjon_core::{LlmError, Name};

use crate::{
    event::DownReason,
    health::Status,
    state::{DISABLED, DOWN, DRAINING, REMOVED, Shared, TargetState, lock},
};

/// How a target stands.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TargetStatus {
    /// It is asked.
    Up,
    /// It is switched off, or was taken away.
    Disabled,
    /// It ends the calls that it has.
    Draining,
    /// It failed too often, and is left alone for so long.
    Out {
        /// For how long.
        left: Duration,
    },
    /// Its probes fail.
    Down,
    /// Its time out is over, and the next call finds out whether it works.
    Trial,
    /// It works again, and gets this share of its calls.
    Returning {
        /// From 0 to 1.
        share: f64,
    },
}

impl TargetStatus {
    pub(crate) fn of(shared: &Shared, target: &TargetState) -> Self {
        if target.has(DISABLED | REMOVED) {
            return Self::Disabled;
        }
        if target.has(DRAINING) {
            return Self::Draining;
        }
        if target.has(DOWN) {
            return Self::Down;
        }
        let now = shared.now();
        match target.gate.standing().at(now, shared.ramp()) {
            Status::Up => Self::Up,
            Status::Out { until } => Self::Out {
                left: Duration::from_nanos(until.saturating_sub(now)),
            },
            Status::Trial => Self::Trial,
            Status::Returning { share } => Self::Returning { share },
        }
    }

    /// Why a target was taken out, if it is not up again.
    pub(crate) fn reason(shared: &Shared, target: &TargetState) -> Option<DownReason> {
        match Self::of(shared, target) {
            Self::Up | Self::Disabled | Self::Draining => None,
            _ => lock(&target.history).reason,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Disabled => "disabled",
            Self::Draining => "draining",
            Self::Out { .. } => "out",
            Self::Down => "down",
            Self::Trial => "trial",
            Self::Returning { .. } => "returning",
        }
    }
}

impl fmt::Display for TargetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Disabled => f.write_str("disabled"),
            Self::Draining => f.write_str("draining"),
            Self::Out { left } => write!(f, "out for {:.1} s", left.as_secs_f64()),
            Self::Down => f.write_str("down"),
            Self::Trial => f.write_str("on trial"),
            Self::Returning { share } => write!(f, "returning, {:.0} %", share * 100.0),
        }
    }
}

/// How one target stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetHealth {
    /// Its name.
    pub name: Name,
    /// How it stands.
    pub status: TargetStatus,
    /// Why it was taken out, until it is up again.
    pub reason: Option<DownReason>,
    /// What the last of its calls that failed failed with.
    pub last_error: Option<LlmError>,
}

/// How all targets stand, as configured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HealthReport {
    /// The targets.
    pub targets: Vec<TargetHealth>,
}

impl HealthReport {
    pub(crate) fn of(shared: &Shared) -> Self {
        let roster = shared.roster.load();
        let health = |target: &TargetState| TargetHealth {
            name: target.name,
            status: TargetStatus::of(shared, target),
            reason: TargetStatus::reason(shared, target),
            last_error: target.figures.last_error(),
        };
        Self {
            targets: roster.targets.iter().map(|t| health(t)).collect(),
        }
    }

    /// Whether every target is up that is not switched off.
    pub fn is_whole(&self) -> bool {
        let mut targets = self.targets.iter();
        targets.all(|t| matches!(t.status, TargetStatus::Up | TargetStatus::Disabled))
    }

    /// Whether some target is asked.
    pub fn is_serving(&self) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| {
            matches!(
                target.status,
                TargetStatus::Up | TargetStatus::Trial | TargetStatus::Returning { .. }
            )
        })
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, target) in self.targets.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {}", target.name, target.status)?;
        }
        Ok(())
    }
}
