//! The gateway's configuration: TOML, parsed into what cannot be wrong.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::{
    admission::{Breaker, Limits, Pool, Tenants},
    budget::Budget,
    cache::Cache,
    routing::{Health, Probes, StickyBy, Strategy, WhenOut},
    survive::{Hedge, Resume},
    tokens::Tokens,
};

/// The gateway's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The providers, by the names that routes use.
    pub providers: BTreeMap<String, Provider>,
    /// Which models go where; the first match wins.
    pub routes: Vec<Route>,
    /// How attempts are repeated.
    #[serde(default)]
    pub retry: Retry,
    /// How long things may take.
    #[serde(default)]
    pub timeout: Timeout,
    /// When to move on to the next target.
    #[serde(default)]
    pub failover: Failover,
    /// When a provider is not asked any more.
    #[serde(default)]
    pub breaker: Breaker,
    /// What is answered from memory; nothing if not said.
    pub cache: Option<Cache>,
    /// How tokens are counted; they are not if not said.
    pub tokens: Option<Tokens>,
    /// What may be spent; nothing is counted if not said.
    pub budget: Option<Budget>,
    /// Who the callers are, and what each may use.
    pub tenants: Option<Tenants>,
    /// The gateway's own http service.
    #[serde(default)]
    pub server: Server,
}

/// A provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What it speaks.
    pub kind: Kind,
    /// Where it is; optional where the kind has a place of its own.
    pub base_url: Option<String>,
    /// Its key; optional where the kind needs none.
    pub api_key: Option<Secret>,
    /// The version of Azure's interface.
    pub api_version: Option<String>,
    /// The most exchanges with it at a time; unlimited if not said.
    pub max_connections: Option<u32>,
    /// How many calls it has at a time; as many as come if not said.
    pub pool: Option<Pool>,
    /// What it may be asked in a time.
    pub limits: Option<Limits>,
    /// Whose prices it has, by the name in the list (`openai`, `anthropic`); those of its kind if not
    /// said.
    pub prices: Option<String>,
    /// For `scripted`: every how-manieth call fails; never if not said.
    pub fail_every: Option<u32>,
}

/// What a provider speaks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// OpenAI, or any compatible server by its `base_url`.
    #[serde(rename = "openai")]
    OpenAi,
    /// Azure OpenAI.
    #[serde(rename = "azure-openai")]
    AzureOpenAi,
    /// OpenRouter.
    #[serde(rename = "openrouter")]
    OpenRouter,
    /// Ollama.
    Ollama,
    /// Ollama, by its own API rather than the one that is like OpenAI's.
    OllamaNative,
    /// Anthropic.
    Anthropic,
    /// Gemini.
    Gemini,
    /// A model in the gateway itself that makes its answers up.
    Scripted,
}

/// Where some models go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The models, as a glob: `*` stands for anything, `?` for one character.
    pub model: String,
    /// Who serves them, in the order in which they are asked unless the strategy says otherwise.
    pub targets: Vec<Target>,
    /// How one of them is chosen; in order if not said.
    pub strategy: Option<Strategy>,
    /// What stays at a target where the strategy is `sticky`; what begins with the same message if not
    /// said.
    pub sticky_by: Option<StickyBy>,
    /// Over how long a latency fades, for `least-latency`.
    pub latency_decay: Option<Span>,
    /// What is done when no target is left but such as are out.
    pub when_out: Option<WhenOut>,
    /// When a target is taken out because of its calls; never if not said.
    pub health: Option<Health>,
    /// How targets are looked at; they are not if not said.
    pub probes: Option<Probes>,
    /// When a second attempt is made because the first is slow; never if not said.
    pub hedge: Option<Hedge>,
    /// How a stream goes on that broke; the caller is told if not said.
    pub resume: Option<Resume>,
}

