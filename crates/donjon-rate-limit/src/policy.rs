//! What a layer was told to do.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, DefaultTable, Estimate, KeyBy, LlmRequest, Scope};

use crate::{
    limit::{Unit, Weight},
    quota::{Need, Quotas},
};

/// What becomes of a call that does not fit now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It waits for its turn, first come, first served.
    #[default]
    Wait,
    /// It is refused at once, and told when it would fit.
    Reject,
}

/// What becomes of a new key when `max_keys` are known and none of them is unused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// One of the oldest that limit nobody at the moment is forgotten for it: one of whose limits no
    /// more than a half is used, for which nobody waits and no call is under way. If it comes back
    /// within the window it begins anew, so it may then get up to half of its limits too much.
    #[default]
    Forget,
    /// Its calls are refused, so that no key ever gets more than its limits.
    Refuse,
}

/// How much a request weighs, as the user has it.
pub(crate) type WeighAll = Arc<dyn Fn(&LlmRequest) -> Weight + Send + Sync>;

pub(crate) struct Policy {
    pub(crate) key_by: KeyBy,
    pub(crate) overflow: Overflow,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) max_queue: usize,
    pub(crate) scope: Scope,
    pub(crate) learn: bool,
    pub(crate) weigh: Option<WeighAll>,
    pub(crate) default_estimate: Estimate,
}

/// Which errors say that a provider has too much to do.
#[derive(Clone)]
pub(crate) struct Classifier(pub(crate) Arc<dyn Classify>);

impl Default for Classifier {
    fn default() -> Self {
        Self(Arc::new(DefaultTable))
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifier")
    }
}

impl Policy {
    /// Adds what `request` needs of each limit to `need`; the tokens of its prompt.
    #[inline]
    pub(crate) fn need(&self, request: &LlmRequest, quotas: &Quotas, need: &mut Need) -> u64 {
        if let Some(weigh) = &self.weigh {
            let weight = weigh(request);
            need.extend(quotas.all().iter().map(|quota| weight.of(quota.unit())));
            return weight.estimate.input;
        }
        let counted = request.call.estimate.as_ref();
        let estimate = counted.unwrap_or(&self.default_estimate);
        let mut input = estimate.input;
        for quota in quotas.all() {
            // What nobody counted cannot be too large.
            let tokens = |amount: u64| match counted {
                Some(_) => amount,
                None => amount.min(quota.capacity()),
            };
            if matches!(quota.unit(), Unit::Tokens | Unit::InputTokens) {
                input = tokens(input);
            }
            need.push(match quota.unit() {
                Unit::Requests => 1,
                Unit::Custom(_, weigh) => weigh(request),
                Unit::Tokens => tokens(estimate.total()),
                Unit::InputTokens => tokens(estimate.input),
                Unit::OutputTokens => tokens(estimate.output),
            });
        }
        input
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("key_by", &self.key_by)
            .field("overflow", &self.overflow)
            .field("max_wait", &self.max_wait)
            .field("max_queue", &self.max_queue)
            .field("scope", &self.scope)
            .field("learn", &self.learn)
            .finish_non_exhaustive()
    }
}
