//! What a retry layer shows of itself.

use std::{
    array, fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{Counts, ErrorKind, Events, Figure, Snapshot};
use tokio::time::Instant;

use crate::{bucket::Withdrawal, budget::RetryBudget, policy::GiveUp, rate::RateControl};

/// Reads and controls the state that all clones and services of one [`RetryLayer`] share.
///
/// [`RetryLayer`]: crate::RetryLayer
#[derive(Clone)]
pub struct RetryHandle {
    state: Arc<State>,
}

/// What a retry layer tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryEvent {
    /// An attempt failed, and there will be another one.
    Retrying {
        /// What it failed with.
        kind: ErrorKind,
        /// How many attempts the target has had so far in this call.
        attempts: u32,
        /// How long until the next one.
        wait: Duration,
        /// Whether the server asked for this wait.
        hinted: bool,
    },
    /// An attempt failed, and its error was handed on.
    GaveUp {
        /// What it failed with.
        kind: ErrorKind,
        /// How many attempts the target has had in this call.
        attempts: u32,
        /// Why there is no other one.
        reason: GiveUp,
    },
    /// A retry succeeded.
    Recovered {
        /// How many attempts it took.
        attempts: u32,
    },
}

impl RetryHandle {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<RetryEvent> {
        &self.state.events
    }

    /// The budget of retries.
    pub fn budget(&self) -> &RetryBudget {
        &self.state.budget
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.state.calls.get(0)
    }

    /// How many attempts were made: the first of each call, unless the adaptive mode refused it or
    /// holds it back, and the retries.
    pub fn attempts(&self) -> u64 {
        let withheld = self.state.withheld.load(Relaxed);
        // Figures are read one after the other, while calls come and go.
        (self.calls() + self.retries()).saturating_sub(withheld)
    }

    /// How many retries were made after errors of any kind.
    pub fn retries(&self) -> u64 {
        self.state.retries.iter().map(|n| n.load(Relaxed)).sum()
    }

    /// How many retries were made after errors of `kind`.
    pub fn retries_after(&self, kind: ErrorKind) -> u64 {
        slot(ErrorKind::ALL, kind).map_or(0, |at| self.state.retries[at].load(Relaxed))
    }

    /// How many errors were handed on for `reason`.
    pub fn gave_up(&self, reason: GiveUp) -> u64 {
        slot(GiveUp::ALL, reason).map_or(0, |at| self.state.gave_up[at].load(Relaxed))
    }

    /// How many calls succeeded by a retry.
    pub fn recovered(&self) -> u64 {
        self.state.recovered.load(Relaxed)
    }

    /// How many calls wait now for their next attempt.
    pub fn parked(&self) -> usize {
        self.state.parked.load(Relaxed)
    }

    /// Switches retries on or off; they are on in the beginning. Calls that wait already go on.
    pub fn set_enabled(&self, enabled: bool) {
        self.state.disabled.store(!enabled, Relaxed);
    }

    /// Whether retries are on.
    pub fn is_enabled(&self) -> bool {
        !self.state.disabled.load(Relaxed)
    }
}

impl Snapshot for RetryHandle {
    fn layer(&self) -> &'static str {
        "retry"
    }

    fn figures(&self) -> Vec<Figure> {
        let state = &self.state;
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
        let parked = self.parked() as f64;
        let mut figures = vec![
            Figure::counter("calls", self.calls()),
            Figure::counter("attempts", self.attempts()),
            Figure::counter("recovered", self.recovered()),
            Figure::gauge("parked", parked),
        ];
        let balance = state.budget.balance();
        if balance.is_finite() {
            figures.push(Figure::gauge("budget_balance", balance));
        }
        if let Some(rate) = &state.rate
            && rate.is_engaged()
        {
            figures.push(Figure::gauge("attempts_per_second_limit", rate.rate()));
        }
        for (kind, count) in ErrorKind::ALL.iter().zip(&state.retries) {
            let count = count.load(Relaxed);
            if count > 0 {
                figures.push(Figure::counter("retries", count).label("error", kind.as_str()));
            }
        }
        for (reason, count) in GiveUp::ALL.iter().zip(&state.gave_up) {
            let count = Figure::counter("gave_up", count.load(Relaxed));
            figures.push(count.label("reason", reason.as_str()));
        }
        figures
    }
}

impl fmt::Debug for RetryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryHandle")
            .field("calls", &self.calls())
            .field("retries", &self.retries())
            .field("parked", &self.parked())
            .finish_non_exhaustive()
    }
}

