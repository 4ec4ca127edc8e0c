//! The circuits of a layer, each with its key, its figures and its history.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use donjon_core::{
    Classify, ErrorKind, Events, Full, Health, Idle, Key, KeyBy, Keyed, LlmError, LlmRequest, Name,
};
use tokio::time::Instant;

use crate::{
    circuit::{Admitted, Change, Circuit, Reason, Recorded, Refusal, Verdict},
    figures::{Event, Figures, Own, Total},
    handle::{BreakerEvent, Transition},
    policy::Rules,
    state::CircuitState,
};

/// What a layer, its services and its circuits go by.
pub(crate) struct Config {
    pub(crate) rules: Rules,
    pub(crate) classify: Arc<dyn Classify>,
    pub(crate) overload_counts: bool,
    pub(crate) slow_first_token: Option<Duration>,
    pub(crate) slow_answer: Option<Duration>,
    pub(crate) name: Option<Name>,
    pub(crate) events: Events<BreakerEvent>,
    /// Whether there may be more than one circuit.
    pub(crate) keyed: bool,
    pub(crate) total: Total,
    /// Moments are counted from here.
    pub(crate) epoch: Instant,
}

impl Config {
    /// Nanoseconds since the layer was built.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether it matters how long calls take.
    pub(crate) const fn times_calls(&self) -> bool {
        self.slow_first_token.is_some() || self.slow_answer.is_some()
    }

    /// Whether an error says that the target is not well.
    pub(crate) fn blames(&self, error: &LlmError) -> bool {
        match self.classify.classify(error).health {
            Health::Fault => true,
            Health::Overload => self.overload_counts,
            _ => false,
        }
    }
}

/// The moment at which something is done: the clock is read where it is needed, and once.
pub(crate) struct Moment<'a> {
    config: &'a Config,
    at: Cell<Option<u64>>,
}

impl<'a> Moment<'a> {
    pub(crate) const fn new(config: &'a Config) -> Self {
        Self {
            config,
            at: Cell::new(None),
        }
    }

