//! Where the time to first token of a call is found.

use std::{sync::Arc, time::Duration};

use donjon_core::{Attempt, Call, Ledger};
use tokio::time::Instant;

/// The attempt of a call in its ledger: the one that was open when it was admitted, or the last of
/// those that were opened since.
#[derive(Debug)]
pub(crate) struct Source {
    ledger: Arc<Ledger>,
    /// The place of the open one, or of the first that may be opened.
    from: u32,
    open: bool,
}

impl Source {
    pub(crate) fn of(call: &Call) -> Option<Self> {
        let ledger = call.ledger()?;
        let open = call.attempt().map(|attempt| attempt.index());
        Some(Self {
            from: open.unwrap_or_else(|| ledger.opened()),
            ledger: ledger.clone(),
            open: open.is_some(),
        })
    }

    fn attempt(&self) -> Option<Attempt> {
        let mut attempts = self.ledger.attempts().skip(self.from as usize);
        if self.open {
            attempts.next()
        } else {
            attempts.last()
        }
    }

    /// From sending to the commit point, where both were stamped.
    pub(crate) fn first_token(&self) -> Option<Duration> {
        self.attempt()?.time_to_first_token()
    }

    /// The same of a whole answer, if it was fetched as a stream: that ends later than it commits.
    pub(crate) fn first_token_of_whole(&self) -> Option<Duration> {
        let attempt = self.attempt()?;
        let streamed = attempt.ended_at? > attempt.committed_at?;
        streamed.then(|| attempt.time_to_first_token())?
    }

    /// When it was sent first.
    pub(crate) fn sent_at(&self) -> Option<Instant> {
        let ledger = &self.ledger;
        if self.open {
            return ledger.sent_at(self.from);
        }
        (self.from..ledger.opened()).find_map(|index| ledger.sent_at(index))
    }

    /// How long ago it was sent.
    pub(crate) fn sent_for(&self) -> Option<Duration> {
        let sent_at = self.attempt()?.sent_at?;
        Some(self.ledger.began_at().elapsed().saturating_sub(sent_at))
    }

    pub(crate) fn was_sent(&self) -> bool {
        self.attempt().is_some_and(|a| a.sent_at.is_some())
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::{AttemptCause, LlmRequest};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begun() -> Call {
        let mut call = LlmRequest::chat("m", []).call;
        call.begin();
        call
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_our_own_queues_is_not_time_to_first_token() {
        let mut call = begun();
        let source = Source::of(&call).expect("it began");
        assert_eq!((source.first_token(), source.was_sent()), (None, false));
        tokio::time::advance(5 * SECOND).await;
        let attempt = call.dispatch().clone();
        attempt.stamp_sent();
        tokio::time::advance(SECOND).await;
        assert_eq!(source.sent_for(), Some(SECOND));
        attempt.stamp_committed();
        assert_eq!(source.first_token(), Some(SECOND));
        // It has not ended yet, or ends at once: a whole answer has no first token.
        assert_eq!(source.first_token_of_whole(), None);
        tokio::time::advance(SECOND).await;
        attempt.stamp_ended();
        assert_eq!(source.first_token_of_whole(), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn the_attempt_of_another_target_is_not_taken_for_it() {
        let mut call = begun();
        call.open_attempt(AttemptCause::First).stamp_sent();
        let source = Source::of(&call).expect("it began");
        let mut hedge = call.clone();
        tokio::time::advance(SECOND).await;
        let attempt = hedge.open_attempt(AttemptCause::Hedge).clone();
        attempt.stamp_sent();
        attempt.stamp_committed();
        assert_eq!(source.first_token(), None);
        assert_eq!(source.sent_for(), Some(SECOND));
    }
}
