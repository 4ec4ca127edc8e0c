//! What a rate limit shows of itself, and how it is controlled.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use donjon_core::{
    Account as Settles, Call, Events, Figure, Key, LlmError, Settlement, Snapshot, Usage,
};

use crate::{
    admit::{Held, Waiter, enqueue},
    error::{Blocker, ConfigError, Reason, Refusal},
    figures::RateLimitEvent,
    limit::{Limit, Weight},
    local::InMemory,
    meter::{Meter, Store},
    policy::Overflow,
    quota::{Need, Quota},
    state::Shared,
    wait::Waiting,
};

/// Reads and controls the state that all clones and services of one [`RateLimitLayer`] share.
///
/// A layer without keys has one state, whatever [`Key`] is asked for.
///
/// [`RateLimitLayer`]: crate::RateLimitLayer
pub struct RateLimitHandle<St: Store = InMemory> {
    shared: Arc<Shared<St>>,
}

/// How a limit stands for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The limit as it was configured. One that is only learned has an amount that is never reached.
    pub limit: Limit,
    /// How much is allowed now: as configured or set since, or what the provider said if that is
    /// less; `None` for a limit that is only learned while nobody told of one.
    pub allowed: Option<u64>,
    /// How much is charged now, that of calls under way included.
    pub used: u64,
}

impl Standing {
    /// How much may still be used now; [`u64::MAX`] where nothing limits.
    pub fn remaining(&self) -> u64 {
        self.allowed
            .map_or(u64::MAX, |allowed| allowed.saturating_sub(self.used))
    }

    /// How much more was used than is allowed.
    pub fn debt(&self) -> u64 {
        self.allowed
            .map_or(0, |allowed| self.used.saturating_sub(allowed))
    }
}

impl<St: Store> RateLimitHandle<St> {
    pub(crate) fn new(shared: Arc<Shared<St>>) -> Self {
        Self { shared }
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<RateLimitEvent> {
        &self.shared.common.events
    }

    /// Charges `weight` to `key` if it fits now and nobody waits.
    ///
    /// # Errors
    ///
    /// Why not, and how long until it would fit.
    pub fn try_acquire(&self, key: &Key, weight: &Weight) -> Result<Acquired<St>, Refusal> {
        let waiter = self.waiter(key, weight)?;
        let now = self.shared.common.clock.now();
        match self.pass(waiter, now) {
            Ok(held) => Ok(Acquired { held }),
            Err(waiter) => {
                let alone = waiter.account.fits_at(&waiter.need, 0, now);
                let (all, before) = waiter.account.queue.behind(&waiter.need);
                let mut refusal = waiter.refusal(Reason::Limit, &alone, now);
                if before > 0 && alone.until.is_some() {
                    // Who waits goes first.
                    let behind = waiter.account.fits_at(&all, before, now);
                    refusal = Refusal {
                        by: Blocker::Queue,
                        ..waiter.refusal(Reason::Limit, &behind, now)
                    };
                }
                self.shared.common.figures.refuse(refusal.reason);
                Err(refusal)
            }
        }
    }

    /// Charges `weight` to `key`, waiting for its turn up to `timeout`, whether calls wait or not.
    ///
    /// # Errors
    ///
    /// As a call is refused, at once if the wait would be too long.
    pub async fn acquire(
        &self,
        key: &Key,
        weight: &Weight,
        timeout: Duration,
    ) -> Result<Acquired<St>, LlmError> {
        let shared = &self.shared;
        let waiter = self.waiter(key, weight).map_err(|r| shared.refuse(r))?;
        let now = shared.common.clock.now();
        let waiter = match self.pass(waiter, now) {
            Ok(held) => return Ok(Acquired { held }),
            Err(waiter) => waiter,
        };
        let mut call = Call::default();
        call.set_timeout(timeout);
        call.begin();
        let ticket = enqueue(shared, &waiter, &call, Overflow::Wait, now);
        let ticket = ticket.map_err(|r| shared.refuse(r))?;
        let mut waiting = Waiting::new(shared.clone(), waiter, ticket, call, now);
        let held = poll_fn(|cx| waiting.poll_turn(cx)).await?;
        Ok(Acquired { held })
    }

    /// How each limit stands for `key`.
    pub fn peek(&self, key: &Key) -> Vec<Standing> {
        let known = match &self.shared.global {
            Some(global) => Some(global.clone()),
            None => self.shared.keys.get(key),
        };
        let now = self.shared.common.clock.now();
        let quotas = self.shared.common.quotas.iter().enumerate();
        let standing = |(at, quota): (usize, &Quota)| Standing {
            limit: quota.limit().clone(),
            allowed: match &known {
                Some(account) => account.meter.allowed(at, now),
                None => (!quota.is_learned()).then(|| quota.capacity()),
            },
            used: known.as_ref().map_or(0, |known| known.meter.used(at, now)),
        };
        quotas.map(standing).collect()
    }

    /// How long until `weight` fits for `key`, behind all who wait now; zero if it does now, `None` if
    /// never.
    pub fn fits_in(&self, key: &Key, weight: &Weight) -> Option<Duration> {
        let waiter = self.waiter(key, weight).ok()?;
        let now = self.shared.common.clock.now();
        waiter.account.fits_at(&waiter.need, 0, now).until?;
        let (all, before) = waiter.account.queue.behind(&waiter.need);
        let until = waiter.account.fits_at(&all, before, now).until?;
        Some(Duration::from_nanos(until.saturating_sub(now)))
    }

    /// Sets the amount of the limit that counts the same over the same window, for all keys and from
    /// now on. A burst that was configured apart grows and shrinks with it; a burst in `limit` says
    /// nothing here.
    ///
    /// # Errors
    ///
    /// There is no such limit, or the amount is zero.
    pub fn set_limit(&self, limit: &Limit) -> Result<(), ConfigError> {
        if limit.amount == 0 {
            return Err(ConfigError::ZeroLimit(limit.unit.clone()));
        }
        let same = |quota: &&Quota| quota.unit() == &limit.unit && quota.window() == limit.window;
        let quota = self.shared.common.quotas.iter().find(same);
        let quota = quota.ok_or_else(|| ConfigError::UnknownLimit(limit.clone()))?;
        quota.set(limit.amount);
        self.shared.for_each(|account| account.queue.wake_first());
        Ok(())
    }

    /// How long the provider still wants to be left alone, if it does.
    pub fn stopped_for(&self, key: &Key) -> Option<Duration> {
        match &self.shared.global {
            Some(global) => global.stopped_for(),
            None => self.shared.keys.get(key)?.stopped_for(),
        }
    }

    /// Forgets that the provider wants to be left alone.
    pub fn resume(&self, key: &Key) {
        match &self.shared.global {
            Some(global) => global.resume(),
            None => {
                if let Some(account) = self.shared.keys.get(key) {
                    account.resume();
                }
            }
        }
    }

    /// How many calls were admitted, those that waited included.
    pub fn admitted(&self) -> u64 {
        self.shared.common.figures.admitted()
    }

    /// How many calls had to wait.
    pub fn waited(&self) -> u64 {
        self.shared.common.figures.waited()
    }

    /// How many calls were refused for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.shared.common.figures.refused(reason)
    }

