//! The clocks, with time passed in.

use std::time::Duration;

use donjon_core::{AttemptRef, ErrorKind, LlmError, TimeoutClock, Until};
use tokio::time::Instant;

/// When something must have happened, and by which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) clock: TimeoutClock,
    /// The limit that the clock keeps.
    pub(crate) limit: Duration,
}

impl Due {
    /// `limit` from `now` on; `None` without one, or where it is so long that no moment is as late.
    pub(crate) fn after(
        now: Instant,
        clock: TimeoutClock,
        limit: Option<Duration>,
    ) -> Option<Self> {
        let limit = limit?;
        let at = now.checked_add(limit)?;
        Some(Self { at, clock, limit })
    }

    /// The deadline of a call, as it stands now.
    pub(crate) fn deadline(until: Until, attempt: Option<&AttemptRef>) -> Option<Self> {
        let ledger = attempt?.ledger();
        let at = until.at(Some(ledger))?;
        Some(Self {
            at,
            clock: TimeoutClock::Total,
            limit: at.saturating_duration_since(ledger.began_at()),
        })
    }

    /// The earlier of both; `one` where they fall together.
    pub(crate) fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.at < one.at { other } else { one }),
            (one, other) => one.or(other),
        }
    }

    /// The error that says so.
    pub(crate) fn error(&self) -> LlmError {
        let limit = self.limit;
        let message = match self.clock {
            TimeoutClock::FirstToken => format!("no first token within {limit:?}"),
            TimeoutClock::Idle => format!("nothing came for {limit:?} in the middle of the answer"),
            TimeoutClock::Response => format!("no answer within {limit:?}"),
            _ => format!("the call took longer than the {limit:?} that it had in all"),
        };
        LlmError::new(ErrorKind::Timeout(self.clock), message)
    }
}

/// How long a stream may carry nothing. It runs only while somebody waits for the stream, so that a
/// slow reader never makes it run out, and begins anew with each chunk that carries something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleClock {
    limit: Option<Duration>,
    left: Duration,
    /// While it runs.
    due: Option<Due>,
}

impl IdleClock {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            left: limit.unwrap_or_default(),
            due: None,
        }
    }

    /// Somebody waits: it runs. Asks for the time only if it did not run yet.
    pub(crate) fn run(&mut self, now: impl FnOnce() -> Instant) -> Option<Due> {
        let limit = self.limit?;
        if self.due.is_none() {
            let due = Due::after(now(), TimeoutClock::Idle, Some(self.left));
            self.due = due.map(|due| Due { limit, ..due });
        }
        self.due
    }

    /// A chunk came that carries something.
    pub(crate) fn begin_anew(&mut self) {
        self.due = None;
        self.left = self.limit.unwrap_or_default();
    }

    /// A chunk came that carries nothing: it stops until somebody waits again, and goes on where it
    /// stood.
    pub(crate) fn pause(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(due) = self.due.take() {
            self.left = due.at.saturating_duration_since(now());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_goes_on_after_a_ping_and_begins_anew_after_a_word() {
        let start = Instant::now();
        let at = |seconds| start + SECOND * seconds;
        let mut idle = IdleClock::new(Some(SECOND * 10));
        let due = |idle: &mut IdleClock, seconds| idle.run(|| at(seconds)).map(|due| due.at);
        assert_eq!(due(&mut idle, 0), Some(at(10)));
        assert_eq!(due(&mut idle, 5), Some(at(10)), "it runs already");
        idle.pause(|| at(6));
        // The reader takes its time, which does not count.
        assert_eq!(due(&mut idle, 100), Some(at(104)));
        idle.begin_anew();
        assert_eq!(due(&mut idle, 200), Some(at(210)));
        assert_eq!(idle.due.map(|due| due.limit), Some(SECOND * 10));
    }

    #[test]
    fn without_a_limit_it_never_runs_and_asks_for_no_time() {
        let mut idle = IdleClock::new(None);
        assert_eq!(idle.run(|| unreachable!("no clock is read")), None);
        let for_ever = Due::after(Instant::now(), TimeoutClock::Idle, Some(Duration::MAX));
        assert_eq!(for_ever, None, "no moment is as late");
    }

    proptest! {
        /// Whatever waits, pings and pauses of the reader there are, it runs out exactly when the
        /// time that was spent waiting since the last word reaches the limit.
        #[test]
        fn only_time_spent_waiting_counts(
            limit in 1..1_000_u32,
            steps in prop::collection::vec((0..50_u32, 0..50_u32, any::<bool>()), 1..50),
        ) {
            let mut now = Instant::now();
            let ms = Duration::from_millis(1);
            let mut idle = IdleClock::new(Some(ms * limit));
            let mut waited = 0;
            for (wait, rest, carries) in steps {
                let due = idle.run(|| now).expect("a limit").at;
                prop_assert_eq!(due, now + ms * (limit - waited));
                if waited + wait >= limit {
                    break;
                }
                now += ms * wait;
                waited += wait;
                if carries {
                    idle.begin_anew();
                    waited = 0;
                } else {
                    idle.pause(|| now);
                }
                now += ms * rest;
            }
        }
    }
}
