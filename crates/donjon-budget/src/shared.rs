//! What all layers and handles of one [`Budgets`](crate::Budgets) share.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use arc_swap::{ArcSwap, Guard};
use donjon_core::{Counts, ErrorKind, Events, LlmError, NanoUsd, Scope as Concerns};
use std::time::Duration;

use crate::{
    account::{Account, Obstacle, Scope},
    advice::Repeats,
    books::{Books, Line, Priced, money},
    bound::Defaults,
    budgets::UnknownPrice,
    clock::Clock,
    error::Refusal,
    handle::BudgetEvent,
    prices::{Price, PriceError, PriceTable},
    store::{
        entry::Entry,
        journal::Ink,
        keeper::{Kept, WhenUnkept},
    },
};

/// All of it.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<Core>,
    pub(crate) books: Books,
}

impl std::ops::Deref for Shared {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// All but the books, whose lines hold it.
#[derive(Debug)]
pub(crate) struct Core {
    shared: OnceLock<Weak<Shared>>,
    pub(crate) scopes: Box<[Scope]>,
    prices: ArcSwap<PriceTable>,
    /// The version of the list; the first is 1.
    version: AtomicU64,
    pub(crate) clock: Clock,
    pub(crate) unknown: UnknownPrice,
    pub(crate) defaults: Defaults,
    pub(crate) repeats: Option<Repeats>,
    pub(crate) when_unkept: WhenUnkept,
    pub(crate) kept: Kept,
    /// Writes settlements down; `None` without a journal.
    pub(crate) ink: Option<Ink>,
    /// Whether somebody asks what changed: there is a store without a journal.
    pub(crate) marks: bool,
    resets: Mutex<()>,
    pub(crate) figures: Figures,
    pub(crate) events: Events<BudgetEvent>,
}

/// What is counted for all.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Admitted, and settled.
    pub(crate) calls: Counts<2>,
    pub(crate) over_budget: AtomicU64,
    pub(crate) unknown_price: AtomicU64,
    pub(crate) keys: AtomicU64,
    pub(crate) store: AtomicU64,
    /// Passed although nobody knows the price.
    pub(crate) unpriced: AtomicU64,
    /// Served by a model of unknown price, and settled at the price of the one that was asked.
    pub(crate) served_unknown: AtomicU64,
    /// Used more than was reserved.
    pub(crate) excess: AtomicU64,
    pub(crate) soft_passed: AtomicU64,
}

pub(crate) const ADMITTED: usize = 0;
pub(crate) const SETTLED: usize = 1;

