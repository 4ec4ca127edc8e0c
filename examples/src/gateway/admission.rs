//! Who is let through to a provider: circuits, pools and limits, as the configuration says.

use std::time::Duration;

use donjon::{
    Estimate, KeyBy, Name,
    circuit_breaker::{
        BreakerBuilder, BreakerLayer, ConfigError as BreakerError, OpenDelay, Window,
    },
    pool::{Aimd, ConfigError as PoolError, Gradient, Overflow as PoolOverflow, PoolLayer},
    rate_limit::{Limit, Overflow, RateLimitBuilder, RateLimitLayer},
};
use http::HeaderName;
use serde::Deserialize;

use super::config::{ConfigError, Span};

/// When a provider is not asked any more. Each has a circuit of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Whether there are circuits; they are if not said.
    pub enabled: Option<bool>,
    /// The share of failures that opens a circuit.
    pub failure_rate: Option<f64>,
    /// So many failures one after the other open it.
    pub consecutive_failures: Option<u32>,
    /// How many calls must have been made before shares are judged.
    pub minimum_calls: Option<u32>,
    /// How many of the latest calls are judged.
    pub window_calls: Option<u32>,
    /// Or the calls of which time.
    pub window: Option<Span>,
    /// A first token that comes later is slow.
    pub slow_first_token: Option<Span>,
    /// The share of slow calls that opens a circuit.
    pub slow_rate: Option<f64>,
    /// For how long it is open at first.
    pub open: Option<Span>,
    /// The longest it is open when probes fail again and again.
    pub max_open: Option<Span>,
    /// How many calls try whether the provider is well again.
    pub probes: Option<u32>,
}

impl Breaker {
    /// The circuit of a provider, if there is to be one.
    pub(super) fn layer(&self, provider: &str) -> Result<Option<BreakerLayer>, ConfigError> {
        if self.enabled == Some(false) {
            return Ok(None);
        }
        let window = match (self.window_calls, self.window) {
            (Some(_), Some(_)) => {
                let why = "is given beside window_calls: give one of them";
                return Err(ConfigError::new("breaker.window", why));
            }
            (Some(calls), None) => Window::count(calls),
            (None, Some(time)) => Window::time(time.0),
            (None, None) => Window::default(),
        };
        let mut builder = BreakerLayer::builder().window(window);
        if let Some(rate) = self.failure_rate {
            builder = builder.failure_rate(rate);
        }
        if let Some(calls) = self.minimum_calls {
            builder = builder.minimum_calls(calls);
        }
        if let Some(rate) = self.slow_rate {
            builder = builder.slow_rate(rate);
        }
        if let Some(probes) = self.probes {
            builder = builder.probes(probes);
        }
        let builder: BreakerBuilder = builder
            .consecutive_failures(self.consecutive_failures)
            .slow_first_token(self.slow_first_token.map(|bound| bound.0))
            .open_delay(self.delay())
            .name(Name::new(provider));
        builder.build().map(Some).map_err(|error| {
            let key = match error {
                BreakerError::FailureRate(_) => "failure_rate",
                BreakerError::SlowRate(_) | BreakerError::SlowRateWithoutBound => "slow_rate",
                BreakerError::ZeroSlowFirstToken => "slow_first_token",
                BreakerError::ZeroConsecutiveFailures => "consecutive_failures",
                BreakerError::ZeroMinimumCalls => "minimum_calls",
                BreakerError::WindowCalls(_) => "window_calls",
                BreakerError::WindowLength(_) | BreakerError::WindowBuckets(_) => "window",
                BreakerError::Probes(_) => "probes",
                BreakerError::OpenDelayCap { .. } => "max_open",
                _ => "open",
            };
            ConfigError::new(format!("breaker.{key}"), error)
        })
    }

    fn delay(&self) -> OpenDelay {
        let base = self.open.map_or(Duration::from_secs(5), |open| open.0);
        let delay = OpenDelay::growing(base);
        match self.max_open {
            Some(most) => delay.cap(most.0),
            None => delay,
        }
    }
}

/// How many calls a provider has at a time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// How many; what it starts with where it adapts.
    pub size: Option<u32>,
    /// What it follows; it is fixed if not said.
    pub adaptive: Option<Adaptive>,
    /// The most that it grows to.
    pub max_size: Option<u32>,
    /// How many calls may wait.
    pub max_queued: Option<usize>,
    /// For how long a call may wait.
    pub max_wait: Option<Span>,
    /// How many slots there are beyond the size when it is used up.
    pub temporary: Option<u32>,
}

/// What the size of a pool follows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Adaptive {
    /// Overload errors.
    Aimd,
    /// The time to first token.
    Gradient,
}

