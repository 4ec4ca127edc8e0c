//! What all clones of a failover share: its targets, how they stand, what it decides by.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use donjon_core::{Classify, DefaultTable, Disposition, ErrorKind, Events, LlmError, Name};
use tokio::time::Instant;

use crate::{
    capability::{Capability, EVERYTHING, Needs},
    event::FailoverEvent,
    ewma::PeakEwma,
    figures::Figures,
    health::{Gate, HealthPolicy, History, Standing, Status, nanos},
    probe::Probe,
    resume::{Prefills, Resume, ResumeWay},
    route::{Route, text_hash},
    target::{Models, Target, WhenOut},
};

/// How many events are kept for the slowest listener.
const EVENTS: usize = 256;

/// What a failover decides by.
pub(crate) struct Config {
    pub(crate) patience: Duration,
    pub(crate) classify: Box<dyn Classify>,
    /// `None`: as they were configured.
    pub(crate) route: Option<Box<dyn Route>>,
    pub(crate) health: Option<HealthPolicy>,
    pub(crate) when_out: WhenOut,
    /// Over how long a latency fades.
    pub(crate) decay: Duration,
    pub(crate) resume: Option<Resume>,
}

/// What all clones of a failover share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Whether calls in progress are counted for every target.
    pub(crate) counts_load: bool,
    /// Whether it matters how long calls take.
    pub(crate) measures: bool,
    /// Times count from here.
    epoch: Instant,
    /// The targets that new calls choose from.
    pub(crate) roster: ArcSwap<Roster>,
    pub(crate) events: Events<FailoverEvent>,
    /// How often another target was asked after one failed.
    pub(crate) failovers: AtomicU64,
    /// How many calls every target failed.
    pub(crate) exhausted: AtomicU64,
    /// How many streams were continued, by the way.
    pub(crate) resumed: [AtomicU64; ResumeWay::ALL.len()],
    /// How many streams broke and could not be continued.
    pub(crate) resume_failed: AtomicU64,
    pub(crate) prefill_rejected: AtomicU64,
    /// Held while the standing or a switch of a target changes, never on the way of a call that works.
    changes: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(config: Config, roster: Arc<Roster>) -> Self {
        let route = config.route.as_ref();
        let slow = config.health.as_ref().is_some_and(HealthPolicy::measures);
        Self {
            counts_load: route.is_some_and(|route| route.uses_load()),
            measures: slow || route.is_some_and(|route| route.uses_latency()),
            config,
            epoch: Instant::now(),
            roster: ArcSwap::new(roster),
            events: Events::new(EVENTS),
            failovers: AtomicU64::new(0),
            exhausted: AtomicU64::new(0),
            resumed: Default::default(),
            resume_failed: AtomicU64::new(0),
            prefill_rejected: AtomicU64::new(0),
            changes: Mutex::new(()),
        }
    }

    /// Nanoseconds since it was made.
    pub(crate) fn now(&self) -> u64 {
        self.nanos_at(Instant::now())
    }

    pub(crate) fn nanos_at(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.epoch))
    }

    pub(crate) fn lock_changes(&self) -> MutexGuard<'_, ()> {
        lock(&self.changes)
    }

    /// Over how long a target returns.
    pub(crate) fn ramp(&self) -> Duration {
        let policy = self.config.health.as_ref();
        policy.map_or(HealthPolicy::new().return_over, |policy| policy.return_over)
    }

    /// Makes a change of how a target stands known to calls.
    pub(crate) fn survey(&self, _changes: &MutexGuard<'_, ()>) {
        self.roster.load().survey();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("targets", &self.roster.load().targets)
            .field("patience", &self.config.patience)
            .finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Core's table, but for a target that is a failover itself: that none of its targets could serve is
/// final for whoever called it, and to the failover around it just one target that failed.
pub(crate) fn group_table(error: &LlmError) -> Disposition {
    let mut row = DefaultTable.classify(error);
    row.failover |= error.kind() == ErrorKind::AllTargetsFailed;
    row
}

/// The targets at one moment. It does not change but in what is known of them.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) targets: Box<[Arc<TargetState>]>,
    /// Whether all targets are alike as far as asking them goes, so that nobody needs to look at each.
    plain: AtomicBool,
}