impl Shared {
    pub(crate) fn new(core: Core, max_lines: usize, tags: Vec<Arc<str>>) -> Arc<Self> {
        let core = Arc::new(core);
        let books = Books::new(core.clone(), max_lines, tags);
        let shared = Arc::new(Self { core, books });
        // It is set here alone.
        let _ = shared.core.shared.set(Arc::downgrade(&shared));
        shared
    }
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "the builder alone calls it")]
    pub(crate) fn new(
        scopes: Box<[Scope]>,
        prices: PriceTable,
        clock: Clock,
        unknown: UnknownPrice,
        defaults: Defaults,
        repeats: Option<Repeats>,
        when_unkept: WhenUnkept,
        ink: Option<Ink>,
        marks: bool,
    ) -> Self {
        Self {
            shared: OnceLock::new(),
            scopes,
            prices: ArcSwap::from_pointee(prices),
            version: AtomicU64::new(1),
            clock,
            unknown,
            defaults,
            repeats,
            when_unkept,
            kept: Kept::default(),
            ink,
            marks,
            resets: Mutex::default(),
            figures: Figures::default(),
            events: Events::new(256),
        }
    }

    /// All of it, with the books, as long as the budgets are there.
    pub(crate) fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.get()?.upgrade()
    }

    /// The price of a line, as the list has it now.
    #[inline]
    pub(crate) fn price_of(&self, line: &Line) -> Guard<Arc<Priced>> {
        let version = self.version.load(Acquire);
        line.price(version, || {
            let provider = line.key.provider.as_ref().map(|name| name.as_str());
            let prices = self.prices.load();
            let price = prices.find(provider, &line.key.model).cloned();
            let price = price.or_else(|| match &self.unknown {
                UnknownPrice::Assume(price) => Some(price.clone()),
                _ => None,
            });
            Priced { version, price }
        })
    }

    /// The limit of this name: its scope, and its place there.
    pub(crate) fn quota(&self, name: &str) -> Option<(&Scope, usize)> {
        self.scopes.iter().find_map(|scope| {
            let mut quotas = scope.quotas.iter();
            let at = quotas.position(|quota| *quota.name == *name)?;
            Some((scope, at))
        })
    }

    pub(crate) fn prices(&self) -> Arc<PriceTable> {
        self.prices.load_full()
    }

    /// Puts another list in the place of the one that there is.
    pub(crate) fn replace_prices(&self, prices: PriceTable) -> Result<(), PriceError> {
        prices.may_replace(&self.prices.load())?;
        self.prices.store(Arc::new(prices));
        // Who sees the new version finds the new list.
        self.version.fetch_add(1, Release);
        Ok(())
    }

    pub(crate) fn set_price(
        &self,
        provider: &str,
        model: &str,
        price: Price,
    ) -> Result<(), PriceError> {
        let mut checked = PriceTable::empty();
        checked.set(provider, model, price.clone())?;
        self.prices.rcu(|prices| {
            let mut prices = PriceTable::clone(prices);
            match prices.set(provider, model, price.clone()) {
                Ok(()) => prices,
                Err(_) => unreachable!("it was checked"),
            }
        });
        self.version.fetch_add(1, Release);
        Ok(())
    }

    /// Writes down what is about to be counted. Where that fails it is told once, and kept another way.
    pub(crate) fn write_down(&self, ink: &Ink, entry: &Entry) {
        if let Err(error) = ink.write(entry)
            && self.kept.failed()
        {
            self.events.tell(|| BudgetEvent::StoreFailed { error });
        }
    }

    /// Writes down what a reset has taken off.
    pub(crate) fn write_reset(&self, entry: &Entry) {
        if let Some(ink) = &self.ink {
            self.write_down(ink, entry);
        }
    }

    /// Two resets at once would take the same amount off twice.
    pub(crate) fn one_resets(&self) -> MutexGuard<'_, ()> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a call that was refused.
    #[cold]
    pub(crate) fn refuse(&self, refusal: Refusal, concerns: Concerns) -> LlmError {
        let count = match &refusal {
            Refusal::OverBudget { .. } => &self.figures.over_budget,
            Refusal::UnknownPrice { .. } => &self.figures.unknown_price,
            Refusal::Keys { .. } => &self.figures.keys,
            Refusal::Store => &self.figures.store,
        };
        count.fetch_add(1, Relaxed);
        self.events.tell(|| BudgetEvent::Refused {
            refusal: refusal.clone(),
        });
        let error = LlmError::new(ErrorKind::OverBudget, refusal.to_string()).with_scope(concerns);
        let error = match &refusal {
            Refusal::OverBudget {
                resets_in: Some(after),
                ..
            } => error.with_retry_after(*after),
            _ => error.with_should_retry(false),
        };
        error.with_source(refusal)
    }

    /// Why a call does not fit, and when it would.
    #[cold]
    pub(crate) fn over(
        &self,
        account: &Account,
        obstacle: &Obstacle,
        needed: u64,
        now: u64,
    ) -> LlmError {
        let quota = &account.quotas[obstacle.at];
        let amount = quota.amount.load(Relaxed);
        let meter = &account.meters[obstacle.at];
        let slot = quota.calendar.slot(now);
        let at = match &meter.used {
            _ if needed > amount => None,
            // The first moment of the step in which enough of it has gone.
            Some(used) => match used.fits_at(needed, amount) {
                Some(slot) => Some(quota.calendar.step_begins(slot)),
                // Where the clock was set back the period is a later one.
                None => Some(quota.calendar.over_at(slot.max(used.head()))),
            },
            None => None,
        };
        let refusal = Refusal::OverBudget {
            limit: quota.name.clone(),
            key: account.key.clone(),
            amount: money(amount),
            used: money(obstacle.used),
            needed: money(needed),
            resets_in: at.map(|at| Duration::from_nanos(at.saturating_sub(now))),
        };
        self.refuse(refusal, quota.limit.scope)
    }
}

/// In nanos; less than nothing is nothing.
pub(crate) fn amount(money: NanoUsd) -> u64 {
    u64::try_from(money.nanos()).unwrap_or(0)
}