/// Who serves.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The provider's name.
    pub provider: String,
    /// The model it is asked for; the one that was requested if not said.
    pub model: Option<String>,
    /// The models it is asked for instead of others.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// Whether it is asked; it is if not said.
    pub enabled: Option<bool>,
    /// The lowest is asked first; 0 if not said.
    pub priority: Option<u32>,
    /// How much it gets in relation to others, by a strategy that goes by weight; 1 if not said.
    pub weight: Option<u32>,
    /// The most calls that it may have in progress.
    pub max_in_flight: Option<u32>,
    /// Whether it calls tools; whoever does not say can do everything.
    pub tools: Option<bool>,
    /// Whether it sees images.
    pub vision: Option<bool>,
    /// Whether it goes on with an answer that was begun for it.
    pub prefill: Option<bool>,
    /// Whether it answers in a form that is prescribed.
    pub structured_output: Option<bool>,
    /// Whether it continues an answer that another one began, where streams are resumed; not if not said.
    pub continues: Option<bool>,
    /// The tokens that its model takes; a longer prompt goes elsewhere.
    pub context_window: Option<u64>,
}

/// How attempts are repeated.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The most attempts on one target.
    pub max_attempts: Option<u32>,
    /// The backoff before the first retry.
    pub base_delay: Option<Span>,
    /// The longest backoff.
    pub max_delay: Option<Span>,
}

/// How long things may take.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// Until a connection stands.
    pub connect: Option<Span>,
    /// Until the first token of a stream.
    pub first_token: Option<Span>,
    /// Between two chunks of a stream.
    pub idle: Option<Span>,
    /// A whole answer.
    pub response: Option<Span>,
    /// The whole call.
    pub total: Option<Span>,
}

/// When to move on to the next target.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// The longest wait while another target is untried.
    pub patience: Option<Span>,
}

/// The gateway's own http service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The largest body of a request, in bytes.
    pub max_body_bytes: Option<usize>,
    /// The status of errors that are not to be repeated, for clients that do not read
    /// `x-should-retry`.
    pub final_status: Option<u16>,
}

/// A time such as `500ms`, `5s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = humantime::parse_duration(&text)
            .map_err(|error| de::Error::custom(format!("`{text}` is no time: {error}")))?;
        if span.is_zero() {
            return Err(de::Error::custom("must be longer than nothing"));
        }
        Ok(Self(span))
    }
}

