//! What happens in a failover, told to those who listen.

use std::time::Duration;

use donjon_core::{ErrorKind, Name};

use crate::resume::ResumeWay;

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
    /// A stream that had broken goes on.
    Resumed {
        /// The target whose stream broke.
        from: Name,
        /// The one that goes on.
        to: Name,
        /// What the stream broke with.
        kind: ErrorKind,
        /// How it goes on.
        way: ResumeWay,
    },
    /// A stream broke and could not be continued; the caller was told.
    ResumeFailed {
        /// The target whose stream broke first.
        target: Name,
        /// What it broke with.
        kind: ErrorKind,
        /// How many attempts were made to continue it.
        asked: usize,
    },
    /// A target that was said to continue a begun answer rejected one, and is not asked to for a while.
    PrefillRejected {
        /// The target.
        target: Name,
        /// What it rejected it with.
        kind: ErrorKind,
        /// For how long.
        out_for: Duration,
    },
}
