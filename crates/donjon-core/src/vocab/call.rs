//! What belongs to one call and not to its prompt.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    error::{ErrorKind, LlmError, TimeoutClock},
    ledger::{AttemptCause, AttemptRef, Ledger},
};

/// How urgent a call is; higher goes first. Default 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Priority {
    /// Nobody waits for it.
    pub const BATCH: Self = Self(0);
    /// The default.
    pub const NORMAL: Self = Self(128);
    /// A person waits for it.
    pub const INTERACTIVE: Self = Self(192);
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// How many tokens a call is expected to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// Tokens of the prompt.
    pub input: u64,
    /// The most tokens that the answer may have.
    pub output: u64,
}

impl Estimate {
    /// `input` tokens of prompt and at most `output` tokens of answer.
    pub const fn new(input: u64, output: u64) -> Self {
        Self { input, output }
    }

    /// Both together.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// What a call asks of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheDirective {
    /// Do not answer from the cache.
    pub no_cache: bool,
    /// Do not store the answer.
    pub no_store: bool,
    /// Do not answer with what is older.
    pub max_age: Option<Duration>,
}

/// What belongs to one call: deadline, priority, expectations, and its [`Ledger`] once it began.
///
/// A call begins in the outermost layer. Cloning one that has not begun gives an independent call,
/// so that a request can serve as a template; cloning one that has begun shares its ledger.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Call {
    within: Within,
    deadline: Option<Instant>,
    /// How urgent it is.
    pub priority: Priority,
    /// How many tokens it is expected to use, once somebody counted.
    pub estimate: Option<Estimate>,
    /// The longest wait (hint, bucket, queue) that may be begun while an untried target remains.
    pub patience: Option<Duration>,
    begun: Option<AttemptRef>,
    dispatched: bool,
    /// Whether several share it, so that its ledger says how long it may take.
    shared: bool,
}

/// How long a call that has not begun may take, in nanoseconds; a request is moved often, so that
/// each word of it counts.
#[derive(Clone, Copy)]
struct Within(u64);

impl Within {
    fn get(self) -> Option<Duration> {
        (self.0 < u64::MAX).then(|| Duration::from_nanos(self.0))
    }

    fn shorten(&mut self, within: Duration) {
        let nanos = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        self.0 = self.0.min(nanos);
    }
}

impl Default for Within {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Call {
    /// Begins the call if it has not begun: opens its ledger and starts its deadline.
    pub fn begin(&mut self) -> &Arc<Ledger> {
        self.begun().ledger()
    }

    /// Begins the call if it has a time that counts from its beginning: for a layer that has no use for
    /// a ledger, and may be the outermost.
    pub fn start_clock(&mut self) {
        if self.within.get().is_some() {
            self.begun();
        }
    }

    fn begun(&mut self) -> &mut AttemptRef {
        self.begun.get_or_insert_with(|| {
            let ledger = Ledger::open();
            if let Some(within) = self.within.get() {
                let at = saturating_add(ledger.began_at(), within);
                self.deadline = Some(self.deadline.map_or(at, |earlier| earlier.min(at)));
            }
            AttemptRef::none_of(ledger)
        })
    }

    /// The ledger, once the call has begun.
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.begun.as_ref().map(AttemptRef::ledger)
    }

    /// The attempt that this request belongs to, if one is open.
    pub fn attempt(&self) -> Option<&AttemptRef> {
        self.begun.as_ref().filter(|begun| begun.is_open())
    }

    /// Opens an attempt for this request; called by those who drive a call (failover, hedge) for
    /// each target that they choose.
    pub fn open_attempt(&mut self, cause: AttemptCause) -> &AttemptRef {
        self.dispatched = false;
        let attempt = self.begun();
        attempt.advance(cause);
        attempt
    }

    /// Opens an attempt for this request, which follows from the attempt at `parent` and not from the one
    /// that it came with: a hedge, beside an attempt that is slow.
    pub fn open_attempt_from(&mut self, cause: AttemptCause, parent: Option<u32>) -> &AttemptRef {
        self.dispatched = false;
        let attempt = self.begun();
        attempt.advance_from(cause, parent);
        attempt
    }

    /// The attempt to send now: the one that is open and was not claimed yet, else a new one. The
    /// innermost driver claims it, or the leaf where there is no driver.
    pub fn claim_attempt(&mut self, otherwise: AttemptCause) -> &AttemptRef {
        self.dispatched = false;
        let attempt = self.begun();
        if !attempt.is_open() || !attempt.claim() {
            attempt.advance(otherwise);
            attempt.claim_fresh();
        }
        attempt
    }

    /// The attempt to send this request under, for the leaf (and [`commit`](crate::commit) right
    /// above it): the one that is open, else a new one.
    pub fn dispatch(&mut self) -> &AttemptRef {
        let dispatched = std::mem::replace(&mut self.dispatched, true);
        let attempt = self.begun();
        if !attempt.is_open() || (attempt.was_sent() && !dispatched) {
            attempt.advance(AttemptCause::First);
        }
        attempt
    }

    /// Sets how long the call may take from its beginning. A shorter time stays; five hundred years and
    /// more are no limit.
    pub fn set_timeout(&mut self, within: Duration) {
        if u64::try_from(within.as_nanos()).is_err() {
            return;
        }
        match self.ledger() {
            Some(ledger) => {
                let at = saturating_add(ledger.began_at(), within);
                self.set_deadline(at);
            }
            None => self.within.shorten(within),
        }
    }

