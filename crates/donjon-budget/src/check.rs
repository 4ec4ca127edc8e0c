//! What a call reserves before it is sent, and what is learned until it ends.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use donjon_core::{
    Chunk, Completion, End, FinishReason, Head, LlmError, LlmRequest, Name, Observer, Reservation,
    Scope as Concerns, shape::Check,
};

use crate::{
    advice::Repeat,
    bound,
    budgets::{Budgets, UnknownPrice},
    error::Refusal,
    handle::BudgetEvent,
    held::Held,
    prices::ServiceTier,
    shared::{ADMITTED, amount},
    store::keeper::WhenUnkept,
    ticket::Ticket,
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
        drop(priced);
        // Without limits nobody asks when it was.
        let at = match shared.scopes.is_empty() {
            true => 0,
            false => shared.clock.nanos(),
        };
        let mut ticket = Ticket::new();
        let held = ticket.held();
        held.line = Some(line);
        held.reserved = worst;
        held.at = u32::try_from(at / 1_000_000_000).unwrap_or(u32::MAX);
        held.likely = u32::try_from(bound.likely).unwrap_or(u32::MAX);
        held.images = bound.images;
        held.tier = tier;
        held.cut = false;
        if let Err(error) = held.charges.reserve(shared, request, worst, at) {
            ticket.free();
            return Err(error);
        }
        held.repeat = match &shared.repeats {
            Some(repeats) => repeats.look(request),
            None => Repeat::default(),
        };
        shared.figures.calls.add(ADMITTED, 1);
        Ok(Some(BudgetPermit {
            reservation: Reservation::new(&request.call, ticket),
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

/// What an admitted call holds until its end.
pub struct BudgetPermit {
    reservation: Reservation<Ticket>,
}

impl BudgetPermit {
    fn note(&mut self, note: impl FnOnce(&mut Held)) {
        if let Some(ticket) = self.reservation.account_mut() {
            note(ticket.held());
        }
    }
}

impl Observer for BudgetPermit {
    fn committed(&mut self, head: &Head) {
        self.note(|held| {
            if let Some(line) = &held.line
                && *head.model != *line.key.model
            {
                held.served = line.of_model(&head.model);
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
