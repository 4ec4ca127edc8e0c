//! Reserving what a call may use, and settling with what it did use.

mod sent;

use std::fmt;

use sent::{Sent, waited_in_vain};

use crate::{
    error::{ErrorKind, LlmError},
    observe::{End, Observer, Outcome},
    vocab::{Call, Chunk, Estimate, Head, Origin, Usage},
};

/// What a reservation is settled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Nothing was used: the call was never sent, was refused, or was answered from elsewhere.
    Nothing,
    /// It was sent and refused: it is not billed, and no tokens were used, but the provider has counted
    /// the request.
    Unbilled,
    /// What the providers say was used, by each attempt that was billed.
    Actual(Usage),
    /// What must have been used as far as anybody can tell: the prompt, and what was streamed; of each
    /// attempt that was billed.
    Estimated(Usage),
}

impl Settlement {
    /// The tokens used; none for [`Nothing`](Self::Nothing) and [`Unbilled`](Self::Unbilled).
    pub fn usage(&self) -> Usage {
        match self {
            Self::Nothing | Self::Unbilled => Usage::default(),
            Self::Actual(usage) | Self::Estimated(usage) => *usage,
        }
    }
}

/// What stands behind a reservation: a limit, a budget.
pub trait Account: Send + 'static {
    /// Gives back what was reserved and books what was used. Called exactly once.
    fn settle(self, settlement: Settlement);

    /// How many tokens of prompt a call is taken for whose tokens nobody counted; default none.
    fn estimated_input(&self) -> u64 {
        0
    }
}

/// A reservation: an [`Observer`] that settles its account exactly once, at the end of the call or
/// when it is dropped.
pub struct Reservation<A: Account> {
    account: Option<A>,
    estimate: Estimate,
    tokens_per_byte: f32,
    sent: Sent,
    origin: Origin,
    committed: bool,
    /// What was told in the stream. In a box, since only streams have it and whole answers move this.
    told: Option<Box<Usage>>,
    streamed_bytes: u64,
}

impl<A: Account> Reservation<A> {
    /// Holds `account` for `call`, whose use is estimated from [`Call::estimate`] and a quarter of
    /// a token for each byte of answer until the provider says better.
    #[inline]
    pub fn new(call: &Call, account: A) -> Self {
        Self {
            account: Some(account),
            // Word by word: as a whole it would be read while it is still being written.
            estimate: call
                .estimate
                .as_ref()
                .map_or_else(Estimate::default, |estimate| {
                    Estimate::new(estimate.input, estimate.output)
                }),
            tokens_per_byte: 0.25,
            sent: Sent::of(call),
            origin: Origin::Upstream,
            committed: false,
            told: None,
            streamed_bytes: 0,
        }
    }

    /// Sets how many tokens of this model a byte of its answer makes; default 0.25.
    #[must_use]
    pub fn tokens_per_byte(mut self, tokens: f32) -> Self {
        self.tokens_per_byte = tokens;
        self
    }

    /// What stands behind it, until it is settled.
    pub const fn account(&self) -> Option<&A> {
        self.account.as_ref()
    }

    /// The same, to be told what is learned before the end: the model that serves.
    pub const fn account_mut(&mut self) -> Option<&mut A> {
        self.account.as_mut()
    }

    fn settle(&mut self, settlement: impl FnOnce(&Self, &A) -> Settlement) {
        if let Some(account) = self.account.take() {
            let settlement = settlement(self, &account);
            account.settle(settlement);
        }
    }

    /// Tokens of the prompt, as far as anybody counted.
    fn input(&self, account: &A) -> u64 {
        match self.estimate.input {
            0 => account.estimated_input(),
            input => input,
        }
    }