impl Roster {
    pub(crate) fn new(targets: impl IntoIterator<Item = Arc<TargetState>>) -> Self {
        let roster = Self {
            targets: targets.into_iter().collect(),
            plain: AtomicBool::new(false),
        };
        roster.survey();
        roster
    }

    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.plain.load(Acquire)
    }

    /// Others took its place: whoever still has it looks at each target.
    pub(crate) fn retire(&self) {
        self.plain.store(false, Release);
    }

    fn survey(&self) {
        // Where all were taken away, there is nobody to ask at once.
        let first = self.targets.first().map(|t| t.priority.load(Acquire));
        let alike = |t: &Arc<TargetState>| t.is_plain() && Some(t.priority.load(Acquire)) == first;
        let plain = first.is_some() && self.targets.iter().all(alike);
        self.plain.store(plain, Release);
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<TargetState>> {
        self.targets.iter().find(|target| &*target.name == name)
    }
}

/// One target, without its service. What is looked at for each of hundreds of targets comes first, on a
/// cache line of its own.
#[repr(C, align(64))]
pub(crate) struct TargetState {
    pub(crate) weight: AtomicU32,
    in_flight: AtomicU32,
    /// What it is owed, in weights: see [`Weighted`](crate::Weighted).
    pub(crate) credit: AtomicI64,
    /// Of its name, the same in every process.
    pub(crate) hash: u64,
    switches: AtomicU32,
    pub(crate) priority: AtomicU32,
    /// [`UNLIMITED`]: none.
    pub(crate) cap: AtomicU32,
    /// What it can do, as bits.
    abilities: AtomicU32,
    pub(crate) gate: Gate,
    /// `u64::MAX`: unknown.
    context_window: AtomicU64,
    pub(crate) first_token: PeakEwma,
    pub(crate) answer: PeakEwma,
    pub(crate) name: Name,
    /// Faults since the last success.
    pub(crate) streak: AtomicU32,
    pub(crate) figures: Figures,
    pub(crate) models: Models,
    pub(crate) probe: Option<Arc<dyn Probe>>,
    pub(crate) history: Mutex<History>,
    /// Successes that are faults, since they came late.
    pub(crate) late: AtomicU64,
    pub(crate) ejections: AtomicU64,
    /// Calls for which it could not do what they need.
    pub(crate) incapable: AtomicU64,
    /// When it is probed next.
    pub(crate) next_probe: AtomicU64,
    pub(crate) prefill: Prefills,
}

/// No cap.
pub(crate) const UNLIMITED: u32 = u32::MAX;

/// Why a target is not asked, whatever its health.
pub(crate) const DISABLED: u32 = 1;
pub(crate) const DRAINING: u32 = 2;
pub(crate) const REMOVED: u32 = 4;
/// Its probes fail.
pub(crate) const DOWN: u32 = 8;

/// How a target looks to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    /// It may be asked; on trial it is one call at a time that may.
    Ready { trial: bool },
    /// It may be asked if nobody else can: it is just coming back.
    Held,
    /// It is thought to fail until then.
    Out { until: u64 },
    /// It is not asked.
    Not(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Disabled,
    Draining,
    Removed,
    Full,
    Lacks(Capability),
    TooLong,
}

impl TargetState {
    pub(crate) fn of<S>(target: &Target<S>) -> Self {
        Self {
            name: target.name,
            hash: text_hash(&target.name),
            models: target.models.clone(),
            probe: target.probe.clone(),
            switches: AtomicU32::new(if target.enabled { 0 } else { DISABLED }),
            priority: AtomicU32::new(target.priority),
            weight: AtomicU32::new(target.weight),
            cap: AtomicU32::new(target.cap.unwrap_or(UNLIMITED)),
            abilities: AtomicU32::new(target.abilities),
            context_window: AtomicU64::new(target.context_window.unwrap_or(u64::MAX)),
            in_flight: AtomicU32::new(0),
            credit: AtomicI64::new(0),
            gate: Gate::default(),
            streak: AtomicU32::new(0),
            history: Mutex::default(),
            late: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            incapable: AtomicU64::new(0),
            next_probe: AtomicU64::new(0),
            prefill: Prefills::new(target.continues),
            first_token: PeakEwma::default(),
            answer: PeakEwma::default(),
            figures: Figures::default(),
        }
    }

