//! What can be set.

use std::sync::Arc;

use crate::{
    error::ConfigError,
    estimator::Estimator,
    layer::TokenCountLayer,
    registry::{Model, Registry},
    rules::Rules,
    sample::Sampling,
    shared::Shared,
};

/// When a request is refused because it does not fit the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fit {
    /// When it cannot fit, even if the prompt is as short as the count's error allows.
    #[default]
    Certain,
    /// When it most likely does not fit.
    Likely,
    /// Never: the provider is left to say so.
    Off,
}

/// Settings that the services read.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) fit: Fit,
    pub(crate) trim: bool,
    pub(crate) cautious: bool,
    pub(crate) default_output: u64,
    pub(crate) remember: usize,
    pub(crate) max_models: usize,
    pub(crate) sampling: Option<Sampling>,
}

/// Builds a [`TokenCountLayer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenCountBuilder {
    settings: Settings,
    registry: Registry,
    unknown: Model,
    warm: Vec<String>,
}

impl TokenCountBuilder {
    pub(crate) fn new() -> Self {
        let unknown = Estimator::new("unknown").doubt(0.25);
        Self {
            settings: Settings {
                fit: Fit::Certain,
                trim: false,
                cautious: false,
                default_output: 4_096,
                remember: 16_384,
                max_models: 1_024,
                sampling: Some(Sampling::default()),
            },
            registry: Registry::known(),
            unknown: Model::new(unknown, Rules::chatml()),
            warm: Vec::new(),
        }
    }

    /// Sets what is known of models; default [`Registry::known`].
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Adds a model to the registry, or says something else of it.
    pub fn model(mut self, name: &str, model: Model) -> Self {
        self.registry.insert(name, model);
        self
    }

    /// Sets what models that the registry does not know are taken for; default an estimate that may be
    /// off by a quarter more than its texts say, and no limits.
    pub fn unknown(mut self, model: Model) -> Self {
        self.unknown = model;
        self
    }

    /// Sets when a request is refused because it does not fit; default [`Fit::Certain`].
    pub fn fit(mut self, fit: Fit) -> Self {
        self.settings.fit = fit;
        self
    }

    /// Leaves out the oldest messages of a conversation that does not fit; default off. What the system
    /// says and the last turn stay, results of tools go with their calls.
    pub fn trim(mut self, trim: bool) -> Self {
        self.settings.trim = trim;
        self
    }

    /// Puts the most tokens on the request that the count's error allows, instead of the most likely
    /// number; default off.
    pub fn cautious(mut self, cautious: bool) -> Self {
        self.settings.cautious = cautious;
        self
    }

    /// Sets the tokens of an answer where neither the request nor the registry limits them; default
    /// 4,096. As many are kept free for such an answer when messages are left out.
    pub fn default_output(mut self, tokens: u64) -> Self {
        self.settings.default_output = tokens;
        self
    }

    /// Sets how many messages are remembered for each tokenizer, 32 bytes each; default 16,384. An eighth
    /// of that many whole prompts are remembered too.
    pub fn remember(mut self, messages: usize) -> Self {
        self.settings.remember = messages;
        self
    }

    /// Sets of how many models figures are kept apart; default 1,024. Those of all others are kept
    /// together.
    pub fn max_models(mut self, models: usize) -> Self {
        self.settings.max_models = models;
        self
    }

    /// Sets how much of a prompt that nobody has counted yet is counted in full, and how the rest is
    /// sampled; default [`Sampling::default`], so that no call is held up for more than about 2 ms. `None` counts
    /// everything in full on the thread of the call, whatever it is: a megabyte takes from a few ms of prose to
    /// many seconds of what only an attacker sends.
    pub fn sampling(mut self, sampling: impl Into<Option<Sampling>>) -> Self {
        self.settings.sampling = sampling.into();
        self
    }

    /// Has the vocabulary for this model read by [`build`](Self::build), instead of by the first call
    /// that needs it; can be said of several.
    pub fn warm(mut self, model: impl Into<String>) -> Self {
        self.warm.push(model.into());
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// A setting that makes no sense.
    pub fn build(self) -> Result<TokenCountLayer, ConfigError> {
        let settings = &self.settings;
        if settings.default_output == 0 {
            return Err(ConfigError::ZeroDefaultOutput);
        }
        if settings.remember == 0 {
            return Err(ConfigError::ZeroRemember);
        }
        if settings.max_models == 0 {
            return Err(ConfigError::ZeroMaxModels);
        }
        if settings
            .sampling
            .is_some_and(|sampling| sampling.samples == 0)
        {
            return Err(ConfigError::ZeroSamples);
        }
        for (name, model) in self.registry.iter().chain([("unknown", &self.unknown)]) {
            check(name, model)?;
        }
        let shared = Shared::new(self.settings, self.registry, self.unknown);
        for model in &self.warm {
            shared.facts(model).model.tokenizer.warm();
        }
        Ok(TokenCountLayer::new(Arc::new(shared)))
    }
}

fn check(name: &str, model: &Model) -> Result<(), ConfigError> {
    let limits = [
        ("context", model.context),
        ("max_input", model.max_input),
        ("max_output", model.max_output),
    ];
    for (limit, tokens) in limits {
        let model_name = || name.to_owned();
        match (tokens, model.context) {
            (Some(0), _) => {
                let model = model_name();
                return Err(ConfigError::ZeroLimit { model, limit });
            }
            (Some(tokens), Some(context)) if tokens > context => {
                let model = model_name();
                return Err(ConfigError::LimitAboveContext { model, limit });
            }
            _ => {}
        }
    }
    Ok(())
}
