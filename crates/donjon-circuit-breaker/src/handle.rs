//! What a circuit breaker shows of itself, and how it is controlled by hand.

use std::{sync::Arc, time::Duration};

use donjon_core::{Events, Figure, Full, Key, Snapshot};
use tokio::time::Instant;

use crate::{
    breaker::{Breaker, Breakers, Kept},
    circuit::Reason,
    figures::{Event, Figures},
    policy::Exceeded,
    state::CircuitState,
    window::WindowCalls,
};

/// Reads and controls the circuits that all clones and services of one [`BreakerLayer`] share.
///
/// [`BreakerLayer`]: crate::BreakerLayer
#[derive(Clone, Debug)]
pub struct BreakerHandle {
    breakers: Arc<Breakers>,
}

/// A change of the state of a circuit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before it.
    pub from: CircuitState,
    /// The state after it.
    pub to: CircuitState,
    /// Why it changed.
    pub reason: Reason,
    /// When it changed.
    pub at: Instant,
}

/// What a circuit breaker tells of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BreakerEvent {
    /// A circuit changed its state.
    Transition {
        /// Which circuit.
        key: Key,
        /// The change.
        transition: Transition,
    },
    /// A circuit in [`CircuitState::MetricsOnly`] would have opened; told once for each kind of
    /// threshold until it changes its state.
    Exceeded {
        /// Which circuit.
        key: Key,
        /// What was reached.
        exceeded: Exceeded,
    },
}

/// What calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallFigures {
    /// Calls that succeeded and counted.
    pub successes: u64,
    /// Calls that failed and counted.
    pub failures: u64,
    /// Those of both that were slow, and those that were given up for being slow.
    pub slow: u64,
    /// Calls that failed, or were answered elsewhere, in a way that says nothing of the target.
    pub neutral: u64,
    /// Calls that were dropped.
    pub cancelled: u64,
    /// Calls that ended when the state that had admitted them was over, or after the deadline of
    /// their probe.
    pub late: u64,
    /// Calls that were rejected.
    pub rejected: u64,
}

impl CallFigures {
    fn read(figures: &dyn Figures) -> Self {
        Self {
            successes: figures.get(Event::Success),
            failures: figures.get(Event::Failure),
            slow: figures.get(Event::Slow),
            neutral: figures.get(Event::Neutral),
            cancelled: figures.get(Event::Cancelled),
            late: figures.get(Event::Late),
            rejected: figures.get(Event::Rejected),
        }
    }
}

impl BreakerHandle {
    pub(crate) fn new(breakers: Arc<Breakers>) -> Self {
        Self { breakers }
    }

    /// The circuit of a key, if there is one. Without keys it is that of [`Key::Global`], and
    /// always there.
    pub fn circuit(&self, key: &Key) -> Option<CircuitHandle> {
        self.breakers.get(key).map(CircuitHandle::new)
    }

    /// The circuit of a key, made if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Full`], if every circuit that may be kept holds calls back, or if the layer keeps one
    /// circuit and `key` is not [`Key::Global`].
    pub fn circuit_or_new(&self, key: &Key) -> Result<CircuitHandle, Full> {
        self.breakers.get_or_make(key).map(CircuitHandle::new)
    }

    /// The state of the circuit of a key; that of a key without a circuit is closed.
    pub fn state(&self, key: &Key) -> CircuitState {
        let circuit = self.circuit(key);
        circuit.map_or(CircuitState::Closed, |circuit| circuit.state())
    }

    /// The keys that have a circuit.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        self.breakers
            .for_each(|breaker| keys.push(breaker.key.clone()));
        keys
    }

    /// What calls of all keys came to.
    pub fn calls(&self) -> CallFigures {
        CallFigures::read(&self.breakers.config.total)
    }

    /// How many calls passed without a circuit, because there was no room for another one.
    pub fn untracked(&self) -> u64 {
        self.breakers.config.total.get(Event::Untracked)
    }

    /// [Resets](CircuitHandle::reset) every circuit.
    pub fn reset_all(&self) {
        let mut all = Vec::new();
        // Not while the map is looked at.
        self.breakers
            .for_each(|breaker| all.push(breaker.key.clone()));
        for circuit in all.iter().filter_map(|key| self.circuit(key)) {
            circuit.reset();
        }
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<BreakerEvent> {
        &self.breakers.config.events
    }
}

/// Reads and controls one circuit. While it is held its circuit is not forgotten.
#[derive(Clone, Debug)]
pub struct CircuitHandle {
    breaker: Arc<Breaker>,
}

impl CircuitHandle {
    fn new(breaker: Arc<Breaker>) -> Self {
        Self { breaker }
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.breaker.key
    }

    /// Its state. One that is open stays so after its delay until a call comes.
    pub fn state(&self) -> CircuitState {
        self.breaker.circuit.word().state()
    }

    /// How long it still lets no call pass, while it is open.
    pub fn open_for(&self) -> Option<Duration> {
        self.breaker.open_for()
    }

