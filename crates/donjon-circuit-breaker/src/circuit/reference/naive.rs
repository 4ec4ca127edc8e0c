//! The reference.

use super::super::*;

const MS: u64 = 1_000_000;

/// A call that was kept for good.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at: u64,
    mark: Mark,
    verdict: Verdict,
    /// It came after a time in which all before it was forgotten.
    fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Sent,
    Committed(bool),
    Ended(Mark),
    /// It came to nothing, or lost its place.
    Gone,
}

/// A circuit that knows every call of its life.
#[derive(Debug)]
pub(super) struct Naive {
    rules: Rules,
    pub(super) state: CircuitState,
    /// How many states there were before this one.
    age: usize,
    /// What was recorded in each period that records.
    kept: Vec<Kept>,
    /// Each probe of this half-open state: when its deadline is, and what became of it.
    probes: Vec<(u64, Probe)>,
    /// Which of them had each place last.
    places: Vec<Option<usize>>,
    pub(super) until: u64,
    pub(super) hints: Vec<u64>,
    pub(super) openings: u32,
    pub(super) told: (bool, bool),
}

/// What a call was admitted as: in the state of this age, as the probe of this number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    age: usize,
    pub(super) probe: Option<usize>,
    judged: bool,
}

impl Naive {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            places: vec![None; rules.probes as usize],
            rules,
            state: CircuitState::Closed,
            age: 0,
            kept: Vec::new(),
            probes: Vec::new(),
            until: 0,
            hints: Vec::new(),
            openings: 0,
            told: (false, false),
        }
    }

    pub(super) fn go(&mut self, to: CircuitState) {
        self.state = to;
        self.age += 1;
        self.probes.clear();
        self.places.fill(None);
        if to.records() {
            self.kept.clear();
            self.told = (false, false);
        }
    }

    pub(super) fn open(&mut self, now: u64) {
        let factor = 2_u32.saturating_pow(self.openings).min(4);
        let delay = self.rules.delay.after(0) * factor;
        let hints = self.hints.iter().copied().max().unwrap_or(0);
        self.until = round_up((now + nanos(delay)).max(hints));
        self.openings += 1;
        self.go(CircuitState::Open);
    }

    pub(super) fn admit(&mut self, now: u64) -> Result<Pass, Refusal> {
        let pass = |naive: &Self| Pass {
            age: naive.age,
            probe: None,
            judged: naive.state != CircuitState::Disabled,
        };
        match self.state {
            CircuitState::ForcedOpen => Err(Refusal::Forced),
            CircuitState::Open if now < self.until => {
                Err(Refusal::Open(Duration::from_nanos(self.until - now)))
            }
            CircuitState::Open | CircuitState::HalfOpen => {
                if self.state == CircuitState::Open {
                    self.go(CircuitState::HalfOpen);
                }
                let age = self.age;
                // Those that have shown something by their deadline have passed.
                let mut passed = false;
                for (deadline, probe) in &mut self.probes {
                    if let Probe::Committed(slow) = *probe
                        && now >= *deadline
                    {
                        *probe = Probe::Ended(Mark::new(false, slow));
                        passed = true;
                    }
                }
                if passed {
                    self.judge_probes(now);
                }
                if self.age != age {
                    return self.admit(now);
                }
                self.probe(now).ok_or(Refusal::NoProbe)
            }
            _ => Ok(pass(self)),
        }
    }

    /// Takes the first place that is free, or whose probe is late.
    fn probe(&mut self, now: u64) -> Option<Pass> {
        let free = |place: &Option<usize>| {
            place.is_none_or(|at| match self.probes[at] {
                (deadline, Probe::Sent) => now >= deadline,
                (_, Probe::Gone) => true,
                (_, Probe::Committed(_) | Probe::Ended(_)) => false,
            })
        };
        let place = self.places.iter().position(free)?;
        if let Some(late) = self.places[place] {
            self.probes[late].1 = Probe::Gone;
        }
        let deadline = round_up(now + nanos(self.rules.probe_deadline));
        self.probes.push((deadline, Probe::Sent));
        let probe = self.probes.len() - 1;
        self.places[place] = Some(probe);
        Some(Pass {
            age: self.age,
            probe: Some(probe),
            judged: true,
        })
    }

    pub(super) fn commit(&mut self, pass: Pass, slow: bool) {
        if let Some(at) = pass.probe
            && pass.age == self.age
            && self.probes[at].1 == Probe::Sent
        {
            self.probes[at].1 = Probe::Committed(slow);
        }
    }

    pub(super) fn end(
        &mut self,
        pass: Pass,
        verdict: Verdict,
        hint: Option<Duration>,
        now: u64,
    ) -> Recorded {
        if let Some(hint) = hint {
            let until = now + nanos(hint);
            self.hints.push(until);
            if self.state == CircuitState::Open {
                self.until = self.until.max(round_up(until));
            }
        }
        let current = pass.age == self.age;
        let mark = match verdict {
            Verdict::Counts(mark) => mark,
            Verdict::Superseded => Mark::SlowSuccess,
            Verdict::Nothing => {
                if let Some(at) = pass.probe
                    && current
                    && matches!(self.probes[at].1, Probe::Sent | Probe::Committed(_))
                {
                    self.probes[at].1 = Probe::Gone;
                }
                return Recorded::Nothing;
            }
        };
        if !pass.judged {
            return Recorded::Nothing;
        }
        if !current {
            return Recorded::Late;
        }
        if let Some(at) = pass.probe {
            if !matches!(self.probes[at].1, Probe::Sent | Probe::Committed(_)) {
                return Recorded::Late;
            }
            self.probes[at].1 = Probe::Ended(mark);
            self.judge_probes(now);
            return Recorded::Counted;
        }
        let last = self.kept.last().map(|kept| kept.at);
        let fresh = last
            .zip(self.rules.forget_after)
            .is_some_and(|(last, after)| now.max(1) - last.max(1) > nanos(after));
        self.kept.push(Kept {
            at: now,
            mark,
            verdict,
            fresh,
        });
        self.judge(now);
        Recorded::Counted
    }

    /// The calls since the last time that all was forgotten.
    fn remembered(&self) -> &[Kept] {
        let fresh = self.kept.iter().rposition(|kept| kept.fresh);
        &self.kept[fresh.unwrap_or(0)..]
    }

    fn window(&self, now: u64) -> WindowCalls {
        let mut calls = WindowCalls::default();
        let remembered = self.remembered();
        match self.rules.window.0 {
            crate::window::Kind::Count(size) => {
                let skip = remembered.len().saturating_sub(size as usize);
                for kept in &remembered[skip..] {
                    calls.add(kept.mark);
                }
            }
            crate::window::Kind::Time { length, buckets } => {
                let tick = nanos(length).div_ceil(u64::from(buckets));
                for kept in remembered {
                    if kept.at / tick + u64::from(buckets) > now / tick {
                        calls.add(kept.mark);
                    }
                }
            }
        }
        calls
    }

    fn streak(&self) -> u32 {
        let mut streak = 0;
        for kept in self.remembered().iter().rev() {
            match kept.verdict {
                Verdict::Counts(mark) if mark.failed() => streak += 1,
                Verdict::Counts(_) => break,
                Verdict::Superseded | Verdict::Nothing => {}
            }
        }
        streak
    }

    fn judge(&mut self, now: u64) {
        let calls = self.window(now);
        let streak = self.streak();
        let enough = calls.calls >= self.rules.minimum_calls();
        let rate = |part: u32| f64::from(part) / f64::from(calls.calls);
        let in_a_row = self.rules.consecutive.is_some_and(|most| streak >= most);
        let failures = match &self.rules.failures {
            Failures::Fixed(most) => enough && rate(calls.failures) >= *most,
            _ => false,
        };
        let slow = self
            .rules
            .slow_rate
            .is_some_and(|most| enough && rate(calls.slow) >= most);
        match self.state {
            CircuitState::Closed if in_a_row || failures || slow => self.open(now),
            CircuitState::MetricsOnly => {
                self.told.0 |= in_a_row || failures;
                self.told.1 |= slow;
            }
            _ => {}
        }
    }

    fn ended(&self) -> WindowCalls {
        let mut ended = WindowCalls::default();
        for (_, probe) in &self.probes {
            if let Probe::Ended(mark) = probe {
                ended.add(*mark);
            }
        }
        ended
    }

    fn judge_probes(&mut self, now: u64) {
        let ended = self.ended();
        if ended.calls < self.rules.minimum_calls.min(self.rules.probes) {
            return;
        }
        let rate = |part: u32| f64::from(part) / f64::from(ended.calls);
        let most = match &self.rules.failures {
            Failures::Fixed(most) => *most,
            _ => 0.5,
        };
        let slow = self
            .rules
            .slow_rate
            .is_some_and(|most| rate(ended.slow) >= most);
        if rate(ended.failures) >= most || slow {
            self.open(now);
        } else {
            self.openings = 0;
            self.hints.clear();
            self.go(CircuitState::Closed);
        }
    }

    pub(super) fn force(&mut self, to: CircuitState, now: u64) {
        if self.state == to {
            return;
        }
        match to {
            CircuitState::Open => self.open(now),
            CircuitState::Closed => {
                self.openings = 0;
                self.hints.clear();
                self.go(to);
            }
            _ => self.go(to),
        }
    }

    /// What is to be seen of it.
    pub(super) fn shows(&self, now: u64) -> WindowCalls {
        match self.state {
            CircuitState::HalfOpen => self.ended(),
            CircuitState::Disabled => WindowCalls::default(),
            _ => {
                let last = self.kept.last().map(|kept| kept.at.max(1));
                let forgotten = last
                    .zip(self.rules.forget_after)
                    .is_some_and(|(last, after)| now.saturating_sub(last) > nanos(after));
                if forgotten {
                    return WindowCalls::default();
                }
                self.window(now)
            }
        }
    }
}

/// Moments at which something is over are kept in whole milliseconds.
fn round_up(moment: u64) -> u64 {
    moment.div_ceil(MS) * MS
}
