//! What budgets show of themselves, and how they are controlled.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use donjon_core::{Events, Figure, Key, NanoUsd, Snapshot};

use crate::{
    account::{Account, Quota},
    books::{Totals, money},
    budgets::Budgets,
    error::{ConfigError, Refusal},
    limit::check_amount,
    period::Period,
    prices::{Price, PriceError, PriceTable},
    report::{self, Advice, Report},
    shared::{ADMITTED, SETTLED, Shared},
    store::{StoreError, entry::Entry},
};

/// What budgets tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetEvent {
    /// A call was refused.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// A soft limit was passed: told once a period.
    SoftLimitPassed {
        /// The name of the limit.
        limit: Arc<str>,
        /// For which key.
        key: Key,
        /// How much it allows.
        amount: NanoUsd,
        /// How much was spent.
        spent: NanoUsd,
    },
    /// A call passed whose price nobody knows.
    Unpriced {
        /// The provider, if it was said.
        provider: Option<Arc<str>>,
        /// The model.
        model: Arc<str>,
    },
    /// What was spent could not be kept; it will be tried again.
    StoreFailed {
        /// Why.
        error: StoreError,
    },
}

/// Reads and controls [`Budgets`].
#[derive(Clone, Debug)]
pub struct BudgetHandle {
    budgets: Budgets,
}

/// How a limit stands for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The name of the limit.
    pub limit: Arc<str>,
    /// For which key.
    pub key: Key,
    /// Whether it refuses.
    pub hard: bool,
    /// In which period.
    pub period: Period,
    /// How much is allowed.
    pub amount: NanoUsd,
    /// What was spent.
    pub spent: NanoUsd,
    /// What is reserved for calls under way; a soft limit reserves nothing.
    pub reserved: NanoUsd,
    /// When the period ends; `None` for a rolling one, which frees itself bit by bit.
    pub resets_at: Option<SystemTime>,
    /// What will have been spent by then if it goes on as in the last quarter to half of an hour, or
    /// since the period began; for a rolling one what was spent in the last.
    pub forecast: NanoUsd,
}

impl Standing {
    /// How much may still be reserved.
    pub fn remaining(&self) -> NanoUsd {
        let rest = self.amount - self.spent - self.reserved;
        rest.max(NanoUsd::ZERO)
    }
}

impl BudgetHandle {
    pub(crate) const fn new(budgets: Budgets) -> Self {
        Self { budgets }
    }

