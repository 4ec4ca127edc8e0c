//! What the services of one layer share, and what is kept for each key.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use donjon_core::{
    ErrorKind, Events, Health, Hints, Idle, Key, KeyBy, Keyed, LimitHint, LlmError, LlmRequest,
    Settlement,
};
use tokio::time::Instant;

use crate::{
    error::{Blocker, Reason, Refusal},
    figures::{Figures, RateLimitEvent},
    limit::Unit,
    meter::{Meter, Obstacle, Obstructs, Store, Told},
    policy::{Classifier, Policy, WhenFull},
    queue::Queue,
    quota::{Need, Quota, Quotas, nanos},
};

/// What a layer and its services share.
pub(crate) struct Shared<St: Store> {
    pub(crate) store: St,
    pub(crate) policy: Policy,
    pub(crate) common: Arc<Common>,
    /// The one state where no keys are kept apart.
    pub(crate) global: Option<Arc<Account<St::Meter>>>,
    pub(crate) keys: Keyed<Account<St::Meter>>,
}

/// What all keys have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) clock: Clock,
    pub(crate) figures: Figures,
    pub(crate) events: Events<RateLimitEvent>,
    classifier: Classifier,
    when_full: WhenFull,
}

/// Counts nanoseconds since the layer was built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        self.of(Instant::now())
    }

    pub(crate) fn of(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.0))
    }

    /// The moment; `None` if it is too far to be told.
    pub(crate) fn at(&self, now: u64) -> Option<Instant> {
        self.0.checked_add(Duration::from_nanos(now))
    }
}

impl<St: Store> Shared<St> {
    pub(crate) fn new(
        store: St,
        quotas: Quotas,
        policy: Policy,
        keys: Keyed<Account<St::Meter>>,
        (classifier, when_full): (Classifier, WhenFull),
    ) -> Self {
        let mut shared = Self {
            store,
            policy,
            common: Arc::new(Common {
                quotas: Arc::new(quotas),
                clock: Clock::start(),
                figures: Figures::default(),
                events: Events::new(256),
                classifier,
                when_full,
            }),
            global: None,
            keys,
        };
        if matches!(shared.policy.key_by, KeyBy::Global) {
            shared.global = Some(Arc::new(shared.open(&Key::Global)));
        }
        shared
    }

    fn open(&self, key: &Key) -> Account<St::Meter> {
        let common = &self.common;
        Account {
            meter: self.store.open(key, &common.quotas, common.clock.now()),
            stopped_until: AtomicU64::new(0),
            queue: Queue::default(),
            common: common.clone(),
            key: key.clone(),
        }
    }

    /// The state that `request` falls under.
    #[inline]
    pub(crate) fn account_of(
        &self,
        request: &LlmRequest,
    ) -> Result<Arc<Account<St::Meter>>, Refusal> {
        match &self.global {
            Some(global) => Ok(global.clone()),
            None => self.account(&self.policy.key_by.key(request)),
        }
    }

    pub(crate) fn account(&self, key: &Key) -> Result<Arc<Account<St::Meter>>, Refusal> {
        if let Some(global) = &self.global {
            return Ok(global.clone());
        }
        let account = self.keys.get_or_make(key, || self.open(key));
        account.map_err(|_| self.no_room(key))
    }

    #[cold]
    fn no_room(&self, key: &Key) -> Refusal {
        let refusal = Refusal {
            reason: Reason::Keys,
            by: Blocker::Keys,
            retry_after: None,
        };
        self.tell_refusal(key, &refusal);
        refusal
    }

    /// Every state there is.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Account<St::Meter>)) {
        if let Some(global) = &self.global {
            each(global);
        }
        self.keys.for_each(|_, account| each(account));
    }

    /// The error of a call that was refused.
    #[cold]
    pub(crate) fn refuse(&self, refusal: Refusal) -> LlmError {
        self.common.figures.refuse(refusal.reason);
        let mut error = LlmError::new(ErrorKind::LimitedLocally, refusal.to_string())
            .with_scope(self.policy.scope);
        if let Some(after) = refusal.retry_after {
            error = error.with_retry_after(after);
        }
        if refusal.reason == Reason::TooLarge {
            error = error.with_should_retry(false);
        }
        error.with_source(refusal)
    }

    pub(crate) fn tell_refusal(&self, key: &Key, refusal: &Refusal) {
        self.common.events.tell(|| RateLimitEvent::Refused {
            key: key.clone(),
            refusal: refusal.clone(),
        });
    }
}

