//! The mechanism of one circuit: who may pass, what calls come to, and when the state changes. Pure
//! and lock-free, with time (nanoseconds since some moment) passed in.

mod change;
mod period;

use std::{sync::OnceLock, time::Duration};

use period::Period;

use crate::{
    policy::{Exceeded, Failures, Learned, Rules},
    probes::{Probes, Ticket},
    state::{CircuitState, State, Word},
    sync::{
        Apart, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    window::{Mark, WindowCalls},
};

pub(crate) use change::Change;
pub use change::Reason;

/// The mechanism of one circuit.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: Apart<State>,
    /// Two, used in turn: while one counts, whoever is late from the time before can only reach the
    /// other.
    periods: (Period, OnceLock<Period>),
    /// Made, as the second period is, when it is first needed: most circuits never open.
    probes: OnceLock<Probes>,
    /// How many times it opened since it last recovered.
    openings: AtomicU32,
    /// Until when servers asked to be left alone.
    hinted: AtomicU64,
    learned: Learned,
}

/// What a call was admitted as.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// In this state.
    Call(u32),
    /// As a probe of a half-open circuit.
    Probe(Ticket, u32),
    /// Not to be judged.
    Unjudged,
}

/// Why a call may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Open for so long from now on.
    Open(Duration),
    /// As many probes as may be are under way.
    NoProbe,
    /// Until told otherwise.
    Forced,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts.
    Counts(Mark),
    /// It was given up for being slow: it counts as slow, and neither as an answer nor as a failure.
    Superseded,
    /// It says nothing of the target.
    Nothing,
}

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It counted.
    Counted,
    /// It belonged to an earlier state, or to a probe that had lost its place.
    Late,
    /// There was nothing to count.
    Nothing,
}

impl Circuit {
    pub(crate) fn new(rules: &Rules) -> Self {
        let circuit = Self {
            state: Apart::default(),
            periods: (Period::new(rules), OnceLock::new()),
            probes: OnceLock::new(),
            openings: AtomicU32::new(0),
            hinted: AtomicU64::new(0),
            learned: Learned::default(),
        };
        if cfg!(loom) {
            // The model checker does not see into what waits here.
            circuit.probes.get_or_init(|| Probes::new(rules.probes));
            circuit.periods.1.get_or_init(|| Period::new(rules));
        }
        circuit
    }

    pub(crate) fn word(&self) -> Word {
        self.state.0.get()
    }

    /// Says whether a call could pass now, and takes nothing.
    pub(crate) fn peek(&self, now: impl Fn() -> u64) -> Result<(), Refusal> {
        let word = self.word();
        match word.state() {
            CircuitState::Open => match word.until().checked_sub(now()) {
                None | Some(0) => Ok(()),
                Some(left) => Err(Refusal::Open(Duration::from_nanos(left))),
            },
            CircuitState::HalfOpen => match self.probes.get() {
                Some(probes) if !probes.has_room(word.generation(), now()) => Err(Refusal::NoProbe),
                _ => Ok(()),
            },
            CircuitState::ForcedOpen => Err(Refusal::Forced),
            _ => Ok(()),
        }
    }

    /// Lets a call pass now, or not.
    pub(crate) fn admit(
        &self,
        rules: &Rules,
        now: impl Fn() -> u64 + Copy,
        tell: impl Fn(Change) + Copy,
    ) -> Result<Admitted, Refusal> {
        loop {
            let word = self.word();
            match word.state() {
                CircuitState::Closed | CircuitState::ForcedClosed | CircuitState::MetricsOnly => {
                    return Ok(Admitted::Call(word.id()));
                }
                CircuitState::Disabled => return Ok(Admitted::Unjudged),
                CircuitState::ForcedOpen => return Err(Refusal::Forced),
                CircuitState::Open => {
                    let left = word.until().saturating_sub(now());
                    if left > 0 {
                        return Err(Refusal::Open(Duration::from_nanos(left)));
                    }
                    self.go(word, rules, CircuitState::HalfOpen, Reason::DelayOver, tell);
                }
                CircuitState::HalfOpen => {
                    let moment = now();
                    let deadline = moment.saturating_add(nanos(rules.probe_deadline));
                    let generation = word.generation();
                    let probes = self.probes.get_or_init(|| Probes::new(rules.probes));
                    if probes.settle(generation, moment) {
                        self.judge_probes(word, rules, now, tell);
                    } else if let Some(ticket) = probes.take(generation, moment, deadline) {
                        return Ok(Admitted::Probe(ticket, word.id()));
                    } else if self.word() == word {
                        return Err(Refusal::NoProbe);
                    }
                }
            }
        }
    }

