//! What is answered from memory, as the configuration says.

use donjon::cache::{CacheLayer, ConfigError as CacheError, Scope, Strategy, flight::Flights};
use serde::Deserialize;

use super::config::{ConfigError, Span};

/// Answers that are given again, and calls that are one for all who ask the same.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Which answers are kept; `selective` if not said.
    pub strategy: Option<Keep>,
    /// Whose answers a caller may be given; those of the same tenant if not said.
    pub scope: Option<Share>,
    /// How long an answer is fresh.
    pub ttl: Option<Span>,
    /// How long after that it may be given while it is renewed.
    pub stale_while_revalidate: Option<Span>,
    /// How long after that it may be given where no provider answers.
    pub stale_if_error: Option<Span>,
    /// How long errors are kept that are the caller's own.
    pub negative_ttl: Option<Span>,
    /// How many bytes are kept.
    pub max_bytes: Option<u64>,
    /// How many bytes an answer may take.
    pub max_entry_bytes: Option<u64>,
    /// Whether those who ask the same at the same time share a call; they do if not said.
    pub single_flight: Option<bool>,
}

/// Which answers are kept.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// All.
    Aggressive,
    /// Those without tools.
    Conservative,
    /// Those that would be the same anyway.
    Selective,
}

/// Whose answers a caller may be given.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// Those of the same tenant.
    Tenant,
    /// Those of the same user.
    User,
    /// Anybody's.
    All,
}

impl Cache {
    pub(super) fn layer(&self) -> Result<CacheLayer, ConfigError> {
        let mut cache = CacheLayer::builder()
            .strategy(match self.strategy {
                Some(Keep::Aggressive) => Strategy::Aggressive,
                Some(Keep::Conservative) => Strategy::Conservative,
                Some(Keep::Selective) | None => Strategy::Selective,
            })
            .scope(match self.scope {
                Some(Share::User) => Scope::User,
                Some(Share::All) => Scope::Shared,
                Some(Share::Tenant) | None => Scope::Tenant,
            });
        if let Some(ttl) = self.ttl {
            cache = cache.ttl(ttl.0);
        }
        if let Some(window) = self.stale_while_revalidate {
            cache = cache.stale_while_revalidate(window.0);
        }
        if let Some(window) = self.stale_if_error {
            cache = cache.stale_if_error(window.0);
        }
        if let Some(ttl) = self.negative_ttl {
            cache = cache.negative_ttl(ttl.0);
        }
        if let Some(bytes) = self.max_bytes {
            cache = cache.max_bytes(bytes);
        }
        if let Some(bytes) = self.max_entry_bytes {
            cache = cache.max_entry_bytes(bytes);
        }
        let flights = self.single_flight.unwrap_or(true);
        cache = cache.single_flight(flights.then(Flights::default));
        cache.build().map_err(|error| {
            let key = match error {
                CacheError::ZeroTtl => "ttl",
                CacheError::ZeroNegativeTtl => "negative_ttl",
                CacheError::ZeroMaxBytes => "max_bytes",
                CacheError::ZeroMaxEntryBytes | CacheError::MaxEntryBytes { .. } => {
                    "max_entry_bytes"
                }
                CacheError::TooLong(key, _) => key,
                _ => return ConfigError::new("cache", error),
            };
            ConfigError::new(format!("cache.{key}"), error)
        })
    }
}
