//! Which target a route asks, and when one is left alone, as the configuration says.

use std::{collections::HashMap, sync::Arc};

use donjon::{
    BoxLlmService, Estimate, KeyBy, Name, NanoUsd, Preset, Usage,
    budget::{Budgets, PriceTable, ServiceTier},
    failover::{
        Capability, ConfigError as FailoverError, HealthPolicy, LeastBusy, LeastLatency,
        LowestCost, Probes as Probing, RoundRobin, Sticky, Target as Asked, Weighted,
        WhenOut as IfOut,
    },
};
use serde::Deserialize;

use super::{
    budget::prices_of,
    config::{Config, ConfigError, Route, Span, Target},
    leaf::Leaf,
};

/// How one of the targets of the best priority is chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The first as configured.
    #[default]
    Ordered,
    /// One after the other.
    RoundRobin,
    /// By weight, evenly spread.
    Weighted,
    /// The quicker of two at random.
    LeastLatency,
    /// The one with the fewest calls in progress for its weight.
    LeastBusy,
    /// The one whose price for the call is lowest.
    LowestCost,
    /// The same for the same key.
    Sticky,
}

/// The key of a sticky route.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum StickyBy {
    /// The tenant.
    Tenant,
    /// The tenant and the user.
    User,
    /// The model and the text of the first message.
    FirstMessage,
}

/// What is done when no target is left but such as are out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum WhenOut {
    /// The one that comes back first is asked all the same.
    LeastBad,
    /// The call fails at once, and says when to come back.
    Fail,
}

/// When a target is taken out because of how its calls went, and how it comes back.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// So many faults one after the other take it out.
    pub consecutive_failures: Option<u32>,
    /// The share of faults that takes it out.
    pub failure_rate: Option<f64>,
    /// How many calls a share is made of at least.
    pub minimum_calls: Option<u32>,
    /// The calls of which time are judged.
    pub window: Option<Span>,
    /// For how long it is out at first; doubles each time that it fails when it comes back.
    pub out_for: Option<Span>,
    /// The longest that it is out.
    pub longest: Option<Span>,
    /// Which share of the targets may be out at once.
    pub most_out: Option<f64>,
    /// Over how long one that came back grows to all of its calls.
    pub return_over: Option<Span>,
    /// Whether one that says for how long it has too much to do is left alone until then.
    pub overload_hints: Option<bool>,
    /// A first token that comes later is a fault.
    pub slow_first_token: Option<Span>,
    /// A whole answer that comes later is a fault.
    pub slow_answer: Option<Span>,
}

/// How targets are looked at, whether calls go to them or not: their models are listed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// How long after one look comes the next.
    pub interval: Option<Span>,
    /// How long it may take.
    pub timeout: Option<Span>,
    /// So many failures in a row take a target out.
    pub down_after: Option<u32>,
    /// So many successes in a row let it return.
    pub up_after: Option<u32>,
}

impl Health {
    fn policy(&self) -> HealthPolicy {
        let mut policy = HealthPolicy::new()
            .overload_hints(self.overload_hints.unwrap_or(true))
            .slow_first_token(self.slow_first_token.map(|bound| bound.0))
            .slow_answer(self.slow_answer.map(|bound| bound.0));
        if let Some(faults) = self.consecutive_failures {
            policy = policy.consecutive_failures(faults);
        }
        if let Some(rate) = self.failure_rate {
            policy = policy.failure_rate(rate);
        }
        if let Some(calls) = self.minimum_calls {
            policy = policy.minimum_calls(calls);
        }
        if let Some(window) = self.window {
            policy = policy.window(window.0);
        }
        if let Some(base) = self.out_for {
            policy = policy.out_for(base.0);
        }
        if let Some(longest) = self.longest {
            policy = policy.longest(longest.0);
        }
        if let Some(share) = self.most_out {
            policy = policy.most_out(share);
        }
        if let Some(ramp) = self.return_over {
            policy = policy.return_over(ramp.0);
        }
        policy
    }
}

impl Probes {
    fn probing(&self) -> Probing {
        let mut probing = self
            .interval
            .map_or_else(Probing::default, |every| Probing::every(every.0));
        if let Some(limit) = self.timeout {
            probing = probing.timeout(limit.0);
        }
        if let Some(failures) = self.down_after {
            probing = probing.down_after(failures);
        }
        if let Some(successes) = self.up_after {
            probing = probing.up_after(successes);
        }
        probing
    }
}

impl Route {
    /// What the failover of the route that is configured at `at` decides by.
    pub(super) fn decide(
        &self,
        at: usize,
        preset: Preset<BoxLlmService>,
        config: &Config,
        budgets: Option<&Budgets>,
    ) -> Result<Preset<BoxLlmService>, ConfigError> {
        let preset = self.choose(at, preset, config, budgets)?;
        let mut preset = self.survive(at, preset)?;
        if let Some(decay) = self.latency_decay {
            preset = preset.latency_decay(decay.0);
        }
        if let Some(health) = &self.health {
            preset = preset.health(health.policy());
        }
        if let Some(probes) = &self.probes {
            preset = preset.probes(probes.probing());
        }
        Ok(match self.when_out {
            Some(WhenOut::Fail) => preset.when_out(IfOut::Fail),
            Some(WhenOut::LeastBad) | None => preset,
        })
    }