    fn shared(&self) -> &Shared {
        &self.budgets.shared
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<BudgetEvent> {
        &self.shared().events
    }

    /// How every limit stands for every key that has spent something, or is about to.
    pub fn standings(&self) -> Vec<Standing> {
        let now = self.shared().clock.nanos();
        let mut standings = Vec::new();
        for scope in &self.shared().scopes {
            scope.for_each(|account| {
                let all = 0..account.meters.len();
                standings.extend(all.map(|at| standing(account, at, now)));
            });
        }
        standings
    }

    /// How the limit of this name stands for `key`; `None` if there is no such limit. Of a limit without
    /// keys it is always the one state.
    pub fn standing(&self, limit: &str, key: &Key) -> Option<Standing> {
        let (scope, at) = self.shared().quota(limit)?;
        let account = scope.account(key).ok()?;
        Some(standing(&account, at, self.shared().clock.nanos()))
    }

    /// Sets the amount of the limit of this name, for all keys and from now on.
    ///
    /// # Errors
    ///
    /// There is no such limit, or the amount makes no sense.
    pub fn set_limit(&self, limit: &str, amount: NanoUsd) -> Result<(), ConfigError> {
        let amount = check_amount(amount)?;
        let unknown = || ConfigError::UnknownLimit(limit.to_owned());
        let (scope, at) = self.shared().quota(limit).ok_or_else(unknown)?;
        scope.quotas[at].amount.store(amount, Relaxed);
        Ok(())
    }

    /// Forgets what `key` has spent under the limit of this name in the current period. What is reserved for
    /// calls under way stays, and so do the report's figures.
    ///
    /// # Errors
    ///
    /// There is no such limit.
    pub fn reset(&self, limit: &str, key: &Key) -> Result<(), ConfigError> {
        let unknown = || ConfigError::UnknownLimit(limit.to_owned());
        let (scope, at) = self.shared().quota(limit).ok_or_else(unknown)?;
        if let Ok(account) = scope.account(key) {
            let mut entry = Entry::default();
            let shared = self.shared();
            let _one = shared.one_resets();
            account.reset(at, shared.marks, |id, cell, period, amount| {
                entry.limit(id, cell, period, amount.wrapping_neg());
            });
            shared.write_reset(&entry);
        }
        Ok(())
    }

    /// What was spent, by whom and on what, since the report was reset; limits have their own figures.
    pub fn report(&self) -> Report {
        report::of(&self.shared().books)
    }

    /// Sets the report's figures to zero.
    pub fn reset_report(&self) {
        let shared = self.shared();
        let _one = shared.one_resets();
        shared.books.clear(shared.marks, |line, taken| {
            let mut entry = Entry::default();
            entry.line(line.id());
            for (place, amount) in (0..).zip(taken) {
                entry.figure(place, amount.wrapping_neg());
            }
            shared.write_reset(&entry);
        });
    }

    /// What would save money, dearest first, each with the figures behind it.
    pub fn advice(&self) -> Vec<Advice> {
        report::advice(self.shared())
    }

    /// The prices as they are.
    pub fn prices(&self) -> Arc<PriceTable> {
        self.shared().prices()
    }

    /// Puts another list in the place of the one that there is, for calls that begin or end from now on.
    ///
    /// # Errors
    ///
    /// It has less than half as many entries, or none. The old one stays.
    pub fn replace_prices(&self, prices: PriceTable) -> Result<(), PriceError> {
        self.shared().replace_prices(prices)
    }

    /// Sets one price.
    ///
    /// # Errors
    ///
    /// It is less than nothing, or absurd. The old one stays.
    pub fn set_price(&self, provider: &str, model: &str, price: Price) -> Result<(), PriceError> {
        self.shared().set_price(provider, model, price)
    }

    /// Waits until everything that was settled by now is kept. Without a store there is nothing to wait
    /// for.
    ///
    /// # Errors
    ///
    /// It could not be kept. That will be tried again.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let Some(keeper) = &self.budgets.keeper else {
            return Ok(());
        };
        let gone = |_| StoreError::new("the thread that writes is gone");
        keeper.flush().await.map_err(gone)?
    }

    /// How many calls were admitted.
    pub fn admitted(&self) -> u64 {
        self.shared().figures.calls.get(ADMITTED)
    }

    /// How many of these were settled; the others are under way.
    pub fn settled(&self) -> u64 {
        self.shared().figures.calls.get(SETTLED)
    }

    /// How many calls were refused since they might have passed a hard limit.
    pub fn over_budget(&self) -> u64 {
        self.shared().figures.over_budget.load(Relaxed)
    }
}

fn standing(account: &Account, at: usize, now: u64) -> Standing {
    let quota: &Quota = &account.quotas[at];
    let meter = &account.meters[at];
    let slot = quota.calendar.slot(now);
    // In this order: what is spent meanwhile is not taken for reserved.
    let used = meter.used.as_ref().map(|used| used.used(slot));
    let spent = meter.spent.used(slot);
    let rolling = matches!(quota.calendar.period(), Period::Rolling(_));
    let ends = quota.calendar.over_at(slot);
    Standing {
        limit: quota.name.clone(),
        key: account.key.clone(),
        hard: quota.limit.hard,
        period: quota.calendar.period(),
        amount: money(quota.amount.load(Relaxed)),
        spent: money(spent),
        reserved: money(used.map_or(0, |used| used.saturating_sub(spent))),
        resets_at: (!rolling).then(|| UNIX_EPOCH + Duration::from_nanos(ends)),
        forecast: if rolling {
            money(spent)
        } else {
            let (since, before) = meter.pace.since(quota.calendar.began_at(now));
            money(forecast(
                spent,
                spent.saturating_sub(before),
                now.saturating_sub(since),
                ends.saturating_sub(now),
            ))
        },
    }
}

