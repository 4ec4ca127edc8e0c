//! How a call survives a target that is slow, and a stream one that breaks, as the configuration says.

use donjon::{
    BoxLlmService, Preset,
    failover::Resume as Resuming,
    hedge::{ConfigError as HedgeError, HedgeDelay, HedgeLayer},
};
use serde::Deserialize;

use super::config::{ConfigError, Route, Span};

/// When a second attempt is made because the first is slow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// How late the first must be, in place of a percentile.
    pub delay: Option<Span>,
    /// Which share of first attempts is in time; 0.95 if nothing is said.
    pub percentile: Option<f64>,
    /// How many calls must be known before the percentile counts.
    pub minimum_calls: Option<u32>,
    /// How late the first must be until then; there are no hedges until then if not said.
    pub until_known: Option<Span>,
    /// How many a call may have.
    pub max_hedges: Option<usize>,
    /// How many each call earns for all.
    pub budget: Option<f64>,
    /// How many that were earned and not made are kept.
    pub burst: Option<u32>,
    /// For how long there are none after a rate limit or an overload that does not say how long.
    pub pause: Option<Span>,
}

/// How a stream goes on that broke after its first token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// How often.
    pub most: Option<u32>,
    /// How long each target has until it shows something new.
    pub within: Option<Span>,
    /// How many bytes of an answer that is given anew are swallowed at most.
    pub align_within: Option<usize>,
    /// Whether an answer is asked for anew where no target continues what was begun.
    pub restart: Option<bool>,
    /// Whether the target whose stream broke is asked once more, after all others.
    pub same_target: Option<bool>,
    /// For how long a target that rejected a begun answer is not asked to continue one.
    pub prefill_again_after: Option<Span>,
}

impl Route {
    /// What the route at `at` does about calls that are slow and streams that break.
    pub(super) fn survive(
        &self,
        at: usize,
        mut preset: Preset<BoxLlmService>,
    ) -> Result<Preset<BoxLlmService>, ConfigError> {
        if let Some(hedge) = &self.hedge {
            preset = preset.hedge(hedge.layer(at)?);
        }
        if let Some(resume) = &self.resume {
            preset = preset.resume(resume.resuming());
        }
        Ok(preset)
    }
}

impl Hedge {
    fn layer(&self, at: usize) -> Result<HedgeLayer, ConfigError> {
        let path = |key: &str| format!("routes[{at}].hedge.{key}");
        let says_otherwise = [
            (self.percentile.is_some(), "percentile"),
            (self.minimum_calls.is_some(), "minimum_calls"),
            (self.until_known.is_some(), "until_known"),
        ];
        if let (Some(_), Some((_, key))) = (
            self.delay,
            says_otherwise.into_iter().find(|(said, _)| *said),
        ) {
            return Err(ConfigError::new(path(key), "says nothing beside a `delay`"));
        }
        let mut hedge = HedgeLayer::builder().delay(self.late());
        if let Some(most) = self.max_hedges {
            hedge = hedge.max_hedges(most);
        }
        if let Some(share) = self.budget {
            hedge = hedge.budget(share);
        }
        if let Some(kept) = self.burst {
            hedge = hedge.burst(kept);
        }
        if let Some(pause) = self.pause {
            hedge = hedge.pause(pause.0);
        }
        let field = |error: &HedgeError| match error {
            HedgeError::Percentile(_) => "percentile",
            HedgeError::ZeroMinimumCalls => "minimum_calls",
            HedgeError::ZeroDelay if self.delay.is_none() => "until_known",
            other => other.field(),
        };
        let built = hedge.build();
        built.map_err(|error| ConfigError::new(path(field(&error)), error))
    }

    fn late(&self) -> HedgeDelay {
        if let Some(delay) = self.delay {
            return HedgeDelay::fixed(delay.0);
        }
        let mut late = HedgeDelay::percentile(self.percentile.unwrap_or(0.95));
        if let Some(calls) = self.minimum_calls {
            late = late.minimum_calls(calls);
        }
        if let Some(delay) = self.until_known {
            late = late.until_known(delay.0);
        }
        late
    }
}

impl Resume {
    fn resuming(&self) -> Resuming {
        let mut resume = Resuming::new()
            .restart(self.restart.unwrap_or(true))
            .same_target(self.same_target.unwrap_or(false));
        if let Some(most) = self.most {
            resume = resume.most(most);
        }
        if let Some(within) = self.within {
            resume = resume.within(within.0);
        }
        if let Some(bytes) = self.align_within {
            resume = resume.align_within(bytes);
        }
        if let Some(after) = self.prefill_again_after {
            resume = resume.prefill_again_after(after.0);
        }
        resume
    }
}