    /// A call that passed has shown something.
    pub(crate) fn committed(&self, admitted: &mut Admitted, slow: bool) {
        if let (Admitted::Probe(ticket, _), Some(probes)) = (admitted, self.probes.get()) {
            probes.commit(ticket, slow);
        }
    }

    /// A call that passed came to this, and its server asked for so much time.
    pub(crate) fn record(
        &self,
        rules: &Rules,
        admitted: &Admitted,
        verdict: Verdict,
        hint: Option<Duration>,
        now: impl Fn() -> u64 + Copy,
        tell: impl Fn(Change) + Copy,
    ) -> Recorded {
        if let Some(hint) = hint {
            self.hint(hint, now());
        }
        let mark = match verdict {
            Verdict::Counts(mark) => mark,
            Verdict::Superseded => Mark::SlowSuccess,
            Verdict::Nothing => {
                if let (Admitted::Probe(ticket, _), Some(probes)) = (admitted, self.probes.get()) {
                    probes.give_back(ticket);
                }
                return Recorded::Nothing;
            }
        };
        let word = self.word();
        match admitted {
            Admitted::Unjudged => Recorded::Nothing,
            Admitted::Call(id) if *id == word.id() => {
                self.record_call(word, rules, mark, verdict, now, tell);
                Recorded::Counted
            }
            Admitted::Probe(ticket, id) if *id == word.id() => {
                let ended = self
                    .probes
                    .get()
                    .is_some_and(|probes| probes.end(ticket, mark));
                if !ended {
                    return Recorded::Late;
                }
                self.judge_probes(word, rules, now, tell);
                Recorded::Counted
            }
            Admitted::Call(_) | Admitted::Probe(..) => Recorded::Late,
        }
    }

    fn record_call(
        &self,
        word: Word,
        rules: &Rules,
        mark: Mark,
        verdict: Verdict,
        now: impl Fn() -> u64 + Copy,
        tell: impl Fn(Change) + Copy,
    ) {
        let period = self.period(word, rules);
        if let Some(after) = rules.forget_after {
            period.forget(after, now());
        }
        let calls = period.calls.record(mark, now);
        let streak = period.streak(verdict);
        if word.state() == CircuitState::ForcedClosed {
            return;
        }
        // The sums may be off for a moment; nothing opens for what is not there.
        let failures = |calls: &WindowCalls| rules.failures_exceed(calls, streak, &self.learned);
        let slow = |calls: &WindowCalls| rules.slow_exceeds(calls);
        let sure = |exceeds: &dyn Fn(&WindowCalls) -> Option<Exceeded>| {
            exceeds(&calls).and_then(|_| exceeds(&period.calls.scan(now)))
        };
        if word.state() == CircuitState::MetricsOnly {
            Period::tell_once(&period.told_failures, || sure(&failures), tell);
            Period::tell_once(&period.told_slow, || sure(&slow), tell);
        } else if let Some(exceeded) = sure(&failures).or_else(|| sure(&slow)) {
            self.open(word, rules, Reason::Exceeded(exceeded), now(), tell);
            return;
        }
        if let Failures::Learned(adaptive) = &rules.failures {
            let minimum = rules.minimum_calls();
            self.learned.see(adaptive, mark.failed(), minimum);
        }
    }

    /// What counts, or did when something last did.
    fn period(&self, word: Word, rules: &Rules) -> &Period {
        let (first, second) = &self.periods;
        match word.side() {
            0 => first,
            _ => second.get_or_init(|| Period::new(rules)),
        }
    }

    fn probes_ended(&self, word: Word) -> WindowCalls {
        let probes = self.probes.get();
        probes.map_or_else(WindowCalls::default, |probes| {
            probes.ended(word.generation())
        })
    }

    fn judge_probes(
        &self,
        word: Word,
        rules: &Rules,
        now: impl Fn() -> u64,
        tell: impl Fn(Change),
    ) {
        let ended = self.probes_ended(word);
        if ended.calls < rules.probes_needed() {
            return;
        }
        match rules.probes_exceed(&ended) {
            Some(exceeded) => self.open(word, rules, Reason::Exceeded(exceeded), now(), tell),
            None => self.recover(word, rules, Reason::Recovered, tell),
        }
    }

    /// Closes it. What servers asked for before is over then.
    fn recover(&self, word: Word, rules: &Rules, reason: Reason, tell: impl Fn(Change)) {
        let asked = self.hinted.load(Acquire);
        if self.go(word, rules, CircuitState::Closed, reason, tell) {
            self.openings.store(0, Relaxed);
            // Unless one has asked for more since.
            let _ = self.hinted.compare_exchange(asked, 0, AcqRel, Acquire);
        }
    }