/// `spent`, and as much in the time that is `left` as in the time that has `passed`.
fn forecast(spent: u64, lately: u64, passed: u64, left: u64) -> u64 {
    let more = u128::from(lately) * u128::from(left) / u128::from(passed.max(1));
    spent.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
fn dollars(money: NanoUsd) -> f64 {
    money.nanos() as f64 / 1e9
}

impl Snapshot for BudgetHandle {
    fn layer(&self) -> &'static str {
        "budget"
    }

    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    fn figures(&self) -> Vec<Figure> {
        let shared = self.shared();
        let counts = &shared.figures;
        let refused = |reason: &'static str, count: &std::sync::atomic::AtomicU64| {
            Figure::counter("refused", count.load(Relaxed)).label("reason", reason)
        };
        let mut total = Totals::default();
        shared.books.for_each(|line| total.add(&line.totals()));
        let in_flight = self.admitted().saturating_sub(self.settled());
        let mut figures = vec![
            Figure::counter("admitted", self.admitted()),
            Figure::counter("settled", self.settled()),
            Figure::gauge("in_flight", in_flight as f64),
            refused("over_budget", &counts.over_budget),
            refused("unknown_price", &counts.unknown_price),
            refused("keys", &counts.keys),
            refused("store", &counts.store),
            Figure::counter("unpriced", counts.unpriced.load(Relaxed)),
            Figure::counter("served_unknown", counts.served_unknown.load(Relaxed)),
            Figure::counter("soft_limits_passed", counts.soft_passed.load(Relaxed)),
            Figure::gauge("excess_usd", dollars(money(counts.excess.load(Relaxed)))),
            Figure::gauge("spent_usd", dollars(total.cost)),
            Figure::gauge("lines", shared.books.len() as f64),
            Figure::gauge("prices", shared.prices().len() as f64),
        ];
        if self.budgets.keeper.is_some() {
            figures.push(Figure::counter(
                "store_writes",
                shared.kept.flushes.load(Relaxed),
            ));
            figures.push(Figure::counter(
                "store_failures",
                shared.kept.failures.load(Relaxed),
            ));
            figures.push(Figure::counter(
                "journal_damaged_bytes",
                shared.kept.damaged.load(Relaxed),
            ));
        }
        for scope in &shared.scopes {
            for (at, quota) in scope.quotas.iter().enumerate() {
                let labelled = |figure: Figure| figure.label("limit", quota.name.to_string());
                let amount = dollars(money(quota.amount.load(Relaxed)));
                figures.push(labelled(Figure::gauge("limit_usd", amount)));
                // Of keys there may be thousands: those are for the report.
                if let Ok(account) = scope.account(&Key::Global)
                    && scope.keyed.is_empty()
                {
                    let now = standing(&account, at, shared.clock.nanos());
                    figures.push(labelled(Figure::gauge(
                        "limit_spent_usd",
                        dollars(now.spent),
                    )));
                    figures.push(labelled(Figure::gauge(
                        "limit_reserved_usd",
                        dollars(now.reserved),
                    )));
                    figures.push(labelled(Figure::gauge(
                        "limit_forecast_usd",
                        dollars(now.forecast),
                    )));
                }
            }
        }
        figures
    }

    fn health(&self) -> Result<(), String> {
        if self.shared().kept.failing.load(Relaxed) {
            return Err("what is spent cannot be kept".to_owned());
        }
        Ok(())
    }
}
