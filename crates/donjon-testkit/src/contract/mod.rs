//! The laws that every layer around a language model should keep, as checks that anyone can run on
//! any layer.
//!
//! [`check`] runs all that can be run without knowing the layer; [`Contract`] leaves some out; each
//! is a function of its own as well. They put a [`ScriptedLlm`] below the layer, drive it by hand,
//! and panic with the [`Law`] that was broken and how.
//!
//! ```
//! use donjon_core::CommitLayer;
//! use donjon_testkit::contract;
//! use tower::Layer;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime").block_on(async {
//! // In a test of yours: #[tokio::test(start_paused = true)]
//! contract::check(|leaf| CommitLayer::new().layer(leaf.at_head())).await;
//! # });
//! ```
//!
//! # What the caller brings
//!
//! * A paused clock on tokio's current-thread runtime: the checks take what lasts twenty minutes for
//!   what lasts for ever.
//! * A closure that puts a *new* layer around the model it is given, each time it is called, so that
//!   what one check did is not seen by the next.
//! * Limits that the checks do not reach: some make a thousand calls, of which up to a half fail, so
//!   a breaker needs a high minimum of calls and a rate limit a high rate. Below four calls at once a
//!   limit must make its callers wait rather than refuse them.
//!
//! The model resolves at its commit point, as leaves here do; `leaf.at_head()` undoes that.

mod cancel;
mod fidelity;
mod leaf;
mod polling;
mod readiness;
mod state;

use donjon_core::LlmService;

pub use cancel::drops_give_back;
pub use fidelity::{one_end_each, sources_are_kept, streams_are_unchanged};
pub use polling::{budget_is_no_refusal, waits_do_not_spin};
pub use readiness::{
    calls_are_readied, clones_are_readied_anew, readiness_is_given_back, readiness_never_fails,
};
pub use state::state_is_shared;

use crate::ScriptedLlm;

/// Checks that what `layer` puts around a model keeps every [`Law`] but [`Law::StateIsShared`],
/// which needs to know the layer: see [`state_is_shared`].
///
/// # Panics
///
/// When a law is broken; the message names it.
pub async fn check<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    Contract::new().check(layer).await;
}

/// Which laws are checked: all, until told otherwise.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Contract {
    except: Vec<Law>,
}

impl Contract {
    /// Checks every law.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out a law that does not apply to the layer.
    pub fn except(mut self, law: Law) -> Self {
        self.except.push(law);
        self
    }

    /// Checks that what `layer` puts around a model keeps the laws.
    ///
    /// # Panics
    ///
    /// When one is broken; the message names it.
    pub async fn check<S: LlmService + Clone>(&self, layer: impl Fn(ScriptedLlm) -> S) {
        let layer = &layer;
        for law in Law::ALL {
            if self.except.contains(law) {
                continue;
            }
            match law {
                Law::CallsAreReadied => calls_are_readied(layer).await,
                Law::ClonesAreReadiedAnew => clones_are_readied_anew(layer).await,
                Law::ReadinessIsGivenBack => readiness_is_given_back(layer).await,
                Law::ReadinessNeverFails => readiness_never_fails(layer).await,
                Law::DropsGiveBack => drops_give_back(layer).await,
                Law::BudgetIsNoRefusal => budget_is_no_refusal(layer).await,
                Law::WaitsDoNotSpin => waits_do_not_spin(layer).await,
                Law::SourcesAreKept => sources_are_kept(layer).await,
                Law::StreamsAreUnchanged => streams_are_unchanged(layer).await,
                Law::OneEndEach => one_end_each(layer).await,
                Law::StateIsShared => {}
            }
        }
    }
}

/// What a layer must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// The service below is called only where it was readied, on that very instance.
    CallsAreReadied,
    /// A clone of a readied service is not readied; readied anew it serves, and the original does.
    ClonesAreReadiedAnew,
    /// What was readied below and is not called is given back: when its owner is dropped, or waits
    /// for something else.
    ReadinessIsGivenBack,
    /// `poll_ready` never fails for a state that can heal; whoever stands above takes it as final.
    ReadinessNeverFails,
    /// Dropped at any await point, a call gives back everything that it held.
    DropsGiveBack,
    /// A task that used up tokio's cooperative budget is made to wait, and not refused.
    BudgetIsNoRefusal,
    /// Whoever waits is woken, and does not wake themselves.
    WaitsDoNotSpin,
    /// An error comes out with the error of the model and all its causes behind it.
    SourcesAreKept,
    /// Answers come out as they went in: each chunk, in its order, and nothing else.
    StreamsAreUnchanged,
    /// Whatever happens to a call, observers around it and below it hear exactly one end.
    OneEndEach,
    /// Whatever one layer is put around shares the layer's state.
    StateIsShared,
}

impl Law {
    /// Every law, in the order in which they are checked: a wait that spins would hold up the others.
    pub const ALL: &'static [Self] = &[
        Self::WaitsDoNotSpin,
        Self::CallsAreReadied,
        Self::ClonesAreReadiedAnew,
        Self::ReadinessIsGivenBack,
        Self::ReadinessNeverFails,
        Self::DropsGiveBack,
        Self::BudgetIsNoRefusal,
        Self::SourcesAreKept,
        Self::StreamsAreUnchanged,
        Self::OneEndEach,
        Self::StateIsShared,
    ];

    /// What it says.
    pub fn says(self) -> &'static str {
        match self {
            Self::CallsAreReadied => {
                "the service below is called only on an instance that was readied for that call"
            }
            Self::ClonesAreReadiedAnew => {
                "a clone is not readied; it must be readied anew, and the original still serves"
            }
            Self::ReadinessIsGivenBack => {
                "what was readied below is given back by whoever is dropped, or waits for something \
                 else"
            }
            Self::ReadinessNeverFails => "`poll_ready` never fails for a state that can heal",
            Self::DropsGiveBack => "a call that is dropped gives back everything that it held",
            Self::BudgetIsNoRefusal => {
                "a task that used up tokio's cooperative budget is not refused"
            }
            Self::WaitsDoNotSpin => "whoever waits is woken, and does not wake themselves",
            Self::SourcesAreKept => "an error keeps the model's error and all its causes",
            Self::StreamsAreUnchanged => "answers come out as they went in",
            Self::OneEndEach => "every observer of a call hears exactly one end",
            Self::StateIsShared => "whatever one layer is put around shares the layer's state",
        }
    }

    /// Panics, naming the law.
    fn broken(self, how: &str) -> ! {
        panic!("contract broken, {self:?} ({}): {how}", self.says())
    }
}
