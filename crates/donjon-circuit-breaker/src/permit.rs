//! What an admitted call holds, and how its end is judged.

use std::{sync::Arc, time::Duration};

use donjon_core::{
    Attempt, AttemptCause, AttemptRef, Billed, DropReason, End, ErrorKind, Head, Ledger, LlmError,
    LlmRequest, Observer, Origin, Outcome, TimeoutClock,
};

use crate::{
    breaker::{Breaker, Config, Moment},
    circuit::{Admitted, Recorded, Verdict},
    figures::Event,
    window::Mark,
};

/// Watches an admitted call until its end, and judges it then. It gives the place of a probe back
/// whatever becomes of the call.
#[derive(Debug)]
pub struct Permit {
    /// Until the end.
    breaker: Option<Arc<Breaker>>,
    admitted: Admitted,
    /// When it was admitted, where times matter, in nanoseconds since the layer was built.
    admitted_at: u64,
    /// Where times matter, or a deadline may pass before the call is sent.
    ledger: Option<Arc<Ledger>>,
    /// The attempt that was open, or the first that will be opened further in.
    attempt: u32,
    streamed: bool,
    committed: bool,
    /// The first token came after the bound.
    late: bool,
    /// It was not the target that answered.
    elsewhere: bool,
}

impl Permit {
    pub(crate) fn new(breaker: Arc<Breaker>, admitted: Admitted, request: &LlmRequest) -> Self {
        let call = &request.call;
        let times = breaker.config.times_calls();
        let ledger = if times || call.deadline().is_some() {
            call.ledger().cloned()
        } else {
            None
        };
        let open = call.attempt().map(AttemptRef::index);
        Self {
            admitted,
            admitted_at: if times { breaker.config.now() } else { 0 },
            attempt: open
                .or_else(|| Some(ledger.as_ref()?.opened()))
                .unwrap_or(0),
            ledger,
            streamed: request.is_stream(),
            breaker: Some(breaker),
            committed: false,
            late: false,
            elsewhere: false,
        }
    }
}

impl Observer for Permit {
    fn committed(&mut self, head: &Head) {
        let Some(breaker) = &self.breaker else {
            return;
        };
        self.committed = true;
        self.elsewhere = head.origin != Origin::Upstream;
        if self.elsewhere || !self.streamed {
            return;
        }
        if let Some(bound) = breaker.config.slow_first_token {
            let moment = Moment::new(&breaker.config);
            self.late = self.is_late(bound, &moment);
        }
        breaker.circuit.committed(&mut self.admitted, self.late);
    }

    fn end(&mut self, end: &End<'_>) {
        if let Some(breaker) = self.breaker.take() {
            let moment = Moment::new(&breaker.config);
            let (verdict, hint) = self.judge(&breaker.config, end, &moment);
            let recorded = breaker.record(&self.admitted, verdict, hint, &moment);
            self.count(&breaker, verdict, recorded, end);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            let moment = Moment::new(&breaker.config);
            breaker.record(&self.admitted, Verdict::Nothing, None, &moment);
        }
    }
}

/// What the end of a call says of its target.
impl Permit {
    fn judge(
        &self,
        config: &Config,
        end: &End<'_>,
        moment: &Moment<'_>,
    ) -> (Verdict, Option<Duration>) {
        if self.elsewhere {
            return (Verdict::Nothing, None);
        }
        match end.outcome {
            Outcome::Success => {
                let slow = if end.completion.is_some() {
                    self.was_slow_whole(config, moment)
                } else {
                    self.late
                };
                (Verdict::Counts(Mark::new(false, slow)), None)
            }
            Outcome::Failure(error) => {
                if self.was_never_sent(error) || !config.blames(error) {
                    return (Verdict::Nothing, None);
                }
                let slow = if self.committed {
                    self.late
                } else {
                    self.is_past(self.bound(config), moment)
                };
                let verdict = Verdict::Counts(Mark::new(true, slow));
                (verdict, error.retry_after())
            }
            Outcome::Cancelled { why, elapsed } => (self.cancelled(config, why, elapsed), None),
        }
    }