/// The state behind a layer.
pub(crate) struct State {
    pub(crate) budget: RetryBudget,
    pub(crate) rate: Option<RateControl>,
    epoch: Instant,
    /// Others may pay into the budget, so what was paid into it does not say how many.
    calls: Counts<1>,
    /// Calls whose first attempt was refused, left, or is held back.
    withheld: AtomicU64,
    recovered: AtomicU64,
    parked: AtomicUsize,
    disabled: AtomicBool,
    retries: [AtomicU64; ErrorKind::ALL.len()],
    gave_up: [AtomicU64; GiveUp::ALL.len()],
    events: Events<RetryEvent>,
}

impl State {
    pub(crate) fn new(budget: Option<RetryBudget>, adaptive: bool) -> Self {
        Self {
            calls: Counts::new(),
            withheld: AtomicU64::new(0),
            budget: budget.unwrap_or_default(),
            rate: adaptive.then(RateControl::default),
            epoch: Instant::now(),
            recovered: AtomicU64::new(0),
            parked: AtomicUsize::new(0),
            disabled: AtomicBool::new(false),
            retries: array::from_fn(|_| AtomicU64::new(0)),
            gave_up: array::from_fn(|_| AtomicU64::new(0)),
            events: Events::new(256),
        }
    }

    /// A moment as the rate control counts it.
    pub(crate) fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.disabled.load(Relaxed)
    }

    pub(crate) fn begin(&self, pays: bool) {
        self.calls.add(0, 1);
        if pays {
            self.budget.deposit();
        }
    }

    /// The first attempt of a call is not made yet, if ever.
    pub(crate) fn withhold(&self) {
        self.withheld.fetch_add(1, Relaxed);
    }

    pub(crate) fn recover(&self, attempts: u32) {
        self.recovered.fetch_add(1, Relaxed);
        self.events.tell(|| RetryEvent::Recovered { attempts });
    }

    pub(crate) fn give_up(&self, kind: ErrorKind, attempts: u32, reason: GiveUp) {
        if let Some(at) = slot(GiveUp::ALL, reason) {
            self.gave_up[at].fetch_add(1, Relaxed);
        }
        self.events.tell(|| RetryEvent::GaveUp {
            kind,
            attempts,
            reason,
        });
    }

    pub(crate) fn tell_retry(&self, kind: ErrorKind, attempts: u32, wait: Duration, hinted: bool) {
        self.events.tell(|| RetryEvent::Retrying {
            kind,
            attempts,
            wait,
            hinted,
        });
    }

    /// Takes one of `most` places to wait in, if one is free.
    pub(crate) fn park(self: &Arc<Self>, most: usize) -> Result<Parked, GiveUp> {
        self.parked
            .fetch_update(Relaxed, Relaxed, |parked| {
                (parked < most).then_some(parked + 1)
            })
            .map_err(|_| GiveUp::Parked)?;
        Ok(Parked {
            state: self.clone(),
            withdrawn: None,
            turn: false,
            first: false,
        })
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// The place of a call that waits for its next attempt, with the retry that was withdrawn for it
/// and its turn at the rate control. A call that is dropped meanwhile gives all of it back.
pub(crate) struct Parked {
    state: Arc<State>,
    withdrawn: Option<(ErrorKind, Withdrawal)>,
    turn: bool,
    first: bool,
}

impl Parked {
    /// Takes the turn of an attempt at the rate control, and says how long it must wait for it.
    pub(crate) fn take_turn(&mut self, now: Instant) -> Duration {
        let Some(rate) = &self.state.rate else {
            return Duration::ZERO;
        };
        self.turn = true;
        rate.acquire(self.state.since_epoch(now))
    }

    /// Waits for the first attempt of a call, whose turn was taken already.
    pub(crate) fn wait_for_first(&mut self) {
        self.turn = true;
        self.first = true;
    }

    /// Withdraws a retry after an error of `kind` from the budget.
    pub(crate) fn withdraw(&mut self, kind: ErrorKind, now: Instant) -> Result<(), GiveUp> {
        let withdrawal = self.state.budget.withdraw(now).ok_or(GiveUp::Budget)?;
        self.withdrawn = Some((kind, withdrawal));
        Ok(())
    }

    /// The wait is over and the attempt is made.
    pub(crate) fn leave(mut self) {
        self.turn = false;
        if self.first {
            self.state.withheld.fetch_sub(1, Relaxed);
        }
        if let Some((kind, _)) = self.withdrawn.take()
            && let Some(at) = slot(ErrorKind::ALL, kind)
        {
            self.state.retries[at].fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.state.parked.fetch_sub(1, Relaxed);
        if let Some((_, withdrawal)) = self.withdrawn {
            self.state.budget.refund(withdrawal);
        }
        if self.turn
            && let Some(rate) = &self.state.rate
        {
            rate.give_back();
        }
    }
}

fn slot<T: PartialEq>(all: &[T], one: T) -> Option<usize> {
    all.iter().position(|other| *other == one)
}
