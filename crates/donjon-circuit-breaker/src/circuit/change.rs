//! What a circuit tells of.

use crate::{policy::Exceeded, state::CircuitState};

/// A change that the circuit went through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    State {
        from: CircuitState,
        to: CircuitState,
        reason: Reason,
    },
    /// A threshold was reached in a state that only tells of it.
    Exceeded(Exceeded),
}

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// A threshold was reached.
    Exceeded(Exceeded),
    /// The open delay was over, and a call came.
    DelayOver,
    /// The probes came out well.
    Recovered,
    /// By hand.
    ByHand,
    /// It was reset by hand: what was known is forgotten.
    Reset,
}
