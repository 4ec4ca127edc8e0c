//! What may be spent, as the configuration says.

use std::path::PathBuf;

use donjon::{
    KeyBy, NanoUsd,
    budget::{Budgets, Day, FileStore, Limit, Period, Price, PriceTable, UnknownPrice},
};
use serde::{Deserialize, Deserializer, de};

use super::config::{ConfigError, Kind, Provider, Span};

/// What may be spent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The limits; without any, money is only counted.
    #[serde(default)]
    pub limits: Vec<Allowance>,
    /// What becomes of a call whose price nobody knows; it is refused if not said.
    pub unknown_price: Option<Unknown>,
    /// Where days, weeks and months begin; `UTC` if not said.
    pub time_zone: Option<String>,
    /// Prices of one's own, beside those of the list.
    #[serde(default)]
    pub prices: Vec<OwnPrice>,
    /// The file in which is kept what was spent; it is forgotten with the process if not said.
    pub file: Option<PathBuf>,
}

/// A limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// How much, in dollars.
    pub usd: Dollars,
    /// In which time: `day`, `week`, `month`, or any span of a length such as `24h`.
    pub per: Per,
    /// For whom apart; for all together if not said.
    pub by: Option<By>,
    /// Whether it only tells that it was passed.
    pub soft: Option<bool>,
}

/// What becomes of a call whose price nobody knows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// It goes on to the next target, and fails if none has a price.
    Refuse,
    /// It passes, and counts for nothing.
    Allow,
}

/// For whom a limit is apart.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// For each tenant.
    Tenant,
    /// For each user.
    User,
    /// For each project.
    Project,
    /// For each model that is asked.
    Model,
}

/// The time of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Per(Period);

impl<'de> Deserialize<'de> for Per {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(match text.as_str() {
            "day" => Period::Day,
            "week" => Period::Week(Day::Monday),
            "month" => Period::Month,
            span => {
                let span = Span::deserialize(de::value::StrDeserializer::new(span))?;
                Period::Rolling(span.0)
            }
        }))
    }
}

/// An amount of dollars, such as `0.15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dollars(NanoUsd);

impl<'de> Deserialize<'de> for Dollars {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        let nanos = (dollars * 1e9).round();
        if !(0.0..9e18).contains(&nanos) {
            let why = format!("`{dollars}` is no amount of dollars");
            return Err(de::Error::custom(why));
        }
        Ok(Self(NanoUsd::from_nanos(nanos as i64)))
    }
}

/// What a million tokens of a model cost.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnPrice {
    /// Whose price it is: the `prices` of a provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// A million tokens of prompt, in dollars.
    pub input: Dollars,
    /// A million tokens of answer, in dollars.
    pub output: Dollars,
}

impl Budget {
    pub(super) fn budgets(&self) -> Result<Budgets, ConfigError> {
        let mut prices = PriceTable::embedded();
        for (at, own) in self.prices.iter().enumerate() {
            let price = Price::new(own.input.0, own.output.0);
            prices
                .set(&own.provider, &own.model, price)
                .map_err(|error| ConfigError::new(format!("budget.prices[{at}]"), error))?;
        }
        let mut budgets = Budgets::builder().prices(prices);
        for allowance in &self.limits {
            let limit = match allowance.soft {
                Some(true) => Limit::soft(allowance.usd.0),
                Some(false) | None => Limit::hard(allowance.usd.0),
            };
            let key_by = match allowance.by {
                None => KeyBy::Global,
                Some(By::Tenant) => KeyBy::Tenant,
                Some(By::User) => KeyBy::User,
                Some(By::Project) => KeyBy::Project,
                Some(By::Model) => KeyBy::Model,
            };
            budgets = budgets.limit(limit.per(allowance.per.0).key_by(key_by));
        }
        if let Some(zone) = &self.time_zone {
            budgets = budgets.time_zone(zone);
        }
        if self.unknown_price == Some(Unknown::Allow) {
            budgets = budgets.unknown_price(UnknownPrice::Allow);
        }
        if let Some(file) = &self.file {
            let store = FileStore::open(file);
            budgets = budgets.store(store.map_err(|error| ConfigError::new("budget.file", error))?);
        }
        budgets.build().map_err(|error| {
            let key = match error {
                donjon::budget::ConfigError::TimeZone(_) => "budget.time_zone",
                donjon::budget::ConfigError::Store(_) => "budget.file",
                _ => "budget.limits",
            };
            ConfigError::new(key, error)
        })
    }
}

/// Whose prices a provider has: what it says, else those of its kind where it is at the kind's own
/// address; a model is found by its name alone otherwise.
pub(super) fn prices_of(provider: &Provider) -> Option<&str> {
    if let Some(said) = &provider.prices {
        return Some(said);
    }
    match (provider.kind, &provider.base_url) {
        (Kind::OpenAi, None) | (Kind::AzureOpenAi, _) => Some("openai"),
        (Kind::Anthropic, None) => Some("anthropic"),
        (Kind::Gemini, None) => Some("gemini"),
        _ => None,
    }
}
