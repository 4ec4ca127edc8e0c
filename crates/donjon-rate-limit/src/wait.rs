//! Waiting for one's turn.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{Call, LlmError};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use crate::{
    admit::{Held, Permit, Waiter},
    error::Reason,
    local::InMemory,
    meter::{Meter, Store},
    quota::nanos,
    state::{Hindrance, Shared},
};

/// The wait of a call for its turn: first come, first served within its key.
///
/// Only the first of a queue tries to pass. It sleeps until the moment at which it will fit, is woken
/// when something is given back, and hands over to the next when it passes or leaves. Dropped, it
/// gives its place up.
pub struct Waiting<St: Store = InMemory> {
    // In a box, so that the future of a call that need not wait is small.
    turn: Pin<Box<Turn<St>>>,
}

pin_project! {
    struct Turn<St>
    where
        St: Store,
    {
        shared: Arc<Shared<St>>,
        place: Place<St::Meter>,
        call: Call,
        since: u64,
        // When the call may wait no longer.
        give_up: u64,
        #[pin]
        sleep: Option<Sleep>,
    }
}

/// A place in a queue, given up on drop.
struct Place<M: Meter> {
    waiter: Waiter<M>,
    ticket: u64,
}

impl<M: Meter> Drop for Place<M> {
    fn drop(&mut self) {
        self.waiter.account.queue.leave(self.ticket);
    }
}

impl<St: Store> Waiting<St> {
    pub(crate) fn new(
        shared: Arc<Shared<St>>,
        waiter: Waiter<St::Meter>,
        ticket: u64,
        call: Call,
        since: u64,
    ) -> Self {
        let most = shared.policy.max_wait.unwrap_or(Duration::MAX);
        let most = most.min(call.longest_wait());
        let turn = Turn {
            shared,
            place: Place { waiter, ticket },
            call,
            since,
            give_up: since.saturating_add(nanos(most)),
            sleep: None,
        };
        Self {
            turn: Box::pin(turn),
        }
    }

    /// Waits for what the call is charged.
    pub(crate) fn poll_turn(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Held<St::Meter>, LlmError>> {
        self.turn.as_mut().poll(cx)
    }
}

impl<St: Store> Turn<St> {
    /// Tries to pass, if it is this one's turn; else says when to look again if nobody wakes it.
    fn look(&self, waker: &task::Waker, now: u64) -> Result<Held<St::Meter>, Option<Hindrance>> {
        let Waiter { account, need, .. } = &self.place.waiter;
        if !account.queue.is_first(self.place.ticket, waker) {
            return Err(None);
        }
        let charges = account.take(need, true, now).map_err(Some)?;
        // Hands over to the next.
        account.queue.leave(self.place.ticket);
        Ok(Held::new(account.clone(), charges, self.place.waiter.input))
    }

    /// Waits for what the call is charged.
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Held<St::Meter>, LlmError>> {
        loop {
            let now = self.shared.common.clock.now();
            if now >= self.give_up {
                return Poll::Ready(Err(self.refuse(None, now)));
            }
            let until = match self.look(cx.waker(), now) {
                Ok(held) => return Poll::Ready(Ok(held)),
                // The one before will wake this one.
                Err(None) => self.give_up,
                Err(Some(hindrance)) => match hindrance.until {
                    // A limit was set to less than is needed.
                    None => return Poll::Ready(Err(self.refuse(Some(hindrance), now))),
                    // Not now in any case: a timer never spins.
                    Some(until) => until.max(now + 1).min(self.give_up),
                },
            };
            ready!(self.as_mut().poll_sleep(until, cx));
        }
    }

    #[cold]
    fn refuse(&self, hindrance: Option<Hindrance>, now: u64) -> LlmError {
        let shared = &self.shared;
        if self.call.time_left().is_zero() {
            // The error is that of a call that may have been sent.
            if let Some(attempt) = self.call.attempt() {
                attempt.set_unsent();
            }
            shared.common.figures.refuse(Reason::Deadline);
            self.place.waiter.account.queue.leave(self.place.ticket);
            return Call::deadline_error();
        }
        let Waiter { account, need, .. } = &self.place.waiter;
        let hindrance = hindrance.unwrap_or_else(|| account.fits_at(need, 0, now));
        let waited = now.saturating_sub(self.since);
        let most = shared.policy.max_wait.map(nanos);
        let reason = match most {
            Some(most) if waited >= most => Reason::MaxWait,
            _ => Reason::Deadline,
        };
        let refusal = self.place.waiter.refusal(reason, &hindrance, now);
        account.queue.leave(self.place.ticket);
        shared.tell_refusal(&account.key, &refusal);
        shared.refuse(refusal)
    }

    /// Sleeps until then.
    fn poll_sleep(self: Pin<&mut Self>, until: u64, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(at) = this.shared.common.clock.at(until) else {
            return Poll::Pending;
        };
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(at)));
        }
        let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else {
            unreachable!("it was just set");
        };
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.poll(cx)
    }
}

impl<St: Store> Future for Waiting<St> {
    type Output = Result<Permit<St>, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let held = ready!(self.poll_turn(cx))?;
        Poll::Ready(Ok(Permit::new(&self.turn.shared, &self.turn.call, held)))
    }
}

impl<St: Store> fmt::Debug for Waiting<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("key", &self.turn.place.waiter.account.key)
            .field("ticket", &self.turn.place.ticket)
            .finish_non_exhaustive()
    }
}