    /// Sets when the call must have ended. An earlier deadline stays.
    pub fn set_deadline(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |earlier| earlier.min(at)));
    }

    /// When the call must have ended. A time that was set from its beginning on counts once it has
    /// begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.until().at(self.ledger().map(|ledger| &**ledger))
    }

    /// When the call must have ended, to be kept and asked again: that of a call which is shared may
    /// move on.
    pub fn until(&self) -> Until {
        Until {
            own: self.deadline,
            shared: self.shared,
        }
    }

    /// Whether it is the call of several who ask the same; see [`share`](Self::share).
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Makes this the call of several who ask the same, and begins it. Its deadline so far is that of
    /// the first of them; [`Ledger::extend`] adds those of the others, and the latest counts. Other
    /// clones of the call keep the deadline that they have. What layers further in set stays a limit
    /// for all.
    pub fn share(&mut self) -> &Arc<Ledger> {
        self.begun();
        if !std::mem::replace(&mut self.shared, true) {
            let deadline = self.deadline.take();
            self.begun().ledger().extend(deadline);
        }
        self.begun().ledger()
    }

    /// How much time is left, [`Duration::MAX`] without a deadline.
    pub fn time_left(&self) -> Duration {
        self.deadline().map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// The longest wait that may be begun: the time left, and while an untried target remains no
    /// more than the patience.
    pub fn longest_wait(&self) -> Duration {
        let untried = self.ledger().is_some_and(|ledger| ledger.untried() > 0);
        let patience = self.patience.filter(|_| untried).unwrap_or(Duration::MAX);
        self.time_left().min(patience)
    }

    /// Refuses a wait of `wait` that the call's deadline or patience does not allow.
    pub fn allow_wait(&self, wait: Duration) -> Result<(), LlmError> {
        if wait <= self.longest_wait() {
            return Ok(());
        }
        Err(LlmError::new(
            ErrorKind::Unsent,
            "the wait is longer than the call's deadline or patience allows",
        )
        .with_retry_after(wait))
    }

    /// The error of a call whose deadline has passed.
    pub fn deadline_error() -> LlmError {
        LlmError::new(
            ErrorKind::Timeout(TimeoutClock::Total),
            "the call's deadline has passed",
        )
    }
}

/// When a call must have ended. That of a call which several share is the latest of theirs, and moves
/// on when another one joins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until {
    own: Option<Instant>,
    shared: bool,
}

impl Until {
    /// The moment, as it stands now in the ledger of the call.
    pub fn at(self, ledger: Option<&Ledger>) -> Option<Instant> {
        if !self.shared {
            return self.own;
        }
        let shared = ledger.and_then(Ledger::shared_until);
        match (self.own, shared) {
            (Some(own), Some(shared)) => Some(own.min(shared)),
            (own, shared) => own.or(shared),
        }
    }
}

/// `at + after`, or a moment some thirty years on where that cannot be told.
pub(crate) fn saturating_add(at: Instant, after: Duration) -> Instant {
    at.checked_add(after)
        .unwrap_or_else(|| at + Duration::from_secs(30 * 365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begun(within: Option<Duration>) -> (Call, Instant) {
        let mut call = Call::default();
        if let Some(within) = within {
            call.set_timeout(within);
        }
        let began = call.begin().began_at();
        (call, began)
    }

    #[test]
    fn the_deadline_of_a_shared_call_is_the_latest_of_its_members() {
        let (own, began) = begun(Some(SECOND));
        let mut shared = own.clone();
        let ledger = shared.share().clone();
        let kept = shared.until();
        assert_eq!(shared.deadline(), Some(began + SECOND));
        ledger.extend(Some(began + SECOND * 3));
        ledger.extend(Some(began + SECOND * 2));
        assert_eq!(shared.deadline(), Some(began + SECOND * 3));
        assert_eq!(kept.at(Some(&ledger)), shared.deadline(), "whoever kept it");
        assert_eq!(own.deadline(), Some(began + SECOND), "the first one's own");
        ledger.extend(None);
        assert_eq!(shared.deadline(), None);
        assert_eq!(shared.time_left(), Duration::MAX);
    }

    #[test]
    fn what_is_set_further_in_limits_all_who_share_it() {
        let (mut call, began) = begun(None);
        let ledger = call.share().clone();
        assert_eq!(call.deadline(), None, "the first has none");
        call.set_deadline(began + SECOND);
        ledger.extend(Some(began + SECOND * 9));
        call.share();
        assert_eq!(call.deadline(), Some(began + SECOND));
    }

    #[test]
    fn a_call_of_one_knows_no_other_deadline() {
        let (call, began) = begun(Some(SECOND));
        call.ledger().expect("begun").extend(None);
        assert_eq!(call.deadline(), Some(began + SECOND));
    }

    #[test]
    fn a_clock_starts_where_there_is_one() {
        let mut call = Call::default();
        call.start_clock();
        assert!(call.ledger().is_none(), "it has nothing to count");
        call.set_timeout(SECOND);
        call.start_clock();
        let began = call.ledger().expect("begun").began_at();
        assert_eq!(call.deadline(), Some(began + SECOND));
    }
}