/// A key: given as it is, or by the name of the environment variable that holds it. Never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The key itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or { env = \"NAME\" }")
            }
            fn visit_str<E: de::Error>(self, key: &str) -> Result<Secret, E> {
                Ok(Secret(key.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Env {
                    env: String,
                }
                let Env { env } = Env::deserialize(de::value::MapAccessDeserializer::new(map))?;
                match std::env::var(&env) {
                    Ok(key) if !key.is_empty() => Ok(Secret(key)),
                    _ => Err(de::Error::custom(format!(
                        "the environment variable `{env}` is not set"
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    reason: String,
}

impl ConfigError {
    pub(super) fn new(path: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    /// The path of the key, such as `routes[0].targets[1].provider`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path, self.reason.trim_end())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// What is wrong, with the path of the key: unknown keys, values of the wrong shape, names that
    /// lead nowhere.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let document = toml::Deserializer::parse(text)
            .map_err(|error| ConfigError::new("(the file)", error.message()))?;
        let config: Self = serde_path_to_error::deserialize(document).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            ConfigError::new(name_unknown(path, inner.message()), inner.message())
        })?;
        config.check()?;
        Ok(config)
    }

    /// The configuration that the keys in the environment make; without any, two scripted providers
    /// of which the first fails now and then.
    pub fn from_environment() -> Self {
        let keys = [
            ("openai", Kind::OpenAi, "OPENAI_API_KEY", "gpt-*"),
            (
                "anthropic",
                Kind::Anthropic,
                "ANTHROPIC_API_KEY",
                "claude-*",
            ),
            ("openrouter", Kind::OpenRouter, "OPENROUTER_API_KEY", "*/*"),
        ];
        let mut config = Self {
            providers: BTreeMap::new(),
            routes: Vec::new(),
            retry: Retry::default(),
            timeout: Timeout::default(),
            failover: Failover::default(),
            breaker: Breaker::default(),
            cache: None,
            tokens: None,
            budget: None,
            tenants: None,
            server: Server::default(),
        };
        for (name, kind, variable, models) in keys {
            if let Ok(key) = std::env::var(variable)
                && !key.is_empty()
            {
                let provider = Provider::new(kind, Some(key.into()));
                config.providers.insert(name.into(), provider);
                config.routes.push(Route::new(models, &[name]));
            }
        }
        if let Some(first) = config.providers.keys().next().cloned() {
            // Whatever no other route takes.
            config.routes.push(Route::new("*", &[&first]));
        } else {
            let mut flaky = Provider::new(Kind::Scripted, None);
            flaky.fail_every = Some(2);
            config.providers.insert("flaky".into(), flaky);
            let steady = Provider::new(Kind::Scripted, None);
            config.providers.insert("steady".into(), steady);
            config.routes.push(Route::new("*", &["flaky", "steady"]));
            // The first failure goes to the other target, so that there is something to see.
            config.retry.max_attempts = Some(1);
        }
        config
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.routes.is_empty() {
            return Err(ConfigError::new("routes", "at least one is needed"));
        }
        for (at, route) in self.routes.iter().enumerate() {
            if route.model.is_empty() {
                return Err(ConfigError::new(format!("routes[{at}].model"), "is empty"));
            }
            if route.targets.is_empty() {
                let path = format!("routes[{at}].targets");
                return Err(ConfigError::new(path, "at least one is needed"));
            }
            for (place, target) in route.targets.iter().enumerate() {
                if !self.providers.contains_key(&target.provider) {
                    return Err(ConfigError::new(
                        format!("routes[{at}].targets[{place}].provider"),
                        format!("there is no provider `{}`", target.provider),
                    ));
                }
                route.check_models(&format!("routes[{at}]"), place)?;
            }
        }
        for (name, provider) in &self.providers {
            let fault = |field: &str, reason: &str| {
                Err(ConfigError::new(
                    format!("providers.{name}.{field}"),
                    reason,
                ))
            };
            if provider.kind == Kind::AzureOpenAi && provider.base_url.is_none() {
                return fault("base_url", "an Azure resource has an address of its own");
            }
            let keyless =
                [Kind::Ollama, Kind::OllamaNative, Kind::Scripted].contains(&provider.kind);
            if !keyless && provider.api_key.is_none() {
                return fault("api_key", "is missing");
            }
            if provider.max_connections == Some(0) {
                return fault("max_connections", "must be at least 1");
            }
            if provider.fail_every == Some(0) {
                return fault("fail_every", "must be at least 1");
            }
        }
        Ok(())
    }
}

impl Provider {
    fn new(kind: Kind, api_key: Option<Secret>) -> Self {
        Self {
            kind,
            base_url: None,
            api_key,
            api_version: None,
            max_connections: None,
            pool: None,
            limits: None,
            prices: None,
            fail_every: None,
        }
    }
}

impl Route {
    fn new(model: &str, providers: &[&str]) -> Self {
        let target = |name: &&str| Target {
            provider: (*name).into(),
            ..Target::default()
        };
        Self {
            model: model.into(),
            targets: providers.iter().map(target).collect(),
            strategy: None,
            sticky_by: None,
            latency_decay: None,
            when_out: None,
            health: None,
            probes: None,
            hedge: None,
            resume: None,
        }
    }
}

/// The path of an unknown key is that of the table it stands in; its own name is in the message.
fn name_unknown(path: String, message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return path;
    };
    let key = rest.split('`').next().unwrap_or_default();
    if path.ends_with(key) {
        path
    } else if path == "." {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests;