impl<St: Store> fmt::Debug for Shared<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("quotas", &self.common.quotas)
            .field("policy", &self.policy)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What is kept for one key. In this order: what a call looks at stands together, so that one among
/// many keys costs few cache lines.
#[repr(C)]
pub(crate) struct Account<M: Meter> {
    pub(crate) common: Arc<Common>,
    /// Until when the provider wants to be left alone.
    stopped_until: AtomicU64,
    pub(crate) queue: Queue,
    pub(crate) meter: M,
    pub(crate) key: Key,
}

/// What stands in the way of a call, and until when: for ever if `None`.
#[derive(Debug)]
pub(crate) struct Hindrance {
    pub(crate) by: Hinders,
    pub(crate) until: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Hinders {
    Limits(Obstructs),
    Provider,
}

impl<M: Meter> Account<M> {
    /// Charges a call, if nothing stands in the way. Whoever is first in the queue says so.
    #[inline]
    pub(crate) fn take(
        &self,
        need: &Need,
        is_first: bool,
        now: u64,
    ) -> Result<M::Charges, Hindrance> {
        if self.stopped_until.load(Acquire) > now {
            return Err(self.fits_at(need, 0, now));
        }
        match self.meter.reserve(need, now) {
            Ok(charges) => {
                self.common.figures.admit();
                Ok(charges)
            }
            Err(obstacle) => Err(self.hindered(&obstacle, is_first)),
        }
    }

    #[cold]
    fn hindered(&self, obstacle: &Obstacle, is_first: bool) -> Hindrance {
        if obstacle.disturbed && !is_first {
            self.queue.wake_first();
        }
        Hindrance {
            by: Hinders::Limits(obstacle.by),
            until: obstacle.until,
        }
    }

    /// When `need` fits, with `ahead` calls before it that are counted in it.
    pub(crate) fn fits_at(&self, need: &Need, ahead: usize, now: u64) -> Hindrance {
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        let obstacle = self.meter.fits_at(need, ahead, now);
        let stopped = self.stopped_until.load(Acquire);
        match obstacle.until {
            Some(until) if until < stopped => Hindrance {
                by: Hinders::Provider,
                until: Some(stopped),
            },
            until => Hindrance {
                by: Hinders::Limits(obstacle.by),
                until,
            },
        }
    }

    pub(crate) fn blocker(&self, by: Hinders, need: &Need) -> Blocker {
        match by {
            Hinders::Provider => Blocker::Provider,
            Hinders::Limits(Obstructs::Spacing) => Blocker::Spacing,
            Hinders::Limits(Obstructs::Limit(at)) => match self.common.quotas.all().get(at) {
                Some(quota) => Blocker::Limit {
                    limit: quota.limit().clone(),
                    need: need.get(at).copied().unwrap_or_default(),
                    capacity: self
                        .meter
                        .allowed(at, self.common.clock.now())
                        .unwrap_or_else(|| quota.capacity()),
                },
                None => Blocker::Queue,
            },
        }
    }

    /// Books how a call ended. `input` is what its prompt was taken for.
    #[inline]
    pub(crate) fn settle(&self, charges: M::Charges, mut settlement: Settlement, input: u64) {
        if let Settlement::Estimated(usage) = &mut settlement
            && usage.input == 0
        {
            usage.input = input;
        }
        let used = |unit: &Unit| match &settlement {
            Settlement::Nothing => Some(0),
            // The provider has counted the request.
            Settlement::Unbilled => match unit {
                Unit::Requests | Unit::Custom(..) => None,
                Unit::Tokens | Unit::InputTokens | Unit::OutputTokens => Some(0),
            },
            Settlement::Actual(usage) | Settlement::Estimated(usage) => unit.of_usage(usage),
            _ => None,
        };
        let now = || self.common.clock.now();
        let settled = self.meter.settle(charges, used, now);
        if settled.excess > 0 {
            self.common.figures.excess(settled.excess);
        }
        if settled.freed {
            self.queue.wake_first();
        }
    }

