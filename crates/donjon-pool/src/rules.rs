//! What a pool does with those who find no slot free, and how long slots are held.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, DefaultTable, Events, LlmRequest};
use tokio::time::Instant;

use crate::{error::ConfigError, handle::PoolEvent, line::Guest, queue::MAX_WEIGHT};

/// What becomes of a call that finds every slot in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It waits in the queue.
    #[default]
    Queue,
    /// It is refused at once.
    Reject,
    /// It takes one of up to so many temporary slots beyond the size; where those are in use too, it
    /// waits in the queue. What is beyond the size is given back first: it is handed on to nobody who
    /// waits.
    Temporary(u32),
}

/// How long a call holds its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldUntil {
    /// Until its response ends: the size is the number of answers in progress.
    #[default]
    ResponseEnds,
    /// Until its commit point: the size is the number of calls that wait for their first token (for
    /// their whole answer, where it comes whole).
    Committed,
}

/// What all pools of a layer have in common.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) overflow: Overflow,
    pub(crate) hold: HoldUntil,
    pub(crate) max_queued: usize,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) evict: bool,
    pub(crate) ageing: Duration,
    pub(crate) weights: HashMap<Arc<str>, u32>,
    pub(crate) classify: Arc<dyn Classify>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            overflow: Overflow::Queue,
            hold: HoldUntil::ResponseEnds,
            max_queued: 1_000,
            max_wait: None,
            evict: false,
            ageing: Duration::from_secs(10),
            weights: HashMap::new(),
            classify: Arc::new(DefaultTable),
        }
    }
}

impl Rules {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.ageing.is_zero() {
            return Err(ConfigError::ZeroAgeing);
        }
        if self.max_wait.is_some_and(|wait| wait.is_zero()) {
            return Err(ConfigError::ZeroMaxWait);
        }
        if self.overflow == Overflow::Temporary(0) {
            return Err(ConfigError::ZeroTemporary);
        }
        let senseless = |&(_, weight): &(&Arc<str>, &u32)| *weight == 0 || *weight > MAX_WEIGHT;
        match self.weights.iter().find(senseless) {
            Some((tenant, &weight)) => Err(ConfigError::Weight {
                tenant: tenant.clone(),
                weight,
            }),
            None => Ok(()),
        }
    }

    /// How many slots there may be beyond the limit.
    pub(crate) fn extra(&self) -> u32 {
        match self.overflow {
            Overflow::Temporary(slots) => slots,
            Overflow::Queue | Overflow::Reject => 0,
        }
    }

    pub(crate) fn guest(&self, request: &LlmRequest) -> Guest {
        let tenant = request.identity().tenant.clone();
        let weight = match &tenant {
            Some(tenant) if !self.weights.is_empty() => self.weights.get(tenant).copied(),
            _ => None,
        };
        Guest {
            priority: request.call.priority.0,
            tenant,
            weight: weight.unwrap_or(1),
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("overflow", &self.overflow)
            .field("hold", &self.hold)
            .field("max_queued", &self.max_queued)
            .field("max_wait", &self.max_wait)
            .field("ageing", &self.ageing)
            .finish_non_exhaustive()
    }
}

/// What all pools of a layer share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) rules: Rules,
    pub(crate) events: Events<PoolEvent>,
    epoch: Instant,
}

impl Common {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            events: Events::new(256),
            epoch: Instant::now(),
        }
    }

    /// The time since some moment in the past.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The same of a moment.
    pub(crate) fn of(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.epoch)
    }

    /// The moment `after` the one that [`now`](Self::now) counts from; `None` where that is too far.
    pub(crate) fn moment(&self, after: Duration) -> Option<Instant> {
        self.epoch.checked_add(after)
    }
}