    /// It was given up, or told nothing of what it used.
    fn best_known(&self, account: &A, told: Option<Usage>) -> Settlement {
        let input = self.input(account);
        let alone = self.committed && self.sent.is_one();
        let serving = (!alone)
            .then(|| self.sent.serving(self.committed))
            .flatten();
        if serving.is_none() && !self.committed && !matches!(self.sent, Sent::Unknown) {
            return self.failed(account, None);
        }
        // What was told before the end is less than what was used in the end.
        let was_told = told.is_some();
        let told = told.unwrap_or_default();
        let streamed = scale(self.streamed_bytes, self.tokens_per_byte);
        let usage = Usage {
            input: if told.input > 0 { told.input } else { input },
            output: told.output.max(streamed),
            ..told
        };
        if alone {
            return Settlement::Estimated(usage);
        }
        let spent = self.sent.spent(serving, was_told, None, input);
        Settlement::Estimated(usage.plus(spent.usage))
    }

    /// The provider said what the attempt that served has used.
    #[inline]
    fn served(&self, account: &A, usage: Usage) -> Settlement {
        match self.sent.is_one() {
            true => Settlement::Actual(usage),
            false => self.served_at_last(account, usage),
        }
    }

    #[cold]
    fn served_at_last(&self, account: &A, usage: Usage) -> Settlement {
        let serving = self.sent.serving(true);
        let spent = self.sent.spent(serving, true, None, self.input(account));
        let usage = usage.plus(spent.usage);
        match spent.estimated {
            true => Settlement::Estimated(usage),
            false => Settlement::Actual(usage),
        }
    }

    /// No attempt has served.
    #[cold]
    fn failed(&self, account: &A, error: Option<&LlmError>) -> Settlement {
        if let (Sent::Unknown, Some(error)) = (&self.sent, error) {
            return match error.kind() {
                kind if waited_in_vain(kind) => self.best_known(account, None),
                ErrorKind::Connect => Settlement::Nothing,
                _ => Settlement::Unbilled,
            };
        }
        let spent = self.sent.spent(None, false, error, self.input(account));
        match spent.settlement() {
            None if spent.counted => Settlement::Unbilled,
            settlement => settlement.unwrap_or(Settlement::Nothing),
        }
    }

    /// It was answered from elsewhere; what was tried before is used all the same.
    #[cold]
    fn elsewhere(&self, account: &A) -> Settlement {
        let serving = self.sent.serving(true);
        let spent = self.sent.spent(serving, false, None, self.input(account));
        spent.settlement().unwrap_or(Settlement::Nothing)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an estimate; `as` saturates"
)]
fn scale(bytes: u64, tokens_per_byte: f32) -> u64 {
    (bytes as f64 * f64::from(tokens_per_byte)).ceil() as u64
}

impl<A: Account> Observer for Reservation<A> {
    fn committed(&mut self, head: &Head) {
        self.origin = head.origin;
        self.committed = true;
    }

    fn chunk(&mut self, chunk: &Chunk) {
        self.streamed_bytes += chunk.bytes() as u64;
        if let Some(usage) = chunk.usage {
            self.told = Some(Box::new(usage));
        }
    }

    fn end(&mut self, end: &End<'_>) {
        let told = end.usage.or(self.told.as_deref()).copied();
        // A whole answer that does not say what it used shows at least how long it is.
        if let (None, Some(answer)) = (told, end.completion) {
            self.streamed_bytes += answer.text().len() as u64;
        }
        self.settle(|this, account| match (end.outcome, told) {
            _ if this.origin != Origin::Upstream => this.elsewhere(account),
            (Outcome::Success, Some(usage)) => this.served(account, usage),
            (Outcome::Failure(error), _) if !this.committed => this.failed(account, Some(error)),
            _ => this.best_known(account, told),
        });
    }
}

impl<A: Account> Drop for Reservation<A> {
    fn drop(&mut self) {
        self.settle(|this, account| match this.origin {
            Origin::Upstream => this.best_known(account, this.told.as_deref().copied()),
            _ => this.elsewhere(account),
        });
    }
}

impl<A: Account> fmt::Debug for Reservation<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("estimate", &self.estimate)
            .field("settled", &self.account.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