    /// What is in its window. While it is half-open these are its probes that ended, and while it is
    /// open the calls that it opened for, or those probes' predecessors.
    pub fn window(&self) -> WindowCalls {
        let config = &self.breaker.config;
        self.breaker.circuit.calls(&config.rules, config.now())
    }

    /// The failure rate that opens it, fixed or learned, where one does.
    pub fn failure_threshold(&self) -> Option<f64> {
        let rules = &self.breaker.config.rules;
        let window = self.window();
        self.breaker.circuit.failure_threshold(rules, &window)
    }

    /// How many probes are under way.
    pub fn probes(&self) -> usize {
        self.breaker.circuit.probes_under_way()
    }

    /// What its calls came to.
    pub fn calls(&self) -> CallFigures {
        CallFigures::read(self.breaker.figures())
    }

    /// Its latest changes of state, up to 32, oldest first.
    pub fn transitions(&self) -> Vec<Transition> {
        self.breaker.history()
    }

    /// Opens it as if a threshold had been reached: it lets probes pass after its delay.
    pub fn open(&self) {
        self.breaker.force(CircuitState::Open);
    }

    /// Lets probes pass now, if it is open; whether it is half-open then.
    pub fn probe_now(&self) -> bool {
        self.breaker.probe_now()
    }

    /// Closes it as if it had recovered.
    pub fn close(&self) {
        self.breaker.force(CircuitState::Closed);
    }

    /// Lets no call pass until told otherwise.
    pub fn force_open(&self) {
        self.breaker.force(CircuitState::ForcedOpen);
    }

    /// Lets all calls pass until told otherwise, and counts them.
    pub fn force_closed(&self) {
        self.breaker.force(CircuitState::ForcedClosed);
    }

    /// Lets all calls pass until told otherwise, and counts none.
    pub fn disable(&self) {
        self.breaker.force(CircuitState::Disabled);
    }

    /// Lets all calls pass until told otherwise, and only tells when it would have opened.
    pub fn metrics_only(&self) {
        self.breaker.force(CircuitState::MetricsOnly);
    }

    /// Closes it and forgets all that it knows: its window, what it learned, how often it opened,
    /// what servers asked for. Calls under way do not count any more.
    pub fn reset(&self) {
        self.breaker.reset();
    }
}

impl Snapshot for BreakerHandle {
    fn layer(&self) -> &'static str {
        "circuit_breaker"
    }

    /// Of all circuits together; those that are not closed are named one by one.
    fn figures(&self) -> Vec<Figure> {
        let all = &self.breakers.config.total;
        let calls = self.calls();
        let outcome = |name, value| Figure::counter("calls", value).label("outcome", name);
        let mut figures = vec![
            outcome("success", calls.successes),
            outcome("failure", calls.failures),
            outcome("neutral", calls.neutral),
            outcome("cancelled", calls.cancelled),
            outcome("late", calls.late),
            Figure::counter("slow", calls.slow),
            Figure::counter("rejected", calls.rejected),
        ];
        for state in CircuitState::ALL {
            let count = all.get(Event::Transition(*state));
            figures.push(Figure::counter("transitions", count).label("to", state.as_str()));
        }
        self.breakers.for_each(|breaker| {
            let state = breaker.circuit.word().state();
            if state != CircuitState::Closed {
                let figure = Figure::gauge("not_closed", 1.0).label("key", breaker.key.to_string());
                figures.push(figure.label("state", state.as_str()));
            }
        });
        match &self.breakers.kept {
            Kept::One(breaker) => {
                let window = CircuitHandle::new(breaker.clone()).window();
                let rate = |rate: Option<f64>| rate.unwrap_or(0.0);
                figures.push(Figure::gauge("window_calls", f64::from(window.calls)));
                figures.push(Figure::gauge("failure_rate", rate(window.failure_rate())));
                figures.push(Figure::gauge("slow_rate", rate(window.slow_rate())));
            }
            Kept::Many(keyed) => {
                #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
                figures.push(Figure::gauge("keys", keyed.len() as f64));
                figures.push(Figure::counter("evicted", keyed.evicted()));
                figures.push(Figure::counter("untracked", self.untracked()));
            }
        }
        figures
    }

    /// Not well if there are circuits, and none lets calls pass.
    fn health(&self) -> Result<(), String> {
        let (mut all, mut shut) = (0_usize, 0_usize);
        let config = &self.breakers.config;
        self.breakers.for_each(|breaker| {
            all += 1;
            let state = breaker.circuit.word().state();
            let holds_back = matches!(state, CircuitState::Open | CircuitState::ForcedOpen);
            if holds_back && breaker.circuit.peek(|| config.now()).is_err() {
                shut += 1;
            }
        });
        if all == 0 || shut < all {
            return Ok(());
        }
        let what = config.name.map_or("the target", |name| name.as_str());
        Err(match all {
            1 => format!("the circuit of {what} is open"),
            _ => format!("all {all} circuits of {what} are open"),
        })
    }
}