    /// Nanoseconds since the layer was built.
    pub(crate) fn get(&self) -> u64 {
        self.at.get().unwrap_or_else(|| {
            let now = self.config.now();
            self.at.set(Some(now));
            now
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("rules", &self.rules)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The circuit of one key.
#[derive(Debug)]
pub(crate) struct Breaker {
    pub(crate) config: Arc<Config>,
    pub(crate) key: Key,
    pub(crate) circuit: Circuit,
    /// Counted where there are others.
    own: Own,
    /// The latest changes of its state; nobody comes here while nothing changes.
    history: Mutex<VecDeque<Transition>>,
}

/// How many changes of its state a circuit remembers.
const HISTORY: usize = 32;

impl Breaker {
    fn new(config: &Arc<Config>, key: Key) -> Self {
        Self {
            circuit: Circuit::new(&config.rules),
            config: config.clone(),
            key,
            own: Own::default(),
            history: Mutex::default(),
        }
    }

    /// Says whether `request` could pass now.
    pub(crate) fn peek(&self, request: &LlmRequest) -> Result<(), LlmError> {
        let peeked = self.circuit.peek(|| self.config.now());
        peeked.map_err(|refusal| self.reject(request, refusal))
    }

    /// Lets `request` pass now, or not.
    pub(crate) fn admit(&self, request: &LlmRequest) -> Result<Admitted, LlmError> {
        let moment = Moment::new(&self.config);
        let now = || moment.get();
        self.circuit
            .admit(&self.config.rules, now, |change| self.tell(change))
            .map_err(|refusal| self.reject(request, refusal))
    }

    /// A call that passed came to this.
    pub(crate) fn record(
        &self,
        admitted: &Admitted,
        verdict: Verdict,
        hint: Option<Duration>,
        moment: &Moment<'_>,
    ) -> Recorded {
        let now = || moment.get();
        let tell = |change| self.tell(change);
        self.circuit
            .record(&self.config.rules, admitted, verdict, hint, now, tell)
    }

    /// Goes to this state by hand.
    pub(crate) fn force(&self, to: CircuitState) {
        let now = self.config.now();
        self.circuit
            .force(&self.config.rules, to, now, |change| self.tell(change));
    }

    pub(crate) fn probe_now(&self) -> bool {
        self.circuit
            .probe_now(&self.config.rules, |change| self.tell(change))
    }

    pub(crate) fn reset(&self) {
        self.circuit
            .reset(&self.config.rules, |change| self.tell(change));
    }

    pub(crate) fn count(&self, event: Event) {
        self.config.total.count(event);
        if self.config.keyed {
            self.own.count(event);
        }
    }

    pub(crate) fn figures(&self) -> &dyn Figures {
        if self.config.keyed {
            &self.own
        } else {
            &self.config.total
        }
    }

    pub(crate) fn history(&self) -> Vec<Transition> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().cloned().collect()
    }

    /// How long it stays open, if it is.
    pub(crate) fn open_for(&self) -> Option<Duration> {
        match self.circuit.peek(|| self.config.now()) {
            Err(Refusal::Open(left)) => Some(left),
            _ => None,
        }
    }

    fn reject(&self, request: &LlmRequest, refusal: Refusal) -> LlmError {
        self.count(Event::Rejected);
        let message = match refusal {
            Refusal::Open(_) => "the circuit is open",
            Refusal::NoProbe => "the circuit is half-open, and its probes are under way",
            Refusal::Forced => "the circuit is held open by hand",
        };
        let mut error = LlmError::new(ErrorKind::CircuitOpen, message);
        if let Refusal::Open(left) = refusal {
            error = error.with_retry_after(left);
        }
        let attempt = request.call.attempt();
        let target = attempt.and_then(|attempt| attempt.target());
        match target.or(self.config.name) {
            Some(target) => error.with_target(target),
            None => error,
        }
    }

    fn tell(&self, change: Change) {
        let events = &self.config.events;
        let key = || self.key.clone();
        match change {
            Change::Exceeded(exceeded) => events.tell(|| BreakerEvent::Exceeded {
                key: key(),
                exceeded,
            }),
            Change::State { from, to, reason } => {
                self.count(Event::Transition(to));
                let at = Instant::now();
                let transition = Transition {
                    from,
                    to,
                    reason,
                    at,
                };
                self.remember(transition.clone());
                events.tell(|| BreakerEvent::Transition {
                    key: key(),
                    transition,
                });
            }
        }
    }

    fn remember(&self, transition: Transition) {
        // A reset that changes no state is no news for the history of states.
        if transition.from == transition.to && transition.reason != Reason::Reset {
            return;
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(transition);
    }
}

/// A circuit that holds calls back is never forgotten. Others are where there is no room for a new
/// one: first those that know nothing bad of their targets, and any other only if there are none.
impl Idle for Breaker {
    fn is_idle(&self) -> bool {
        self.may_be_forgotten() && {
            let window = self.circuit.calls(&self.config.rules, self.config.now());
            window.failures == 0 && window.slow == 0
        }
    }

    fn may_be_forgotten(&self) -> bool {
        self.circuit.word().state() == CircuitState::Closed
    }
}

/// The circuits of one layer.
#[derive(Debug)]
pub(crate) struct Breakers {
    pub(crate) config: Arc<Config>,
    key_by: KeyBy,
    pub(crate) kept: Kept,
}

#[derive(Debug)]
pub(crate) enum Kept {
    /// One for all calls.
    One(Arc<Breaker>),
    /// One for each key.
    Many(Keyed<Breaker>),
}

impl Breakers {
    pub(crate) fn new(config: Config, key_by: KeyBy, max_keys: usize) -> Self {
        let config = Arc::new(config);
        let kept = if config.keyed {
            Kept::Many(Keyed::new(max_keys))
        } else {
            Kept::One(Arc::new(Breaker::new(&config, Key::Global)))
        };
        Self {
            config,
            key_by,
            kept,
        }
    }

    /// The circuit of `request`, to be used at once.
    ///
    /// Where every circuit that may be kept holds calls back, a new key has none: its calls pass.
    pub(crate) fn of(&self, request: &LlmRequest) -> Option<Arc<Breaker>> {
        match &self.kept {
            Kept::One(breaker) => Some(breaker.clone()),
            Kept::Many(_) => {
                let found = self.get_or_make(&self.key_by.key(request)).ok();
                if found.is_none() {
                    self.config.total.count(Event::Untracked);
                }
                found
            }
        }
    }

    /// Looks at the circuit of `request`, if there is one.
    pub(crate) fn peek(&self, request: &LlmRequest) -> Result<(), LlmError> {
        match &self.kept {
            Kept::One(breaker) => breaker.peek(request),
            Kept::Many(keyed) => match keyed.get(&self.key_by.key(request)) {
                Some(breaker) => breaker.peek(request),
                None => Ok(()),
            },
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Breaker>> {
        match &self.kept {
            Kept::One(breaker) => (*key == breaker.key).then(|| breaker.clone()),
            Kept::Many(keyed) => keyed.get(key),
        }
    }

    pub(crate) fn get_or_make(&self, key: &Key) -> Result<Arc<Breaker>, Full> {
        match &self.kept {
            Kept::One(breaker) if *key == breaker.key => Ok(breaker.clone()),
            Kept::One(_) => Err(Full),
            Kept::Many(keyed) => keyed.get_or_make(key, || Breaker::new(&self.config, key.clone())),
        }
    }

    pub(crate) fn for_each(&self, mut each: impl FnMut(&Breaker)) {
        match &self.kept {
            Kept::One(breaker) => each(breaker),
            Kept::Many(keyed) => keyed.for_each(|_, breaker| each(breaker)),
        }
    }
}
