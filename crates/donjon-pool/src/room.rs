//! One pool: its slots, its queue, what adapts its limit, and its figures.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{Call, ErrorKind, Idle, Key, LlmError, LlmRequest, shape::Admission};

use crate::{
    figures::{Counters, PoolStats, RejectReason},
    handle::PoolEvent,
    hold::HoldTime,
    limit::{Limit, Sample, Signal},
    line::{Entered, Line, Seats},
    permit::Permit,
    rules::{Common, HoldUntil, Overflow},
    slots::Word,
    source::Source,
    wait::Wait,
};

/// One pool of slots.
pub(crate) struct Room {
    pub(crate) line: Line,
    extra: u32,
    /// Slots are held until the commit point.
    pub(crate) until_committed: bool,
    pub(crate) wants_first_token: bool,
    key: Key,
    pub(crate) hold: HoldTime,
    pub(crate) counters: Counters,
    pub(crate) common: Arc<Common>,
    adapts: Option<Mutex<Box<dyn Limit>>>,
    /// An overload was told while another sample was heard.
    missed: AtomicBool,
    /// Somebody set its size by hand.
    by_hand: AtomicBool,
}

impl Room {
    /// `limit` slots, or as many as `adapts` says; `one_of_many` keys may have a pool like it.
    pub(crate) fn new(
        key: Key,
        limit: u32,
        adapts: Option<Box<dyn Limit>>,
        one_of_many: bool,
        common: Arc<Common>,
    ) -> Self {
        let limit = adapts.as_ref().map_or(limit, |limit| limit.limit().max(1));
        Self {
            line: Line::new(limit, common.rules.ageing),
            extra: common.rules.extra(),
            until_committed: common.rules.hold == HoldUntil::Committed,
            wants_first_token: adapts
                .as_ref()
                .is_some_and(|limit| limit.wants_first_token()),
            key,
            hold: HoldTime::default(),
            counters: Counters::new(one_of_many),
            common,
            adapts: adapts.map(Mutex::new),
            missed: AtomicBool::new(false),
            by_hand: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.adapts.is_some()
    }

    /// Decides on `request`.
    #[inline]
    pub(crate) fn admit(self: Arc<Self>, request: &mut LlmRequest) -> Admission<Permit, Wait> {
        match self.line.try_take(self.extra) {
            Some(word) => Admission::Yes(self.permit(word, None, &request.call)),
            None => self.admit_later(request),
        }
    }

    /// The slot of a call that was admitted at once.
    #[inline]
    fn permit(self: Arc<Self>, word: Word, now: Option<Duration>, call: &Call) -> Permit {
        self.counters.admitted.add();
        let full = word.in_use() >= word.limit();
        if full {
            self.note_full(word);
        }
        // Where there is room and nothing to learn, no clock is read.
        let since = now.or_else(|| (full || self.is_adaptive()).then(|| self.common.now()));
        let source = self.source(call);
        Permit::new(self, since, word.in_use(), source)
    }

    fn source(&self, call: &Call) -> Option<Source> {
        if self.is_adaptive() {
            Source::of(call)
        } else {
            None
        }
    }

    fn note_full(&self, word: Word) {
        if word.in_use() > word.limit() {
            self.counters.temporary.add(1);
            self.common.events.tell(|| PoolEvent::Temporary {
                key: self.key.clone(),
                beyond: word.in_use() - word.limit(),
            });
        }
    }

    #[cold]
    fn admit_later(self: Arc<Self>, request: &mut LlmRequest) -> Admission<Permit, Wait> {
        let rules = &self.common.rules;
        let call = &request.call;
        let refused = if call.time_left().is_zero() {
            Err((RejectReason::Deadline, None))
        } else if rules.overflow == Overflow::Reject {
            Err((RejectReason::Full, self.until(0)))
        } else {
            Ok(call.longest_wait())
        };
        let longest = match refused {
            Ok(longest) => longest.min(rules.max_wait.unwrap_or(Duration::MAX)),
            Err((reason, until)) => return Admission::No(self.refuse(call, reason, until)),
        };
        let now = self.common.now();
        let seats = Seats {
            most: rules.max_queued,
            evict: rules.evict,
        };
        let guest = rules.guest(request);
        let entered = self
            .line
            .enter(self.extra, guest, now, seats, |ahead, full| {
                let until = self.until(ahead);
                if full {
                    Some((RejectReason::QueueFull, until))
                } else {
                    let late = until.is_some_and(|until| until > longest);
                    late.then_some((RejectReason::TooLate, until))
                }
            });
        match entered {
            Entered::Admitted(word) => Admission::Yes(self.permit(word, Some(now), call)),
            Entered::Waits(place, seat) => {
                let source = self.source(call);
                Admission::Wait(Wait::new(self, (place, seat), (now, longest), call, source))
            }
            Entered::Refused((reason, until)) => Admission::No(self.refuse(call, reason, until)),
        }
    }

    /// When one before whom `ahead` others go can be served, as far as can be told.
    pub(crate) fn until(&self, ahead: usize) -> Option<Duration> {
        self.hold.until(ahead, self.line.read().limit())
    }

    /// Counts and tells a refusal; the error that the call is answered with.
    pub(crate) fn refuse(
        &self,
        call: &Call,
        reason: RejectReason,
        until: Option<Duration>,
    ) -> LlmError {
        if let Some(attempt) = call.attempt() {
            attempt.set_unsent();
        }
        self.counters.reject(reason);
        self.common.events.tell(|| PoolEvent::Rejected {
            key: self.key.clone(),
            reason,
        });
        if reason == RejectReason::Deadline {
            return Call::deadline_error();
        }
        let error = LlmError::new(ErrorKind::QueueFull, reason.says());
        match until {
            Some(until) => error.with_retry_after(until),
            None => error,
        }
    }

    /// Hears what a call showed that was sent after it had `waited` further in, unless it is just
    /// hearing of another one.
    pub(crate) fn learn(
        &self,
        admitted_at: Duration,
        waited: Duration,
        in_flight: u32,
        signal: Signal,
    ) {
        let Some(adapts) = &self.adapts else {
            return;
        };
        let mut adapts = match adapts.try_lock() {
            Ok(adapts) => adapts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                if signal == Signal::Overload {
                    self.missed.store(true, Relaxed);
                }
                return;
            }
        };
        let now = self.common.now();
        // Slots that are held for calls which wait further in, for a rate limit say, are no load.
        let held = now.saturating_sub(admitted_at);
        let in_flight = self.hold.at_server(in_flight, waited, held);
        let mut sample = Sample::new(now, admitted_at, in_flight, signal);
        adapts.sample(&sample);
        if self.missed.load(Relaxed) && self.missed.swap(false, Relaxed) {
            sample.signal = Signal::Overload;
            adapts.sample(&sample);
        }
        let limit = adapts.limit();
        drop(adapts);
        self.set_limit(limit, now, false);
    }