    pub(crate) fn has(&self, switch: u32) -> bool {
        self.switches.load(Acquire) & switch != 0
    }

    pub(crate) fn is_enabled(&self) -> bool {
        !self.has(DISABLED | DRAINING | REMOVED)
    }

    /// Turns a switch; whether that changed anything.
    pub(crate) fn switch(&self, switch: u32, on: bool) -> bool {
        let before = if on {
            self.switches.fetch_or(switch, AcqRel)
        } else {
            self.switches.fetch_and(!switch, AcqRel)
        };
        (before & switch != 0) != on
    }

    pub(crate) fn set_ability(&self, capability: Capability, able: bool) {
        if able {
            self.abilities.fetch_or(capability.bit(), AcqRel);
        } else {
            self.abilities.fetch_and(!capability.bit(), AcqRel);
        }
    }

    pub(crate) fn has_ability(&self, capability: Capability) -> bool {
        self.abilities.load(Acquire) & capability.bit() != 0
    }

    pub(crate) fn set_context_window(&self, tokens: Option<u64>) {
        self.context_window
            .store(tokens.unwrap_or(u64::MAX), Release);
    }

    /// Whether it may be asked by whomever.
    fn is_plain(&self) -> bool {
        self.switches.load(Acquire) == 0
            && self.cap.load(Acquire) == UNLIMITED
            && self.abilities.load(Acquire) == EVERYTHING
            && self.context_window.load(Acquire) == u64::MAX
            && self.gate.standing() == Standing::Up
    }

    /// How it looks to a call that needs `needs`. A target that returns lets a share of them through.
    pub(crate) fn look(&self, needs: Needs, now: u64, ramp: Duration) -> Look {
        if let Some(why) = self.why_not(needs) {
            return Look::Not(why);
        }
        if self.has(DOWN) {
            let until = self.next_probe.load(Acquire).max(now);
            return Look::Out { until };
        }
        match self.gate.standing().at(now, ramp) {
            Status::Up => Look::Ready { trial: false },
            Status::Out { until } => Look::Out { until },
            Status::Trial if self.gate.is_on_trial() => Look::Held,
            Status::Trial => Look::Ready { trial: true },
            Status::Returning { share } if self.gate.passes(share) => Look::Ready { trial: false },
            Status::Returning { .. } => Look::Held,
        }
    }

    /// Why it is not asked, its health apart.
    pub(crate) fn why_not(&self, needs: Needs) -> Option<Why> {
        let switches = self.switches.load(Acquire);
        let lacks = needs.abilities & !self.abilities.load(Acquire);
        if switches & REMOVED != 0 {
            Some(Why::Removed)
        } else if switches & DISABLED != 0 {
            Some(Why::Disabled)
        } else if switches & DRAINING != 0 {
            Some(Why::Draining)
        } else if let Some(capability) = Capability::first_of(lacks) {
            Some(Why::Lacks(capability))
        } else if needs.tokens > self.context_window.load(Acquire) {
            Some(Why::TooLong)
        } else if self.in_flight.load(Acquire) >= self.cap.load(Acquire) {
            Some(Why::Full)
        } else {
            None
        }
    }

    /// Calls in progress, where they are counted.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        self.in_flight.load(Acquire)
    }

    /// Takes a place among the calls in progress, if there is one.
    pub(crate) fn enter(&self) -> bool {
        let cap = self.cap.load(Acquire);
        if cap == UNLIMITED {
            self.in_flight.fetch_add(1, AcqRel);
            return true;
        }
        let add = |now: u32| (now < cap).then_some(now + 1);
        self.in_flight.fetch_update(AcqRel, Acquire, add).is_ok()
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, AcqRel);
    }

    /// Whether nobody is asked but for health, and so how it stands for `/health`.
    pub(crate) fn is_available(&self, now: u64) -> bool {
        // How it returns does not matter here.
        let status = self.gate.standing().at(now, Duration::ZERO);
        self.is_enabled() && !self.has(DOWN) && !matches!(status, Status::Out { .. })
    }
}

impl fmt::Debug for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("enabled", &self.is_enabled())
            .field("calls", &self.figures.calls())
            .finish_non_exhaustive()
    }
}
