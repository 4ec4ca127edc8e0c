//! What a call reserves, and how it is settled.

use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};

use donjon_core::{
    Account as Settles, Chunk, Completion, End, FinishReason, Head, LlmError, LlmRequest, Name,
    Observer, Reservation, Scope as Concerns, Settlement, Usage, shape::Check,
};
use smallvec::SmallVec;

use crate::{
    account::{Account, Slots, nanos},
    advice::Repeat,
    books::{Count, Line, money},
    bound,
    budgets::{Budgets, UnknownPrice},
    error::Refusal,
    handle::BudgetEvent,
    prices::{Price, ServiceTier},
    shared::{ADMITTED, SETTLED, Shared, amount},
    store::{entry::Entry, journal::Ink, keeper::WhenUnkept},
};

/// Refuses what might pass a hard limit, and reserves the worst case of what does not: the check of
/// a [`BudgetLayer`](crate::BudgetLayer).
#[derive(Clone, Debug)]
pub struct BudgetCheck {
    budgets: Budgets,
    provider: Option<Name>,
    tier: Option<ServiceTier>,
}

impl BudgetCheck {
    pub(crate) const fn new(
        budgets: Budgets,
        provider: Option<Name>,
        tier: Option<ServiceTier>,
    ) -> Self {
        Self {
            budgets,
            provider,
            tier,
        }
    }
}

impl Check for BudgetCheck {
    type Permit = BudgetPermit;

    fn check(&self, request: &mut LlmRequest) -> Result<Option<BudgetPermit>, LlmError> {
        let shared = &self.budgets.shared;
        if shared.when_unkept == WhenUnkept::Refuse && shared.kept.failing.load(Relaxed) {
            return Err(shared.refuse(Refusal::Store, Concerns::Caller));
        }
        let line = shared
            .books
            .line(self.provider, request.model(), request.identity());
        let tier = self.tier.unwrap_or_else(|| asked_tier(request));
        let priced = shared.price_of(&line);
        let bound = bound::of(request, priced.price.as_deref(), shared.defaults);
        let worst = priced.price.as_ref().and_then(|price| {
            let images = u64::from(bound.images);
            price.worst_case(bound.input, bound.output, images, bound.audio, tier)
        });
        let worst = match worst {
            Some(worst) => amount(worst),
            None => self.unpriced(request)?,
        };
        let at = nanos(&shared.clock);
        let charged = reserve(shared, request, worst, at)?;
        shared.figures.calls.add(ADMITTED, 1);
        let repeat = match &shared.repeats {
            Some(repeats) => repeats.look(request),
            None => Repeat::default(),
        };
        drop(priced);
        Ok(Some(BudgetPermit {
            reservation: Reservation::new(
                &request.call,
                Held {
                    shared: shared.clone(),
                    line,
                    served: None,
                    charged,
                    reserved: worst,
                    at,
                    likely: bound.likely,
                    images: bound.images,
                    tier,
                    cut: false,
                    repeat,
                },
            ),
        }))
    }
}

impl BudgetCheck {
    /// Nobody knows what the call costs.
    #[cold]
    fn unpriced(&self, request: &LlmRequest) -> Result<u64, LlmError> {
        let shared = &self.budgets.shared;
        let model = request.model().clone();
        let provider = self.provider.map(Name::to_arc);
        match &shared.unknown {
            UnknownPrice::Allow => {}
            UnknownPrice::Alert => {
                shared
                    .events
                    .tell(|| BudgetEvent::Unpriced { provider, model });
            }
            UnknownPrice::Refuse | UnknownPrice::Assume(_) => {
                let refusal = Refusal::UnknownPrice { provider, model };
                return Err(shared.refuse(refusal, Concerns::Target));
            }
        }
        shared.figures.unpriced.fetch_add(1, Relaxed);
        Ok(0)
    }
}

/// Where a call is charged: for each key its state, and the periods.
struct Charged {
    account: Arc<Account>,
    slots: Slots,
}

type Charges = SmallVec<[Charged; 3]>;

/// Reserves `worst` for every key, or for none.
#[inline]
fn reserve(
    shared: &Shared,
    request: &LlmRequest,
    worst: u64,
    at: u64,
) -> Result<Charges, LlmError> {
    let mut charged = Charges::new();
    for scope in &shared.scopes {
        let reserved = match scope.account_of(request) {
            Ok(account) => match account.reserve(worst, at) {
                Ok(slots) => Ok(Charged { account, slots }),
                Err(obstacle) => Err(shared.over(&account, &obstacle, worst, at)),
            },
            Err(_) => {
                let limit = scope.quotas[0].name.clone();
                Err(shared.refuse(Refusal::Keys { limit }, Concerns::Caller))
            }
        };
        match reserved {
            Ok(one) => charged.push(one),
            Err(error) => {
                for charged in &charged {
                    charged.account.give_back(worst, &charged.slots);
                }
                return Err(error);
            }
        }
    }
    Ok(charged)
}

/// The tier that the request asks for.
fn asked_tier(request: &LlmRequest) -> ServiceTier {
    let Some(chat) = request.as_chat() else {
        return ServiceTier::Standard;
    };
    if chat.extra.is_empty() {
        return ServiceTier::Standard;
    }
    tier_in(&chat.extra).unwrap_or_default()
}

fn tier_in(extra: &donjon_core::Extra) -> Option<ServiceTier> {
    let said = extra.get("service_tier")?.get();
    Some(ServiceTier::named(said.trim_matches('"')))
}

