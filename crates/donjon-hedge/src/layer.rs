//! The layer and its builder.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, DefaultTable, LlmRequest};
use tower_layer::Layer;

use crate::{
    bucket::HEDGE, delay::HedgeDelay, error::ConfigError, handle::HedgeHandle, service::Hedge,
    state::State,
};

/// Makes a second attempt when the first is late; see the [crate](crate).
///
/// All services that one layer and its clones make share its budget, what it knows of latencies, its
/// pauses and its figures.
#[derive(Clone)]
pub struct HedgeLayer {
    shared: Arc<Shared>,
}

/// What a layer and its services share.
pub(crate) struct Shared {
    pub(crate) policy: Policy,
    pub(crate) when: Option<Arc<When>>,
    pub(crate) classify: Arc<dyn Classify>,
    pub(crate) state: State,
}

type When = dyn Fn(&LlmRequest) -> bool + Send + Sync;

/// What does not change.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) delay: HedgeDelay,
    pub(crate) max_hedges: usize,
    pub(crate) pause: Duration,
    pub(crate) longest_pause: Duration,
    pub(crate) nearly_out: f64,
    pub(crate) sent_only: bool,
}

impl HedgeLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> HedgeBuilder {
        HedgeBuilder {
            policy: Policy {
                delay: HedgeDelay::default(),
                max_hedges: 1,
                pause: Duration::from_secs(5),
                longest_pause: Duration::from_secs(60),
                nearly_out: 0.05,
                sent_only: false,
            },
            budget: 0.1,
            burst: 10,
            when: None,
            classify: Arc::new(DefaultTable),
        }
    }

    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> HedgeHandle {
        HedgeHandle::new(self.shared.clone())
    }
}

/// One hedge a call, when the first attempt is later than nineteen of twenty (once 100 calls are known),
/// for at most every tenth call, with ten kept at most.
impl Default for HedgeLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<S> Layer<S> for HedgeLayer {
    type Service = Hedge<S>;

    fn layer(&self, inner: S) -> Hedge<S> {
        Hedge::new(inner, self.shared.clone())
    }
}

impl fmt::Debug for HedgeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Builds a [`HedgeLayer`].
#[derive(Clone)]
#[must_use]
pub struct HedgeBuilder {
    policy: Policy,
    budget: f64,
    burst: u32,
    when: Option<Arc<When>>,
    classify: Arc<dyn Classify>,
}

impl HedgeBuilder {
    /// Sets how late the first attempt must be, counted from when it was sent: a `Duration`, or a
    /// [percentile](HedgeDelay::percentile); default the 95th.
    pub fn delay(mut self, delay: impl Into<HedgeDelay>) -> Self {
        self.policy.delay = delay.into();
        self
    }

    /// Sets how many hedges a call may have, each one delay after the other; from 1 to 3, default 1.
    pub const fn max_hedges(mut self, hedges: usize) -> Self {
        self.policy.max_hedges = hedges;
        self
    }

    /// Sets how many hedges each call earns for all, above 0 and up to 1; default 0.1: every tenth call
    /// can have one. Exact to a millionth.
    pub const fn budget(mut self, hedges: f64) -> Self {
        self.budget = hedges;
        self
    }

    /// Sets how many hedges that were earned and not made are kept at most; default 10. So many are
    /// there in the beginning.
    pub const fn burst(mut self, hedges: u32) -> Self {
        self.burst = hedges;
        self
    }

    /// Sets for how long there are no hedges after a rate limit, an overload, or a limit of ours, where
    /// nothing says how long; default 5 s.
    pub const fn pause(mut self, pause: Duration) -> Self {
        self.policy.pause = pause;
        self
    }

    /// Sets for how long there are none at most, whatever a server says; default 1 min.
    pub const fn longest_pause(mut self, pause: Duration) -> Self {
        self.policy.longest_pause = pause;
        self
    }

    /// Sets what share of a limit may be left, as the server says, for it to be as good as used up:
    /// until it comes back there are no hedges. Default 0.05.
    pub const fn nearly_out(mut self, share: f64) -> Self {
        self.policy.nearly_out = share;
        self
    }

    /// Sets which requests may be made twice; default all.
    pub fn when(mut self, may: impl Fn(&LlmRequest) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(may));
        self
    }

    /// Sets whether only a call that was sent can be late; default no: one of which nothing is stamped as
    /// sent counts from its begin. With yes, a call that waits in a queue of ours is never late, and
    /// neither is one of a service that stamps nothing ([`CommitLayer`](donjon_core::CommitLayer) does).
    pub const fn sent_only(mut self, only: bool) -> Self {
        self.policy.sent_only = only;
        self
    }

    /// Sets which errors are worth a hedge at once and which ask for a pause; default the table in
    /// [`Disposition`](donjon_core::Disposition): what may be retried is worth one, an overload asks for a
    /// pause.
    pub fn classify(mut self, classify: impl Classify + 'static) -> Self {
        self.classify = Arc::new(classify);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A value that makes no sense, with its name.
    pub fn build(self) -> Result<HedgeLayer, ConfigError> {
        let policy = self.policy;
        policy.delay.check()?;
        if !(1..=3).contains(&policy.max_hedges) {
            return Err(ConfigError::MaxHedges(policy.max_hedges));
        }
        if !(self.budget > 0.0 && self.budget <= 1.0) {
            return Err(ConfigError::Budget(self.budget));
        }
        if self.burst == 0 {
            return Err(ConfigError::ZeroBurst);
        }
        if !(0.0..=1.0).contains(&policy.nearly_out) {
            return Err(ConfigError::NearlyOut(policy.nearly_out));
        }
        if policy.pause.is_zero() || policy.pause > policy.longest_pause {
            return Err(ConfigError::Pause {
                pause: policy.pause,
                longest: policy.longest_pause,
            });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "up to a million"
        )]
        let share = (self.budget * HEDGE as f64).round() as u64;
        let state = State::new(&policy, share, u64::from(self.burst) * HEDGE);
        Ok(HedgeLayer {
            shared: Arc::new(Shared {
                policy,
                when: self.when,
                classify: self.classify,
                state,
            }),
        })
    }
}

impl fmt::Debug for HedgeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeBuilder")
            .field("policy", &self.policy)
            .field("budget", &self.budget)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}