impl Pool {
    /// The pool of the provider that is configured at `path`.
    pub(super) fn layer(&self, path: &str) -> Result<PoolLayer, ConfigError> {
        if self.max_size.is_some() && self.adaptive.is_none() {
            let why = "says nothing of a pool that does not adapt";
            return Err(ConfigError::new(format!("{path}.max_size"), why));
        }
        let size = self.size.unwrap_or(32);
        let most = self.max_size.unwrap_or(1_000).max(1);
        let builder = PoolLayer::builder().max_wait(self.max_wait.map(|wait| wait.0));
        let mut builder = match self.adaptive {
            None => builder.size(size),
            Some(Adaptive::Aimd) => builder.aimd(Aimd::new().initial(size).between(1..=most)),
            Some(Adaptive::Gradient) => {
                builder.gradient(Gradient::new().initial(size).between(1..=most))
            }
        };
        if let Some(calls) = self.max_queued {
            builder = builder.max_queued(calls);
        }
        if let Some(slots) = self.temporary {
            builder = builder.overflow(PoolOverflow::Temporary(slots));
        }
        let built = builder.build();
        built.map_err(|error| {
            let key = match error {
                PoolError::Bounds { .. } => "max_size",
                PoolError::ZeroMaxWait => "max_wait",
                PoolError::ZeroTemporary => "temporary",
                _ => "size",
            };
            ConfigError::new(format!("{path}.{key}"), error)
        })
    }
}

/// What may be asked in a time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests in a second.
    pub requests_per_second: Option<u64>,
    /// Requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// Requests in a day.
    pub requests_per_day: Option<u64>,
    /// Tokens of prompts and answers in a second.
    pub tokens_per_second: Option<u64>,
    /// Tokens of prompts and answers in a minute.
    pub tokens_per_minute: Option<u64>,
    /// Tokens of prompts and answers in a day.
    pub tokens_per_day: Option<u64>,
    /// Tokens of prompts in a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Tokens of answers in a minute.
    pub output_tokens_per_minute: Option<u64>,
    /// The least time between two requests.
    pub min_spacing: Option<Span>,
    /// For how long a call may wait.
    pub max_wait: Option<Span>,
    /// Whether a call waits for its turn; it does if not said.
    pub wait: Option<bool>,
    /// How many tokens of prompt a request is taken for until the provider says.
    pub default_input_tokens: Option<u64>,
    /// How many tokens of answer a request is taken for until the provider says.
    pub default_output_tokens: Option<u64>,
}

impl Limits {
    /// The quota of the provider that is configured at `path`: its own words make it tighter.
    pub(super) fn of_provider(&self, path: &str) -> Result<RateLimitLayer, ConfigError> {
        self.build(RateLimitLayer::builder().learn(true), path)
    }

    fn build(
        &self,
        mut builder: RateLimitBuilder,
        path: &str,
    ) -> Result<RateLimitLayer, ConfigError> {
        for (key, said, limit) in self.said() {
            match said {
                Some(0) => {
                    let path = format!("{path}.{key}");
                    return Err(ConfigError::new(path, "must be at least 1"));
                }
                Some(amount) => builder = builder.limit(limit(amount)),
                None => {}
            }
        }
        if let Some(spacing) = self.min_spacing {
            builder = builder.min_spacing(spacing.0);
        }
        if self.wait == Some(false) {
            builder = builder.overflow(Overflow::Reject);
        }
        let estimate = Estimate::new(
            self.default_input_tokens.unwrap_or(500),
            self.default_output_tokens.unwrap_or(500),
        );
        let built = builder
            .max_wait(self.max_wait.map(|wait| wait.0))
            .default_estimate(estimate)
            .build();
        built.map_err(|error| ConfigError::new(path, error))
    }

    fn said(&self) -> [Said; 8] {
        [
            ("requests_per_second", self.requests_per_second, |n| {
                Limit::requests(n).per_second()
            }),
            ("requests_per_minute", self.requests_per_minute, |n| {
                Limit::requests(n).per_minute()
            }),
            ("requests_per_day", self.requests_per_day, |n| {
                Limit::requests(n).per_day()
            }),
            ("tokens_per_second", self.tokens_per_second, |n| {
                Limit::tokens(n).per_second()
            }),
            ("tokens_per_minute", self.tokens_per_minute, |n| {
                Limit::tokens(n).per_minute()
            }),
            ("tokens_per_day", self.tokens_per_day, |n| {
                Limit::tokens(n).per_day()
            }),
            (
                "input_tokens_per_minute",
                self.input_tokens_per_minute,
                |n| Limit::input_tokens(n).per_minute(),
            ),
            (
                "output_tokens_per_minute",
                self.output_tokens_per_minute,
                |n| Limit::output_tokens(n).per_minute(),
            ),
        ]
    }
}

/// A key, what was said of it, and the limit that it makes.
type Said = (&'static str, Option<u64>, fn(u64) -> Limit);

/// What each tenant may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenants {
    /// The header that names the tenant; whoever stands before the gateway sets it.
    #[serde(default = "tenant_header")]
    pub header: String,
    /// What each may use; nothing is limited if not said.
    pub limits: Option<Limits>,
}

fn tenant_header() -> String {
    "x-donjon-tenant".into()
}

impl Tenants {
    pub(super) fn layer(&self) -> Result<Option<RateLimitLayer>, ConfigError> {
        HeaderName::try_from(&self.header)
            .map_err(|error| ConfigError::new("tenants.header", error))?;
        let Some(limits) = &self.limits else {
            return Ok(None);
        };
        let builder = RateLimitLayer::builder()
            .key_by(KeyBy::Tenant)
            .for_callers();
        limits.build(builder, "tenants.limits").map(Some)
    }
}
