//! A gateway: several providers behind one OpenAI- and Anthropic-compatible address.

mod admission;
mod budget;
mod cache;
mod config;
mod leaf;
mod routes;
mod routing;
mod survive;
mod tokens;

use std::{collections::HashMap, sync::Arc, time::Duration};

pub use admission::{Adaptive, Breaker, Limits, Pool, Tenants};
pub use budget::{Allowance, Budget, By, Dollars, OwnPrice, Per, Unknown};
pub use cache::{Cache, Keep, Share};
pub use config::{Config, ConfigError, Kind, Secret, Span};
use donjon::{
    BoxLlmService, Identity, Labelled, Name, Preset, Snapshot,
    circuit_breaker::BreakerLayer,
    pool::PoolLayer,
    rate_limit::RateLimitLayer,
    retry::{Backoff, ConfigError as RetryConfigError, RetryLayer},
    serve::Serve,
    timeout::TimeoutLayer,
};
pub use routes::{Routes, RoutesFuture};
pub use routing::{Health, Probes, StickyBy, Strategy, WhenOut};
pub use survive::{Hedge, Resume};
pub use tokens::Tokens;
use wildmatch::WildMatch;

use self::routing::fault;

/// The backoff before the first retry, where only the longest is said.
const BASE_DELAY: Duration = Duration::from_millis(500);

/// A gateway that can be served.
#[derive(Clone, Debug)]
pub struct Gateway {
    routes: Routes,
    models: Vec<String>,
    server: config::Server,
    tenants: Option<Tenants>,
}

impl Gateway {
    /// Builds what `config` says.
    ///
    /// # Errors
    ///
    /// What makes no sense, with the path of its key.
    pub fn build(config: &Config) -> Result<Self, ConfigError> {
        let leaves = leaf::build_all(config)?;
        let retry = retry(config)?;
        let timeout = timeout(config)?;
        let gates = gates(config)?;
        let callers = config
            .tenants
            .as_ref()
            .map(Tenants::layer)
            .transpose()?
            .flatten();
        let cache = config.cache.as_ref().map(Cache::layer).transpose()?;
        let budgets = config.budget.as_ref().map(Budget::budgets).transpose()?;
        let tokens = config.tokens.as_ref().map(Tokens::layer).transpose()?;
        let mut routes = Vec::new();
        for (at, route) in config.routes.iter().enumerate() {
            let mut preset = Preset::new()
                .retry(retry.clone())
                .timeout(timeout.clone())
                .cache(cache.clone())
                .token_count(tokens.clone())
                .budgets(budgets.clone())
                .caller_limit(callers.clone())
                .breaker(None);
            if let Some(total) = config.timeout.total {
                preset = preset.total_timeout(total.0);
            }
            if let Some(patience) = config.failover.patience {
                preset = preset.patience(patience.0);
            }
            preset = route.decide(at, preset, config, budgets.as_ref())?;
            for (place, target) in route.targets.iter().enumerate() {
                let Some(leaf) = leaves.get(&target.provider) else {
                    let path = format!("routes[{at}].targets[{place}].provider");
                    return Err(ConfigError::new(path, "there is no such provider"));
                };
                let (target, provider) = (route.target(place, leaf), &target.provider);
                if let Some(gates) = gates.get(provider) {
                    preset = gates.at(target.name(), preset);
                }
                let prices = config.providers.get(provider).and_then(budget::prices_of);
                if let (Some(budgets), Some(prices)) = (&budgets, prices) {
                    let layer = budgets.layer().provider(prices);
                    preset = preset.budget_of(target.name(), layer);
                }
                preset = preset.target(target);
            }
            let path = format!("routes[{at}]");
            let stack = preset.build().map_err(|error| fault(&path, &error))?;
            let counts = route.counts_first();
            let counter = counts.then(|| Tokens::before(config.tokens.as_ref()));
            routes.push(routes::Route {
                glob: WildMatch::new(&route.model),
                stack,
                counter: counter.transpose()?,
            });
        }
        // A glob names no model that could be listed.
        let models = config.routes.iter().map(|route| route.model.clone());
        let models = models.filter(|model| !model.contains(['*', '?'])).collect();
        Ok(Self {
            routes: Routes::new(routes),
            models,
            server: config.server.clone(),
            tenants: config.tenants.clone(),
        })
    }