    /// Sets the size by hand; an adaptive limit goes on from there.
    pub(crate) fn resize(&self, size: u32) {
        let now = self.common.now();
        let limit = match &self.adapts {
            Some(adapts) => {
                let mut adapts = lock(adapts);
                adapts.set(size, now);
                adapts.limit()
            }
            None => size,
        };
        self.set_limit(limit, now, true);
    }

    pub(crate) fn keep(&self) {
        self.by_hand.store(true, Relaxed);
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.by_hand.load(Relaxed)
    }

    fn set_limit(&self, limit: u32, now: Duration, by_hand: bool) {
        let limit = limit.max(1);
        if limit == self.line.read().limit() {
            return;
        }
        let from = self.line.set_limit(limit, now);
        self.common.events.tell(|| PoolEvent::Resized {
            key: self.key.clone(),
            from,
            to: limit,
            by_hand,
        });
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let word = self.line.read();
        self.counters.read(word, self.line.waiting())
    }

    /// Whether another call would be refused for want of a place to wait in.
    pub(crate) fn is_full(&self) -> bool {
        let rules = &self.common.rules;
        match rules.overflow {
            Overflow::Reject => false,
            _ => self.line.read().waits() && self.line.waiting() >= rules.max_queued,
        }
    }
}

/// A pool in which nothing is held, for which nobody waits and whose size nobody set may be
/// forgotten, but only where other keys need the room: to make a pool anew takes longer than to find
/// it, and what an adaptive limit has learned would have to be learned anew.
impl Idle for Room {
    fn is_idle(&self) -> bool {
        let word = self.line.read();
        word.in_use() == 0 && !word.waits() && !self.is_kept()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.line.read();
        f.debug_struct("Room")
            .field("key", &self.key)
            .field("size", &word.limit())
            .field("in_use", &word.in_use())
            .finish_non_exhaustive()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<Box<T>>) -> MutexGuard<'_, Box<T>> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