    /// Takes in what the provider said of its limits.
    pub(crate) fn learn(&self, hints: &Hints) {
        let (now, received) = (
            self.common.clock.now(),
            self.common.clock.of(hints.received_at),
        );
        for hint in &hints.limits {
            let reset = hint
                .reset
                .map(|reset| received.saturating_add(nanos(reset)));
            for (at, quota) in self.common.quotas.iter().enumerate() {
                if quota.unit().is(hint.unit) && is_meant(hint, quota) {
                    let told = Told {
                        limit: hint.limit,
                        remaining: hint.remaining,
                        reset,
                    };
                    self.meter.learn(at, told, now);
                }
            }
        }
        // A limit may have been raised.
        self.queue.wake_first();
    }

    /// Admits nobody until the server's hint, if `error` says, as it is classified, that it has too much
    /// to do.
    pub(crate) fn stop_for(&self, error: &LlmError) {
        if self.common.classifier.0.classify(error).health != Health::Overload {
            return;
        }
        if let Some(pause) = self.longer_stop(error) {
            self.common.events.tell(|| RateLimitEvent::Stopped {
                key: self.key.clone(),
                pause,
            });
        }
    }

    /// For how long, if that is longer than before.
    fn longer_stop(&self, error: &LlmError) -> Option<Duration> {
        let now = self.common.clock.now();
        let after = error.retry_after().filter(|after| !after.is_zero());
        let until = match (after, error.hints()) {
            (Some(after), _) => now.saturating_add(nanos(after)),
            (None, Some(hints)) => {
                let used_up = hints.limits.iter().filter(|hint| hint.remaining == Some(0));
                let reset = used_up.filter_map(|hint| hint.reset).max()?;
                self.common
                    .clock
                    .of(hints.received_at)
                    .saturating_add(nanos(reset))
            }
            (None, None) => return None,
        };
        let before = self.stopped_until.fetch_max(until, AcqRel);
        (until > before.max(now)).then(|| Duration::from_nanos(until - now))
    }

    /// Forgets that the provider wants to be left alone.
    pub(crate) fn resume(&self) {
        self.stopped_until.store(0, Relaxed);
        self.queue.wake_first();
    }

    pub(crate) fn stopped_for(&self) -> Option<Duration> {
        let left = self
            .stopped_until
            .load(Acquire)
            .checked_sub(self.common.clock.now());
        left.filter(|left| *left > 0).map(Duration::from_nanos)
    }

    fn limits(&self) -> std::ops::Range<usize> {
        0..self.common.quotas.all().len()
    }

    /// Whether nothing but what is charged is kept here.
    fn is_calm(&self, now: u64) -> bool {
        self.queue.len() == 0 && self.stopped_until.load(Acquire) <= now
    }
}

/// Whether a hint is about this limit. Servers seldom say over which time a limit holds; it is a
/// minute then, unless the time in which what is used comes back says otherwise.
fn is_meant(hint: &LimitHint, quota: &Quota) -> bool {
    const MINUTE: Duration = Duration::from_secs(60);
    if let Some(window) = hint.window {
        return window == quota.window();
    }
    if quota.window() == MINUTE {
        return true;
    }
    let (Some(limit), Some(remaining), Some(reset)) = (hint.limit, hint.remaining, hint.reset)
    else {
        return false;
    };
    let Some(used) = limit.checked_sub(remaining).filter(|used| *used > 0) else {
        return false;
    };
    let window = reset.as_nanos().saturating_mul(u128::from(limit)) / u128::from(used);
    let stated = quota.window().as_nanos();
    window >= stated / 2 && window <= stated.saturating_mul(2)
}

/// For [`Keyed`]: what may be forgotten. A call under way holds the state itself.
impl<M: Meter> Idle for Account<M> {
    fn is_idle(&self) -> bool {
        let now = self.common.clock.now();
        self.is_calm(now) && self.limits().all(|at| self.meter.used(at, now) == 0)
    }

    fn may_be_forgotten(&self) -> bool {
        let now = self.common.clock.now();
        let is_low = |at| match self.meter.allowed(at, now) {
            Some(allowed) => self.meter.used(at, now) <= allowed / 2,
            None => true,
        };
        self.common.when_full == WhenFull::Forget && self.is_calm(now) && self.limits().all(is_low)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