    /// The gateway as an http service.
    ///
    /// # Errors
    ///
    /// What makes no sense, with the path of its key.
    pub fn service(&self) -> Result<Serve<Routes>, ConfigError> {
        let mut serve = Serve::builder(self.routes.clone())
            .models(self.models.iter().map(String::as_str))
            .final_status(self.server.final_status)
            .snapshots(self.snapshots());
        if let Some(tenants) = &self.tenants {
            let header = tenants.header.clone();
            serve = serve.identity(move |parts| {
                let tenant = parts
                    .headers
                    .get(&header)
                    .and_then(|name| name.to_str().ok());
                match tenant {
                    Some(tenant) => Identity::builder().tenant(tenant).build(),
                    None => Identity::builder().build(),
                }
            });
        }
        if let Some(bytes) = self.server.max_body_bytes {
            serve = serve.body_limit(bytes);
        }
        serve.build().map_err(|error| match error.setting {
            "body_limit" => ConfigError::new("server.max_body_bytes", error),
            "final_status" => ConfigError::new("server.final_status", error),
            _ => ConfigError::new("server", error),
        })
    }

    fn snapshots(&self) -> Vec<Arc<dyn Snapshot>> {
        let of_route = |(model, stack): (String, &donjon::Stack<BoxLlmService>)| {
            let snapshots = stack.snapshots().into_iter();
            let labelled = snapshots.map(move |snapshot| {
                Arc::new(Labelled::new("route", model.clone(), snapshot)) as Arc<dyn Snapshot>
            });
            labelled.collect::<Vec<_>>()
        };
        self.routes.stacks().flat_map(of_route).collect()
    }
}

/// What stands before a provider, whichever routes lead to it.
struct Gates {
    breaker: Option<BreakerLayer>,
    pool: Option<PoolLayer>,
    limits: Option<RateLimitLayer>,
}

impl Gates {
    fn at<S>(&self, target: Name, mut preset: Preset<S>) -> Preset<S> {
        if let Some(breaker) = &self.breaker {
            preset = preset.breaker_of(target, breaker.clone());
        }
        if let Some(pool) = &self.pool {
            preset = preset.pool_of(target, pool.clone());
        }
        if let Some(limits) = &self.limits {
            preset = preset.rate_limit_of(target, limits.clone());
        }
        preset
    }
}

fn gates(config: &Config) -> Result<HashMap<String, Gates>, ConfigError> {
    let mut all = HashMap::new();
    for (name, provider) in &config.providers {
        let path = |key: &str| format!("providers.{name}.{key}");
        let pool = provider.pool.as_ref();
        let limits = provider.limits.as_ref();
        let gates = Gates {
            breaker: config.breaker.layer(name)?,
            pool: pool.map(|pool| pool.layer(&path("pool"))).transpose()?,
            limits: limits
                .map(|limits| limits.of_provider(&path("limits")))
                .transpose()?,
        };
        all.insert(name.clone(), gates);
    }
    Ok(all)
}

fn retry(config: &Config) -> Result<RetryLayer, ConfigError> {
    let said = &config.retry;
    let mut retry = RetryLayer::builder();
    if let Some(attempts) = said.max_attempts {
        retry = retry.max_attempts(attempts);
    }
    if said.base_delay.is_some() || said.max_delay.is_some() {
        let base = said.base_delay.map_or(BASE_DELAY, |span| span.0);
        let mut backoff = Backoff::exponential(base);
        if let Some(most) = said.max_delay {
            backoff = backoff.cap(most.0);
        }
        retry = retry.backoff(backoff);
    }
    retry.build().map_err(|error| {
        let key = match error {
            RetryConfigError::ZeroMaxAttempts => "retry.max_attempts",
            RetryConfigError::BackoffCap { .. } => "retry.max_delay",
            _ => "retry",
        };
        ConfigError::new(key, error)
    })
}

fn timeout(config: &Config) -> Result<TimeoutLayer, ConfigError> {
    let said = &config.timeout;
    let mut timeout = TimeoutLayer::builder();
    if let Some(limit) = said.first_token {
        timeout = timeout.first_token(limit.0);
    }
    if let Some(limit) = said.idle {
        timeout = timeout.idle(limit.0);
    }
    if let Some(limit) = said.response {
        timeout = timeout.response(limit.0);
    }
    timeout
        .build()
        .map_err(|error| ConfigError::new("timeout", error))
}
