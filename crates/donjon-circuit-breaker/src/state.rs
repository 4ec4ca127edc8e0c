//! The state of a circuit, in one word.

use std::fmt;

use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// What a circuit does with calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum CircuitState {
    /// All pass, and are judged.
    #[default]
    Closed = 0,
    /// None passes until the open delay is over; then the next one makes it half-open.
    Open = 1,
    /// A few pass, as probes.
    HalfOpen = 2,
    /// None passes, by hand, until told otherwise.
    ForcedOpen = 3,
    /// All pass, by hand, and are counted.
    ForcedClosed = 4,
    /// All pass, by hand, and none is counted.
    Disabled = 5,
    /// All pass, by hand, and are counted; what would have opened the circuit is told.
    MetricsOnly = 6,
}

impl CircuitState {
    /// Every state.
    pub const ALL: &'static [Self] = &[
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::ForcedClosed,
        Self::Disabled,
        Self::MetricsOnly,
    ];

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }

    /// Whether calls in it are put into a window.
    pub(crate) const fn records(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed | Self::MetricsOnly)
    }

    const fn from_code(code: u64) -> Self {
        match code & 7 {
            1 => Self::Open,
            2 => Self::HalfOpen,
            3 => Self::ForcedOpen,
            4 => Self::ForcedClosed,
            5 => Self::Disabled,
            6 => Self::MetricsOnly,
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state as it is at one moment: 3 bits which it is, 1 bit which of the two windows counts, 20 bits
/// how many states there were before it (its generation), 40 bits until when it is open, in
/// milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

const STATE: u64 = 0b111;
const SIDE: u64 = 0b1000;
const GENERATION: u64 = ((1 << 20) - 1) << 4;
const UNTIL: u32 = 24;
/// Some 34 years on: later than that cannot be told.
const LATEST: u64 = (1 << 40) - 1;

const MILLISECOND: u64 = 1_000_000;

impl Word {
    pub(crate) fn state(self) -> CircuitState {
        CircuitState::from_code(self.0)
    }

    /// Which of the two windows counts, or did when one last did.
    pub(crate) fn side(self) -> usize {
        usize::from(self.0 & SIDE != 0)
    }

    pub(crate) fn generation(self) -> u64 {
        (self.0 & GENERATION) >> 4
    }

    /// Tells this state from all others that the circuit was or will be in.
    pub(crate) fn id(self) -> u32 {
        (self.0 & (GENERATION | SIDE | STATE)) as u32
    }

    /// Until when it is open, in nanoseconds.
    pub(crate) fn until(self) -> u64 {
        (self.0 >> UNTIL) * MILLISECOND
    }

    /// The state after it. One that records takes the window that did not count before.
    pub(crate) fn next(self, state: CircuitState) -> Self {
        let side = self.0 & SIDE ^ if state.records() { SIDE } else { 0 };
        let generation = ((self.generation() + 1) << 4) & GENERATION;
        Self(generation | side | state as u64)
    }

    /// The same, open until then, in nanoseconds: no shorter, and longer by less than a millisecond.
    pub(crate) fn open_until(self, until: u64) -> Self {
        let until = until.div_ceil(MILLISECOND).min(LATEST);
        Self(self.0 & (GENERATION | SIDE | STATE) | until << UNTIL)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.state(), self.generation())
    }
}

/// The state of a circuit now.
#[derive(Debug, Default)]
pub(crate) struct State(AtomicU64);

impl State {
    pub(crate) fn get(&self) -> Word {
        Word(self.0.load(Acquire))
    }

    /// The same, no older than what anybody has seen before: who comes later sees what was written
    /// before this.
    pub(crate) fn latest(&self) -> Word {
        Word(self.0.fetch_or(0, AcqRel))
    }

    /// Goes on to another state; false if it is not in `from` any more.
    pub(crate) fn go(&self, from: Word, to: Word) -> bool {
        self.0
            .compare_exchange(from.0, to.0, AcqRel, Acquire)
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_what_is_put_into_it() {
        let mut word = State::default().get();
        assert_eq!(word.state(), CircuitState::Closed);
        for (generation, state) in CircuitState::ALL.iter().cycle().take(50).enumerate() {
            let before = word;
            word = word.next(*state);
            assert_eq!(word.state(), *state);
            assert_eq!(word.generation(), generation as u64 + 1);
            assert_eq!(word.side() != before.side(), state.records());
            let open = word.open_until(5_000_000_001);
            assert_eq!(open.until(), 5_001_000_000, "rounded up");
            assert_eq!(open.id(), word.id());
            assert_ne!(word.id(), before.id());
            assert_eq!(open.next(*state).until(), 0);
        }
    }

    #[test]
    fn what_is_too_large_stays_in_its_place() {
        let word = Word(GENERATION | SIDE).next(CircuitState::Open);
        assert_eq!((word.generation(), word.side()), (0, 1));
        let open = word.open_until(u64::MAX);
        assert_eq!(open.id(), word.id());
        assert!(open.until() > 34 * 365 * 24 * 3_600 * 1_000_000_000);
    }
}