    /// A whole answer had a first token only if it was put together from a stream.
    fn was_slow_whole(&self, config: &Config, moment: &Moment<'_>) -> bool {
        let late = |bound: Duration| {
            // If all of it came in time, so did its first token.
            if moment.get().saturating_sub(self.admitted_at) <= nanos(bound) {
                return false;
            }
            self.attempt_now().is_some_and(|attempt| {
                attempt.committed_at != attempt.ended_at
                    && attempt.time_to_first_token() > Some(bound)
            })
        };
        self.is_past(config.slow_answer, moment) || config.slow_first_token.is_some_and(late)
    }

    /// Whoever is given up because another one was faster was slow, if it was past the bound without
    /// having shown anything. All others who leave say nothing.
    fn cancelled(&self, config: &Config, why: DropReason, elapsed: Duration) -> Verdict {
        let slow = match why {
            DropReason::Superseded if self.committed => self.late,
            DropReason::Superseded => self.bound(config).is_some_and(|bound| elapsed > bound),
            _ => false,
        };
        if slow {
            Verdict::Superseded
        } else {
            Verdict::Nothing
        }
    }

    /// By when there should be something.
    fn bound(&self, config: &Config) -> Option<Duration> {
        if self.streamed {
            config.slow_first_token
        } else {
            config.slow_answer
        }
    }

    fn count(&self, breaker: &Breaker, verdict: Verdict, recorded: Recorded, end: &End<'_>) {
        match (verdict, recorded) {
            (_, Recorded::Late) => breaker.count(Event::Late),
            (Verdict::Counts(mark), _) => {
                breaker.count(if mark.failed() {
                    Event::Failure
                } else {
                    Event::Success
                });
                if mark.slow() {
                    breaker.count(Event::Slow);
                }
            }
            (Verdict::Superseded, _) => {
                breaker.count(Event::Cancelled);
                breaker.count(Event::Slow);
            }
            (Verdict::Nothing, _) => breaker.count(match end.outcome {
                Outcome::Cancelled { .. } => Event::Cancelled,
                _ => Event::Neutral,
            }),
        }
    }
}

/// How long it took.
impl Permit {
    /// Whether the first token, which comes now, took longer than `bound` from sending, as the ledger
    /// has it, and from admission where nobody stamped that.
    fn is_late(&self, bound: Duration, moment: &Moment<'_>) -> bool {
        // Sent it was no earlier than admitted.
        if moment.get().saturating_sub(self.admitted_at) <= nanos(bound) {
            return false;
        }
        let attempt = self.attempt_now();
        attempt
            .and_then(|attempt| attempt.time_to_first_token())
            .is_none_or(|first| first > bound)
    }

    /// Whether more time than that has passed since it was sent, or admitted where nobody says when
    /// it was sent.
    fn is_past(&self, bound: Option<Duration>, moment: &Moment<'_>) -> bool {
        let Some(bound) = bound else {
            return false;
        };
        if moment.get().saturating_sub(self.admitted_at) <= nanos(bound) {
            return false;
        }
        let sent = self.attempt_now().and_then(|attempt| attempt.sent_at);
        match (sent, &self.ledger) {
            (Some(sent), Some(ledger)) => (ledger.began_at() + sent).elapsed() > bound,
            _ => true,
        }
    }

    /// Whether a call that failed so did not reach the target: a layer further in refused it or gave
    /// it up, or its deadline passed before it was sent.
    fn was_never_sent(&self, error: &LlmError) -> bool {
        if error.kind().is_unsent() {
            return true;
        }
        let deadline = error.kind() == ErrorKind::Timeout(TimeoutClock::Total);
        self.attempt_now().is_some_and(|attempt| {
            attempt.sent_at.is_none() && (deadline || attempt.billed == Billed::No)
        })
    }

    /// The attempt as it is now, or the last of those that a layer further in made of it.
    fn attempt_now(&self) -> Option<Attempt> {
        let attempts = self.ledger.as_ref()?.attempts();
        let later = attempts.skip(self.attempt as usize);
        later.fold(None, |own: Option<Attempt>, attempt| match own {
            Some(own) if !repeats(&attempt, &own) => Some(own),
            _ => Some(attempt),
        })
    }
}

/// Whether `attempt` asks once more what `own` asked.
fn repeats(attempt: &Attempt, own: &Attempt) -> bool {
    attempt.cause == AttemptCause::Retry && attempt.parent == Some(own.index)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
