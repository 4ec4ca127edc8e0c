//! Who may pass, who waits, who may not.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{
    Account as Settles, Call, End, Head, Key, LlmRequest, Observer, Origin, Outcome, Reservation,
    Settlement,
    shape::{Admission, Admit},
};

use crate::{
    error::{Blocker, Reason, Refusal},
    figures::RateLimitEvent,
    local::InMemory,
    meter::{Meter, Store},
    policy::Overflow,
    quota::Need,
    state::{Account, Hindrance, Shared},
    wait::Waiting,
};

/// Admits what fits into the limits: the gate of [`RateLimit`](crate::RateLimit).
pub struct Limiter<St: Store = InMemory> {
    shared: Arc<Shared<St>>,
}

impl<St: Store> Limiter<St> {
    pub(crate) fn new(shared: Arc<Shared<St>>) -> Self {
        Self { shared }
    }
}

impl<St: Store> Admit for Limiter<St> {
    type Permit = Permit<St>;
    type Wait = Waiting<St>;

    #[inline]
    fn admit(&self, request: &mut LlmRequest) -> Admission<Permit<St>, Waiting<St>> {
        let shared = &self.shared;
        let account = match shared.account_of(request) {
            Ok(account) => account,
            Err(refusal) => return Admission::No(shared.refuse(refusal)),
        };
        let mut need = Need::new();
        let input = shared
            .policy
            .need(request, &shared.common.quotas, &mut need);
        let now = shared.common.clock.now();
        // Only if nobody waits may anybody pass.
        if account.queue.len() == 0
            && let Ok(charges) = account.take(&need, false, now)
        {
            let held = Held::new(account, charges, input);
            return Admission::Yes(Permit::new(shared, &request.call, held));
        }
        self.wait(
            Waiter {
                account,
                need,
                input,
            },
            request,
            now,
        )
    }
}

impl<St: Store> Limiter<St> {
    /// The call is not admitted now.
    #[cold]
    fn wait(
        &self,
        waiter: Waiter<St::Meter>,
        request: &LlmRequest,
        now: u64,
    ) -> Admission<Permit<St>, Waiting<St>> {
        let shared = &self.shared;
        match enqueue(shared, &waiter, &request.call, shared.policy.overflow, now) {
            Ok(ticket) => Admission::Wait(Waiting::new(
                shared.clone(),
                waiter,
                ticket,
                request.call.clone(),
                now,
            )),
            Err(refusal) => {
                shared.tell_refusal(&waiter.account.key, &refusal);
                Admission::No(shared.refuse(refusal))
            }
        }
    }
}

/// A call that was not admitted at once.
pub(crate) struct Waiter<M: Meter> {
    pub(crate) account: Arc<Account<M>>,
    pub(crate) need: Need,
    pub(crate) input: u64,
}

impl<M: Meter> Waiter<M> {
    pub(crate) fn refusal(&self, reason: Reason, hindrance: &Hindrance, now: u64) -> Refusal {
        Refusal {
            reason: match hindrance.until {
                Some(_) => reason,
                None => Reason::TooLarge,
            },
            by: self.account.blocker(hindrance.by, &self.need),
            retry_after: hindrance
                .until
                .map(|until| Duration::from_nanos(until.saturating_sub(now))),
        }
    }
}

/// Takes a place in the queue, if there is to be a wait and the call may wait as long as that will
/// take.
#[cold]
pub(crate) fn enqueue<St: Store>(
    shared: &Shared<St>,
    waiter: &Waiter<St::Meter>,
    call: &Call,
    overflow: Overflow,
    now: u64,
) -> Result<u64, Refusal> {
    let (account, policy) = (&waiter.account, &shared.policy);
    let alone = account.fits_at(&waiter.need, 0, now);
    if alone.until.is_none() || overflow == Overflow::Reject {
        return Err(waiter.refusal(Reason::Limit, &alone, now));
    }
    let mut expected = Duration::ZERO;
    let ticket = account.queue.enter(
        &waiter.need,
        policy.max_queue,
        |all, before| Refusal {
            by: Blocker::Queue,
            ..waiter.refusal(Reason::QueueFull, &account.fits_at(all, before, now), now)
        },
        |all, before| {
            let hindrance = account.fits_at(all, before, now);
            let until = hindrance.until.unwrap_or(u64::MAX);
            expected = Duration::from_nanos(until.saturating_sub(now));
            let reason = if call.allow_wait(expected).is_err() {
                Reason::Deadline
            } else if policy.max_wait.is_some_and(|most| expected > most) {
                Reason::MaxWait
            } else {
                return Ok(());
            };
            Err(waiter.refusal(reason, &hindrance, now))
        },
    )?;
    shared.common.figures.wait();
    shared.common.events.tell(|| RateLimitEvent::Queued {
        key: account.key.clone(),
        expected,
    });
    Ok(ticket)
}

/// What a call was charged, until it is settled.
pub(crate) struct Held<M: Meter> {
    account: Arc<Account<M>>,
    charges: M::Charges,
    input: u64,
}

impl<M: Meter> Held<M> {
    #[inline]
    pub(crate) fn new(account: Arc<Account<M>>, charges: M::Charges, input: u64) -> Self {
        Self {
            account,
            charges,
            input,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.account.key
    }
}

impl<M: Meter> Settles for Held<M> {
    #[inline]
    fn settle(self, settlement: Settlement) {
        self.account.settle(self.charges, settlement, self.input);
    }

    fn estimated_input(&self) -> u64 {
        self.input
    }
}

/// What an admitted call holds until its end.
pub struct Permit<St: Store = InMemory> {
    reservation: Reservation<Held<St::Meter>>,
    /// Whether what the provider says of its limits counts.
    learns: bool,
}

impl<St: Store> Permit<St> {
    #[inline]
    pub(crate) fn new(shared: &Shared<St>, call: &Call, held: Held<St::Meter>) -> Self {
        Self {
            learns: shared.policy.learn,
            reservation: Reservation::new(call, held),
        }
    }
}

impl<St: Store> Permit<St> {
    fn learner(&self) -> Option<&Account<St::Meter>> {
        let held = self.reservation.account().filter(|_| self.learns);
        held.map(|held| &*held.account)
    }
}

impl<St: Store> Observer for Permit<St> {
    fn committed(&mut self, head: &Head) {
        self.reservation.committed(head);
        if let Some(hints) = &head.hints
            && head.origin == Origin::Upstream
            && let Some(learner) = self.learner()
        {
            learner.learn(hints);
        }
    }

    fn chunk(&mut self, chunk: &donjon_core::Chunk) {
        self.reservation.chunk(chunk);
    }

    fn end(&mut self, end: &End<'_>) {
        if let (Some(learner), Outcome::Failure(error)) = (self.learner(), end.outcome) {
            if let Some(hints) = error.hints() {
                learner.learn(hints);
            }
            learner.stop_for(error);
        }
        self.reservation.end(end);
    }
}

impl<St: Store> fmt::Debug for Permit<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("reservation", &self.reservation)
            .finish_non_exhaustive()
    }
}

impl<St: Store> Clone for Limiter<St> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl<St: Store> fmt::Debug for Limiter<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}
