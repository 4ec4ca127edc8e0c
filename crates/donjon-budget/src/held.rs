//! What a call holds until its end, and how it is settled.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use donjon_core::{LlmError, LlmRequest, Scope as Concerns, Settlement, Usage};
use smallvec::SmallVec;

use crate::{
    account::{Account, Slots},
    advice::Repeat,
    books::{Count, Line, money},
    error::Refusal,
    handle::BudgetEvent,
    prices::{Price, ServiceTier},
    shared::{Core, SETTLED, amount},
    store::{entry::Entry, journal::Ink},
};

/// Where a call is charged.
#[derive(Default)]
pub(crate) struct Charges {
    /// The states of keys; the one of a scope without keys is found there.
    accounts: SmallVec<[Arc<Account>; 2]>,
    /// The periods, for one scope after another.
    slots: Slots,
}

impl Charges {
    /// Reserves `worst` for every key, or for none. It is charged where it lies: to move it right after it
    /// was written costs more than some of the charges.
    #[inline]
    pub(crate) fn reserve(
        &mut self,
        core: &Core,
        request: &LlmRequest,
        worst: u64,
        at: u64,
    ) -> Result<(), LlmError> {
        for scope in &core.scopes {
            let keyed = match scope.global() {
                Some(_) => None,
                None => match scope.account_of(request) {
                    Ok(account) => Some(account),
                    Err(_) => {
                        self.give_back(core, worst);
                        let limit = scope.quotas[0].name.clone();
                        return Err(core.refuse(Refusal::Keys { limit }, Concerns::Caller));
                    }
                },
            };
            let Some(account) = keyed.as_deref().or(scope.global()) else {
                continue;
            };
            if let Err(obstacle) = account.reserve(worst, at, &mut self.slots) {
                let error = core.over(account, &obstacle, worst, at);
                self.give_back(core, worst);
                return Err(error);
            }
            self.accounts.extend(keyed);
        }
        Ok(())
    }

    /// Each state that is charged, with the periods.
    #[inline]
    fn each<'a>(&'a self, core: &'a Core, mut each: impl FnMut(&'a Account, &'a [u32])) {
        let mut slots = &*self.slots;
        let mut keyed = self.accounts.iter();
        for scope in &core.scopes {
            // A call that is refused was charged under the first of them alone.
            let Some((mine, rest)) = slots.split_at_checked(scope.quotas.len()) else {
                return;
            };
            slots = rest;
            if let Some(account) = scope.global().or_else(|| keyed.next().map(|one| &**one)) {
                each(account, mine);
            }
        }
    }

    fn give_back(&self, core: &Core, reserved: u64) {
        self.each(core, |account, slots| account.give_back(reserved, slots));
    }
}

/// What stands behind the reservation of a call; nothing by default, and after it was settled.
#[derive(Default)]
pub(crate) struct Held {
    /// Of the model that was asked.
    pub(crate) line: Option<Arc<Line>>,
    /// Of the model that served, where it has another name.
    pub(crate) served: Option<Arc<Line>>,
    pub(crate) charges: Charges,
    pub(crate) reserved: u64,
    /// When it was admitted, in seconds since 1970.
    pub(crate) at: u32,
    /// How many tokens its prompt is likely to be.
    pub(crate) likely: u32,
    pub(crate) images: u32,
    pub(crate) repeat: Repeat,
    pub(crate) tier: ServiceTier,
    /// An answer ended because it had no more tokens.
    pub(crate) cut: bool,
}

const SECOND: u64 = 1_000_000_000;

impl Held {
    /// What `usage` costs; `None` if nobody knows.
    #[inline]
    fn cost(&self, asked: &Line, line: &Line, usage: &Usage) -> Option<u64> {
        let core = &*asked.core;
        let of = |price: &Price| {
            let cost = price.cost(usage, u64::from(self.images), self.tier);
            // Where a tier without a price was served unasked, the worst case stands for it.
            let worst = (self.reserved > 0).then_some(self.reserved);
            cost.map(amount).or(worst)
        };
        let priced = core.price_of(line);
        if let Some(price) = &priced.price {
            return of(price);
        }
        self.served.as_ref()?;
        let asked = core.price_of(asked);
        let price = asked.price.as_ref()?;
        core.figures.served_unknown.fetch_add(1, Relaxed);
        of(price)
    }

