//! Reserving what a call may use, and settling with what it did use.

use std::{fmt, sync::Arc};

use crate::{
    error::{ErrorKind, TimeoutClock},
    ledger::{AttemptRef, Ledger},
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
    /// What the provider says was used.
    Actual(Usage),
    /// What must have been used as far as anybody can tell: the prompt, and what was streamed.
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

    fn settle(&mut self, settlement: impl FnOnce(&Self) -> Settlement) {
        if let Some(account) = self.account.take() {
            account.settle(settlement(self));
        }
    }

    fn best_known(&self, told: Option<Usage>) -> Settlement {
        if self.origin != Origin::Upstream {
            return Settlement::Nothing;
        }
        if !self.committed && !self.sent.anything() {
            return Settlement::Nothing;
        }
        // What was told before the end is less than what was used in the end.
        let told = told.unwrap_or_default();
        let streamed = scale(self.streamed_bytes, self.tokens_per_byte);
        let mut usage = told;
        usage.input = if told.input > 0 {
            told.input
        } else {
            self.estimate.input
        };
        usage.output = told.output.max(streamed);
        Settlement::Estimated(usage)
    }
}

/// Tells whether anything was sent since a reservation was made.
enum Sent {
    /// Under this attempt.
    Under(AttemptRef),
    /// In this call, where no attempt was open; so many were sent before.
    Since(Arc<Ledger>, u32),
    /// The call has not begun: nobody can tell.
    Unknown,
}

impl Sent {
    fn of(call: &Call) -> Self {
        match (call.attempt(), call.ledger()) {
            (Some(attempt), _) => Self::Under(attempt.clone()),
            (None, Some(ledger)) => Self::Since(ledger.clone(), ledger.sent()),
            (None, None) => Self::Unknown,
        }
    }

    fn anything(&self) -> bool {
        match self {
            Self::Under(attempt) => attempt.led_to_sending(),
            Self::Since(ledger, before) => ledger.sent() > *before,
            Self::Unknown => true,
        }
    }

    /// What a failed attempt is known to have used all the same.
    fn billed(&self) -> Option<Usage> {
        let used = |usage: &Usage| usage.total() > 0;
        match self {
            Self::Under(attempt) => Some(attempt.read().usage).filter(used),
            Self::Since(..) | Self::Unknown => None,
        }
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
        self.settle(|this| match (end.outcome, told) {
            _ if this.origin != Origin::Upstream => Settlement::Nothing,
            (Outcome::Success, Some(usage)) => Settlement::Actual(usage),
            // A provider that answers with an error charges nothing, unless it said so; one that
            // was waited for in vain may have worked all the while.
            (Outcome::Failure(error), _) if !this.committed && !waited_in_vain(error.kind()) => {
                match this.sent.billed() {
                    Some(usage) => Settlement::Actual(usage),
                    // Where no connection stood, nobody has counted it.
                    None if error.kind() != ErrorKind::Connect && this.sent.anything() => {
                        Settlement::Unbilled
                    }
                    None => Settlement::Nothing,
                }
            }
            _ => this.best_known(told),
        });
    }
}

const fn waited_in_vain(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout(clock) if !matches!(clock, TimeoutClock::Connect))
}

impl<A: Account> Drop for Reservation<A> {
    fn drop(&mut self) {
        self.settle(|this| this.best_known(this.told.as_deref().copied()));
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
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::{ChatCompletion, LlmError, LlmRequest, LlmResponse};

    struct Book(Sender<Settlement>);

    impl Account for Book {
        fn settle(self, settlement: Settlement) {
            self.0.send(settlement).expect("the test listens");
        }
    }

    fn reserve(sent: bool) -> (Reservation<Book>, Receiver<Settlement>) {
        let mut request = LlmRequest::chat("m", []);
        request.call.estimate = Some(Estimate::new(100, 50));
        let attempt = request.call.dispatch();
        if sent {
            attempt.stamp_sent();
        }
        let (sender, book) = channel();
        (Reservation::new(&request.call, Book(sender)), book)
    }

    fn failure(reservation: &mut Reservation<Book>, kind: ErrorKind) {
        let error = LlmError::new(kind, "");
        reservation.end(&End::without_answer(Outcome::Failure(&error)));
    }

    #[test]
    fn a_call_that_was_never_sent_is_refunded_in_full() {
        let (reservation, book) = reserve(false);
        drop(reservation);
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);
    }

    #[test]
    fn a_dropped_one_settles_once_with_the_prompt_and_what_was_streamed() {
        let (mut reservation, book) = reserve(true);
        reservation.chunk(&Chunk::text("12345"));
        drop(reservation);
        let expected = Settlement::Estimated(Usage::new(100, 2));
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
    }

    #[tokio::test]
    async fn the_providers_figure_counts() {
        let (reservation, book) = reserve(true);
        let mut completion = ChatCompletion::text("m", "hi");
        completion.usage = Some(Usage::new(7, 1));
        let response = LlmResponse::complete(Head::new("m"), completion).observe(reservation);
        let expected = Settlement::Actual(Usage::new(7, 1));
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
        drop(response);
    }

    #[tokio::test]
    async fn an_answer_from_a_cache_is_never_billed() {
        let (reservation, book) = reserve(true);
        let mut head = Head::new("m");
        head.origin = Origin::Cache;
        let mut completion = ChatCompletion::text("m", "hi");
        completion.usage = Some(Usage::new(7, 1));
        let _response = LlmResponse::complete(head, completion).observe(reservation);
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);
    }

    #[test]
    fn a_refusal_is_free_and_a_timeout_is_not() {
        let (mut reservation, book) = reserve(true);
        failure(&mut reservation, ErrorKind::RateLimited);
        drop(reservation);
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Unbilled]);

        let (mut reservation, book) = reserve(true);
        failure(&mut reservation, ErrorKind::Connect);
        drop(reservation);
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [Settlement::Nothing]);

        let (mut reservation, book) = reserve(true);
        failure(
            &mut reservation,
            ErrorKind::Timeout(crate::TimeoutClock::FirstToken),
        );
        drop(reservation);
        let expected = Settlement::Estimated(Usage::new(100, 0));
        assert_eq!(book.try_iter().collect::<Vec<_>>(), [expected]);
    }
}