    /// How many calls wait now.
    pub fn waiting(&self) -> usize {
        let mut waiting = 0;
        self.shared
            .for_each(|account| waiting += account.queue.len());
        waiting
    }

    /// How many keys are known.
    pub fn keys(&self) -> usize {
        self.shared.keys.len() + usize::from(self.shared.global.is_some())
    }

    fn waiter(&self, key: &Key, weight: &Weight) -> Result<Waiter<St::Meter>, Refusal> {
        let account = self.shared.account(key)?;
        let need = self.shared.common.quotas.iter();
        let need: Need = need.map(|quota| weight.of(quota.unit())).collect();
        Ok(Waiter {
            account,
            need,
            input: weight.estimate.input,
        })
    }

    /// Charges it if it fits now and nobody waits.
    #[inline]
    fn pass(
        &self,
        waiter: Waiter<St::Meter>,
        now: u64,
    ) -> Result<Held<St::Meter>, Waiter<St::Meter>> {
        if waiter.account.queue.len() == 0
            && let Ok(charges) = waiter.account.take(&waiter.need, false, now)
        {
            return Ok(Held::new(waiter.account, charges, waiter.input));
        }
        Err(waiter)
    }
}

/// What was charged through a handle. Dropped, it stays charged.
#[must_use = "what was charged can be settled"]
pub struct Acquired<St: Store = InMemory> {
    held: Held<St::Meter>,
}

impl<St: Store> Acquired<St> {
    /// Books what was used instead of what was charged.
    pub fn settle(self, usage: Usage) {
        self.held.settle(Settlement::Actual(usage));
    }

    /// Gives all of it back.
    pub fn refund(self) {
        self.held.settle(Settlement::Nothing);
    }
}

impl<St: Store> fmt::Debug for Acquired<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquired")
            .field("key", self.held.key())
            .finish_non_exhaustive()
    }
}

impl<St: Store> Snapshot for RateLimitHandle<St> {
    fn layer(&self) -> &'static str {
        "rate_limit"
    }

    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    fn figures(&self) -> Vec<Figure> {
        let shared = &self.shared;
        let now = shared.common.clock.now();
        let mut debts = vec![0_u64; shared.common.quotas.all().len()];
        shared.for_each(|account| {
            for (at, debt) in debts.iter_mut().enumerate() {
                let used = account.meter.used(at, now);
                let allowed = account.meter.allowed(at, now).unwrap_or(u64::MAX);
                *debt = debt.saturating_add(used.saturating_sub(allowed));
            }
        });
        let mut figures = vec![
            Figure::counter("admitted", self.admitted()),
            Figure::counter("waited", self.waited()),
            Figure::counter("excess", shared.common.figures.total_excess()),
            Figure::counter("keys_forgotten", shared.keys.evicted()),
            Figure::gauge("keys", self.keys() as f64),
            Figure::gauge("waiting", self.waiting() as f64),
        ];
        for reason in Reason::ALL {
            let count = Figure::counter("refused", self.refused(reason));
            figures.push(count.label("reason", reason.as_str()));
        }
        for (quota, debt) in shared.common.quotas.iter().zip(debts) {
            let labelled = |figure: Figure| {
                let figure = figure.label("unit", quota.unit().name().to_owned());
                figure.label("window", format!("{:?}", quota.window()))
            };
            figures.push(labelled(Figure::gauge("debt", debt as f64)));
            if quota.is_learned() {
                continue;
            }
            figures.push(labelled(Figure::gauge("limit", quota.capacity() as f64)));
            if let Some(global) = &shared.global {
                let at = shared
                    .common
                    .quotas
                    .iter()
                    .position(|q| std::ptr::eq(q, quota));
                let used = at.map_or(0, |at| global.meter.used(at, now));
                figures.push(labelled(Figure::gauge("used", used as f64)));
            }
        }
        figures
    }
}

impl<St: Store> Clone for RateLimitHandle<St> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl<St: Store> fmt::Debug for RateLimitHandle<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitHandle")
            .field("admitted", &self.admitted())
            .field("waited", &self.waited())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