    /// Calls `count` with every figure of the report that grows.
    #[inline]
    fn counts(&self, usage: &Usage, cost: Option<u64>, mut count: impl FnMut(Count, u64)) {
        let spent = cost.unwrap_or(0);
        count(Count::Attempts, 1);
        for (figure, more) in [
            (Count::Input, usage.input),
            (Count::Output, usage.output),
            (Count::Cost, spent),
            (Count::CacheRead, usage.cache_read),
            (Count::CacheWrite, usage.cache_write),
            (Count::Reasoning, usage.reasoning),
            (Count::Unpriced, u64::from(cost.is_none())),
        ] {
            if more > 0 {
                count(figure, more);
            }
        }
        if self.cut {
            count(Count::Cut, 1);
            count(Count::CutCost, spent);
        }
        if self.repeat.sampled {
            count(Count::Sampled, 1);
            count(Count::SampledCost, spent);
            if self.repeat.whole {
                count(Count::Repeated, 1);
                count(Count::RepeatedCost, spent);
            }
            // What the provider's cache had already is no advice.
            if usage.cache_read == 0 && self.repeat.prefix_tokens > 0 {
                count(Count::PrefixTokens, u64::from(self.repeat.prefix_tokens));
            }
        }
    }

    /// Writes down what is about to be booked and charged, in one entry.
    fn write_down(&self, ink: &Ink, line: &Line, usage: &Usage, cost: Option<u64>) {
        let core = &*line.core;
        let mut entry = Entry::default();
        entry.line(line.id());
        self.counts(usage, cost, |count, more| entry.figure(count as u8, more));
        let spent = cost.unwrap_or(0);
        if spent > 0 {
            self.charges.each(core, |account, slots| {
                account.places(slots, |id, cell, period| {
                    entry.limit(id, cell, period, spent);
                });
            });
        }
        core.write_down(ink, &entry);
    }

    /// It was sent and refused.
    #[cold]
    fn unbilled(&self, line: &Line) {
        let core = &*line.core;
        if let Some(ink) = &core.ink {
            let mut entry = Entry::default();
            entry.line(line.id());
            entry.figure(Count::Unbilled as u8, 1);
            core.write_down(ink, &entry);
        }
        self.charges.give_back(core, self.reserved);
        line.count(Count::Unbilled, 1);
        line.touch(core.marks);
    }
}

impl Held {
    /// Lets go of everything. The lists keep what room they have.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.line = None;
        self.served = None;
        self.charges.accounts.clear();
        self.charges.slots.clear();
    }

    /// Gives back what was reserved, and books and charges what was used. Once.
    #[inline]
    pub(crate) fn settle(&self, settlement: Settlement) {
        let Some(asked) = &self.line else {
            return;
        };
        let core = &*asked.core;
        let line = self.served.as_ref().unwrap_or(asked);
        let booked = line.booked();
        core.figures.calls.add(SETTLED, 1);
        let mut usage = match settlement {
            Settlement::Actual(usage) | Settlement::Estimated(usage) => usage,
            Settlement::Unbilled => return self.unbilled(booked),
            _ => return self.charges.give_back(core, self.reserved),
        };
        if usage.input == 0 && matches!(settlement, Settlement::Estimated(_)) {
            usage.input = u64::from(self.likely);
        }
        let cost = self.cost(asked, line, &usage);
        let spent = cost.unwrap_or(0);
        // First the journal: nobody is shown what a kill could take back.
        if let Some(ink) = &core.ink {
            self.write_down(ink, booked, &usage, cost);
        }
        // Then the books: whoever finds the limit charged finds it there too.
        self.counts(&usage, cost, |count, more| booked.count(count, more));
        booked.touch(core.marks);
        let at = u64::from(self.at) * SECOND;
        self.charges.each(core, |account, slots| {
            account.settle(self.reserved, spent, slots, at, core.marks, |passed| {
                core.figures.soft_passed.fetch_add(1, Relaxed);
                let quota = &account.quotas[passed.at];
                core.events.tell(|| BudgetEvent::SoftLimitPassed {
                    limit: quota.name.clone(),
                    key: account.key.clone(),
                    amount: money(quota.amount.load(Relaxed)),
                    spent: money(passed.spent),
                });
            });
        });
        if spent > self.reserved && !core.scopes.is_empty() {
            let excess = spent - self.reserved;
            core.figures.excess.fetch_add(excess, Relaxed);
        }
    }
}