/// What stands behind the reservation of a call.
struct Held {
    shared: Arc<Shared>,
    /// Of the model that was asked.
    line: Arc<Line>,
    /// Of the model that served, where it has another name.
    served: Option<Arc<Line>>,
    charged: Charges,
    reserved: u64,
    at: u64,
    likely: u64,
    images: u32,
    tier: ServiceTier,
    /// An answer ended because it had no more tokens.
    cut: bool,
    repeat: Repeat,
}

impl Held {
    /// What `usage` costs; `None` if nobody knows.
    fn cost(&self, line: &Line, usage: &Usage) -> Option<u64> {
        let of = |price: &Price| price.cost(usage, u64::from(self.images), self.tier);
        let priced = self.shared.price_of(line);
        if let Some(price) = &priced.price {
            // A tier without a price was served unasked: the worst case stands for it.
            return Some(of(price).map_or(self.reserved, amount));
        }
        self.served.as_ref()?;
        let asked = self.shared.price_of(&self.line);
        let price = asked.price.as_ref()?;
        self.shared.figures.served_unknown.fetch_add(1, Relaxed);
        Some(of(price).map_or(self.reserved, amount))
    }

    fn give_back(&self) {
        for charged in &self.charged {
            charged.account.give_back(self.reserved, &charged.slots);
        }
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
        let mut entry = Entry::default();
        entry.line(line.id());
        self.counts(usage, cost, |count, more| entry.figure(count as u8, more));
        let spent = cost.unwrap_or(0);
        if spent > 0 {
            for charged in &self.charged {
                let account = &charged.account;
                account.places(&charged.slots, |id, cell, period| {
                    entry.limit(id, cell, period, spent);
                });
            }
        }
        self.shared.write_down(ink, &entry);
    }

    /// It was sent and refused.
    #[cold]
    fn unbilled(&self, line: &Line) {
        if let Some(ink) = &self.shared.ink {
            let mut entry = Entry::default();
            entry.line(line.id());
            entry.figure(Count::Unbilled as u8, 1);
            self.shared.write_down(ink, &entry);
        }
        self.give_back();
        line.count(Count::Unbilled, 1);
        line.touch(self.shared.marks);
    }
}

impl Settles for Held {
    fn settle(self, settlement: Settlement) {
        let shared = &*self.shared;
        let line = self.served.as_ref().unwrap_or(&self.line);
        let booked = line.booked();
        shared.figures.calls.add(SETTLED, 1);
        let mut usage = match settlement {
            Settlement::Actual(usage) | Settlement::Estimated(usage) => usage,
            Settlement::Unbilled => return self.unbilled(booked),
            _ => return self.give_back(),
        };
        if usage.input == 0 && matches!(settlement, Settlement::Estimated(_)) {
            usage.input = self.likely;
        }
        let cost = self.cost(line, &usage);
        let spent = cost.unwrap_or(0);
        // First the journal: nobody is shown what a kill could take back.
        if let Some(ink) = &shared.ink {
            self.write_down(ink, booked, &usage, cost);
        }
        // Then the books: whoever finds the limit charged finds it there too.
        self.counts(&usage, cost, |count, more| booked.count(count, more));
        booked.touch(shared.marks);
        for charged in &self.charged {
            let account = &*charged.account;
            let (slots, marks) = (&charged.slots, shared.marks);
            account.settle(self.reserved, spent, slots, self.at, marks, |passed| {
                shared.figures.soft_passed.fetch_add(1, Relaxed);
                let quota = &account.quotas[passed.at];
                shared.events.tell(|| BudgetEvent::SoftLimitPassed {
                    limit: quota.name.clone(),
                    key: account.key.clone(),
                    amount: money(quota.amount.load(Relaxed)),
                    spent: money(passed.spent),
                });
            });
        }
        if spent > self.reserved && !self.charged.is_empty() {
            shared
                .figures
                .excess
                .fetch_add(spent - self.reserved, Relaxed);
        }
    }
}

/// What an admitted call holds until its end.
pub struct BudgetPermit {
    reservation: Reservation<Held>,
}

impl BudgetPermit {
    fn note(&mut self, note: impl FnOnce(&mut Held)) {
        if let Some(held) = self.reservation.account_mut() {
            note(held);
        }
    }
}

impl Observer for BudgetPermit {
    fn committed(&mut self, head: &Head) {
        self.note(|held| {
            if *head.model != *held.line.key.model {
                held.served = Some(held.shared.books.of_model(&held.line, &head.model));
            }
        });
        self.reservation.committed(head);
    }

    fn chunk(&mut self, chunk: &Chunk) {
        let mut reasons = chunk
            .choices
            .iter()
            .filter_map(|choice| choice.finish_reason.as_ref());
        if reasons.any(|reason| *reason == FinishReason::Length) {
            self.note(|held| held.cut = true);
        }
        self.reservation.chunk(chunk);
    }

    fn end(&mut self, end: &End<'_>) {
        if let Some(Completion::Chat(chat)) = end.completion {
            let cut =
                |choice: &donjon_core::Choice| choice.finish_reason == Some(FinishReason::Length);
            let cut = chat.choices.iter().any(cut);
            let tier = if chat.extra.is_empty() {
                None
            } else {
                tier_in(&chat.extra)
            };
            if cut || tier.is_some() {
                self.note(|held| {
                    held.cut = cut;
                    held.tier = tier.unwrap_or(held.tier);
                });
            }
        }
        self.reservation.end(end);
    }
}

impl fmt::Debug for BudgetPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetPermit")
            .field("reservation", &self.reservation)
            .finish_non_exhaustive()
    }
}