    fn choose(
        &self,
        at: usize,
        preset: Preset<BoxLlmService>,
        config: &Config,
        budgets: Option<&Budgets>,
    ) -> Result<Preset<BoxLlmService>, ConfigError> {
        let strategy = self.strategy.unwrap_or_default();
        let path = || format!("routes[{at}].sticky_by");
        if self.sticky_by.is_some() && strategy != Strategy::Sticky {
            let why = "says nothing of a route whose strategy is not `sticky`";
            return Err(ConfigError::new(path(), why));
        }
        Ok(match strategy {
            Strategy::Ordered => preset,
            Strategy::RoundRobin => preset.route(RoundRobin::new()),
            Strategy::Weighted => preset.route(Weighted),
            Strategy::LeastLatency => preset.route(LeastLatency),
            Strategy::LeastBusy => preset.route(LeastBusy::new()),
            Strategy::LowestCost => preset.route(LowestCost::new(self.prices(config, budgets))),
            Strategy::Sticky => match self.sticky_by {
                Some(StickyBy::Tenant) if config.tenants.is_none() => {
                    let why = "nobody says who the tenants are: there is no table `tenants`";
                    return Err(ConfigError::new(path(), why));
                }
                Some(StickyBy::Tenant) => preset.route(Sticky::by(KeyBy::Tenant)),
                Some(StickyBy::User) => preset.route(Sticky::by(KeyBy::User)),
                Some(StickyBy::FirstMessage) | None => preset.route(Sticky::by_first_message()),
            },
        })
    }

    /// Prices by the list, with those of one's own where there are budgets.
    fn prices(
        &self,
        config: &Config,
        budgets: Option<&Budgets>,
    ) -> impl Fn(Name, &str, Estimate) -> Option<NanoUsd> + Send + Sync + 'static {
        let whose = |place: usize, target: &Target| {
            let provider = config.providers.get(&target.provider)?;
            let prices = prices_of(provider)?.to_owned();
            Some((self.name(place), prices))
        };
        let targets = self.targets.iter().enumerate();
        let whose: HashMap<Name, String> = targets.filter_map(|(at, t)| whose(at, t)).collect();
        let (live, list) = match budgets {
            Some(budgets) => (Some(budgets.handle()), None),
            None => (None, Some(Arc::new(PriceTable::embedded()))),
        };
        move |target, model, tokens| {
            let table = list.clone().or_else(|| Some(live.as_ref()?.prices()))?;
            let price = table.find(whose.get(&target).map(String::as_str), model)?;
            let usage = Usage::new(tokens.input, tokens.output);
            price.cost(&usage, 0, ServiceTier::Standard)
        }
    }

    /// Whether tokens are to be counted before a target is chosen.
    pub(super) fn counts_first(&self) -> bool {
        self.strategy == Some(Strategy::LowestCost)
            || self
                .targets
                .iter()
                .any(|target| target.context_window.is_some())
    }

    /// A target is named after its provider, and numbered where the route names one twice.
    pub(super) fn name(&self, place: usize) -> Name {
        let provider = &self.targets[place].provider;
        let before = self.targets[..place].iter();
        match before.filter(|target| target.provider == *provider).count() {
            0 => Name::new(provider),
            again => Name::new(&format!("{provider}-{}", again + 1)),
        }
    }

    /// The target at `place`.
    pub(super) fn target(&self, place: usize, leaf: &Leaf) -> Asked<BoxLlmService> {
        let said = &self.targets[place];
        let mut target = Asked::new(self.name(place), leaf.service.clone())
            .enabled(said.enabled.unwrap_or(true))
            .priority(said.priority.unwrap_or(0))
            .weight(said.weight.unwrap_or(1))
            .max_in_flight(said.max_in_flight)
            .context_window(said.context_window)
            .continues(said.continues.unwrap_or(false));
        for (able, capability) in [
            (said.tools, Capability::Tools),
            (said.vision, Capability::Vision),
            (said.prefill, Capability::Prefill),
            (said.structured_output, Capability::StructuredOutput),
        ] {
            if able == Some(false) {
                target = target.without(capability);
            }
        }
        for (asked, own) in &said.models {
            target = target.map_model(asked.as_str(), own.as_str());
        }
        if let Some(model) = &said.model {
            target = target.with_model(model.as_str());
        }
        if let (Some(probe), true) = (&leaf.probe, self.probes.is_some()) {
            let probe = probe.clone();
            target = target.probe(move || probe());
        }
        target
    }

    /// The models that the target at `place` has for others.
    pub(super) fn check_models(&self, path: &str, place: usize) -> Result<(), ConfigError> {
        let mut models = self.targets[place].models.iter();
        match models.find(|(_, own)| own.trim().is_empty()) {
            Some((asked, _)) => {
                let path = format!("{path}.targets[{place}].models.{asked}");
                Err(ConfigError::new(path, "is empty"))
            }
            None => Ok(()),
        }
    }
}

/// What is wrong with the stack of the route at `path`, and with which of its keys.
pub(super) fn fault(path: &str, error: &donjon::PresetError) -> ConfigError {
    match error.get_ref().downcast_ref::<FailoverError>() {
        Some(of_failover) => {
            let why = of_failover.to_string();
            // The field stands in the path.
            let why = why.split_once("`: ").map_or(&*why, |(_, why)| why);
            ConfigError::new(format!("{path}.{}", of_failover.field()), why)
        }
        None => ConfigError::new(path, error),
    }
}