    fn open(&self, word: Word, rules: &Rules, reason: Reason, now: u64, tell: impl Fn(Change)) {
        let delay = rules.delay.after(self.openings.load(Acquire));
        let until = now.saturating_add(nanos(delay));
        let until = until.max(self.hinted.load(Acquire));
        let next = word.next(CircuitState::Open).open_until(until);
        if self.state.0.go(word, next) {
            self.openings.fetch_add(1, AcqRel);
            self.learned.drop_block();
            // What a server asked for meanwhile.
            self.extend(self.hinted.load(Acquire));
            tell(Change::State {
                from: word.state(),
                to: CircuitState::Open,
                reason,
            });
        }
    }

    /// Goes on from `word` to another state; false if somebody else was faster.
    fn go(
        &self,
        word: Word,
        rules: &Rules,
        to: CircuitState,
        reason: Reason,
        tell: impl Fn(Change),
    ) -> bool {
        let next = word.next(to);
        // A new period begins empty, before anybody can see it.
        if to.records() && self.word() == word {
            self.period(next, rules).clear();
        }
        let went = self.state.0.go(word, next);
        if went {
            tell(Change::State {
                from: word.state(),
                to,
                reason,
            });
        }
        went
    }

    /// A server asks for so much time. Nothing shortens what another one asked for.
    fn hint(&self, hint: Duration, now: u64) {
        let until = now.saturating_add(nanos(hint));
        self.hinted.fetch_max(until, AcqRel);
        // Either this sees that it has opened, or whoever opens it sees the hint.
        self.extend(until);
    }

    /// Keeps it open until then at least, if it is.
    fn extend(&self, until: u64) {
        loop {
            let word = self.state.0.latest();
            let longer = word.open_until(until);
            let is_longer = longer.until() > word.until();
            if word.state() != CircuitState::Open || !is_longer || self.state.0.go(word, longer) {
                return;
            }
        }
    }

    /// Goes to this state by hand, whatever it is in; nothing happens if it is in it already.
    pub(crate) fn force(
        &self,
        rules: &Rules,
        to: CircuitState,
        now: u64,
        tell: impl Fn(Change) + Copy,
    ) {
        loop {
            let word = self.word();
            if word.state() == to {
                return;
            }
            match to {
                CircuitState::Open => self.open(word, rules, Reason::ByHand, now, tell),
                CircuitState::Closed => self.recover(word, rules, Reason::ByHand, tell),
                _ => {
                    self.go(word, rules, to, Reason::ByHand, tell);
                }
            }
        }
    }

    /// Lets probes pass now, whatever is left of the open delay; false if it is not open.
    pub(crate) fn probe_now(&self, rules: &Rules, tell: impl Fn(Change) + Copy) -> bool {
        loop {
            let word = self.word();
            match word.state() {
                CircuitState::HalfOpen => return true,
                CircuitState::Open | CircuitState::ForcedOpen => {
                    self.go(word, rules, CircuitState::HalfOpen, Reason::ByHand, tell);
                }
                _ => return false,
            }
        }
    }

    /// Closes it and forgets everything.
    pub(crate) fn reset(&self, rules: &Rules, tell: impl Fn(Change) + Copy) {
        self.learned.clear();
        self.hinted.store(0, Relaxed);
        self.openings.store(0, Relaxed);
        while !self.go(
            self.word(),
            rules,
            CircuitState::Closed,
            Reason::Reset,
            tell,
        ) {}
    }

    /// The calls that it goes by now: its probes while it is half-open; while it is open what it
    /// opened for.
    pub(crate) fn calls(&self, rules: &Rules, now: u64) -> WindowCalls {
        let word = self.word();
        match word.state() {
            CircuitState::HalfOpen => self.probes_ended(word),
            CircuitState::Disabled => WindowCalls::default(),
            _ => {
                let period = self.period(word, rules);
                let last = period.last.load(Acquire);
                let forgotten = |after| last != 0 && now.saturating_sub(last) > nanos(after);
                if rules.forget_after.is_some_and(forgotten) {
                    return WindowCalls::default();
                }
                period.calls.scan(|| now)
            }
        }
    }

    /// How many probes are under way.
    pub(crate) fn probes_under_way(&self) -> usize {
        let word = self.word();
        match word.state() {
            CircuitState::HalfOpen => {
                let probes = self.probes.get();
                probes.map_or(0, |probes| probes.under_way(word.generation()))
            }
            _ => 0,
        }
    }

    /// The failure rate that opens it now, where one does.
    pub(crate) fn failure_threshold(&self, rules: &Rules, calls: &WindowCalls) -> Option<f64> {
        match &rules.failures {
            Failures::Ignored => None,
            Failures::Fixed(threshold) => Some(*threshold),
            Failures::Learned(adaptive) => Some(self.learned.threshold(adaptive, calls.calls)),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod reference;
#[cfg(all(test, not(loom)))]
mod tests;
