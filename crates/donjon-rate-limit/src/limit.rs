//! What is limited: units, amounts, windows.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Estimate, LimitUnit, LlmRequest, Usage};
use smallvec::SmallVec;

/// What a limit counts.
#[derive(Clone)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens of prompt and answer together.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// Whatever you count: its name, and how much of it a request needs.
    Custom(Arc<str>, Weigh),
}

/// How much of a unit of your own a request needs.
pub type Weigh = Arc<dyn Fn(&LlmRequest) -> u64 + Send + Sync>;

impl Unit {
    /// Its name in figures and messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
            Self::Custom(name, _) => name,
        }
    }

    pub(crate) fn is(&self, hinted: LimitUnit) -> bool {
        matches!(
            (self, hinted),
            (Self::Requests, LimitUnit::Requests)
                | (Self::Tokens, LimitUnit::Tokens)
                | (Self::InputTokens, LimitUnit::InputTokens)
                | (Self::OutputTokens, LimitUnit::OutputTokens)
        )
    }

    /// What `usage` is in this unit; `None` where a provider does not tell.
    pub(crate) fn of_usage(&self, usage: &Usage) -> Option<u64> {
        match self {
            Self::Tokens => Some(usage.total()),
            Self::InputTokens => Some(usage.input),
            Self::OutputTokens => Some(usage.output),
            Self::Requests | Self::Custom(..) => None,
        }
    }
}

/// By name.
impl PartialEq for Unit {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Custom(one, _), Self::Custom(other, _)) => one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for Unit {}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// So much of a unit in any window of a length.
///
/// ```
/// use donjon_rate_limit::Limit;
/// use std::time::Duration;
///
/// let _ = Limit::requests(100).per_minute();
/// let _ = Limit::tokens(10_000).per(Duration::from_secs(10));
/// // 600 a minute, and never more than ten in one second.
/// let _ = Limit::requests(600).per_minute().burst(10);
/// let _ = Limit::custom("images", 50, |_| 1).per_day();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limit {
    pub(crate) unit: Unit,
    pub(crate) amount: u64,
    pub(crate) window: Duration,
    pub(crate) burst: Option<u64>,
}

impl Limit {
    /// So many requests a minute.
    pub const fn requests(amount: u64) -> Self {
        Self::new(Unit::Requests, amount)
    }

    /// So many tokens a minute, prompt and answer together.
    pub const fn tokens(amount: u64) -> Self {
        Self::new(Unit::Tokens, amount)
    }

    /// So many tokens of prompts a minute.
    pub const fn input_tokens(amount: u64) -> Self {
        Self::new(Unit::InputTokens, amount)
    }

    /// So many tokens of answers a minute.
    pub const fn output_tokens(amount: u64) -> Self {
        Self::new(Unit::OutputTokens, amount)
    }

    /// So much a minute of a unit of your own, of which `weigh` says how much a request needs. It is
    /// given back whole if the request was never sent, and else stays.
    pub fn custom(
        name: impl Into<Arc<str>>,
        amount: u64,
        weigh: impl Fn(&LlmRequest) -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self::new(Unit::Custom(name.into(), Arc::new(weigh)), amount)
    }

    const fn new(unit: Unit, amount: u64) -> Self {
        Self {
            unit,
            amount,
            window: Duration::from_secs(60),
            burst: None,
        }
    }

    /// Over one second.
    pub const fn per_second(self) -> Self {
        self.per(Duration::from_secs(1))
    }

    /// Over one minute, the default.
    pub const fn per_minute(self) -> Self {
        self.per(Duration::from_secs(60))
    }

    /// Over one hour.
    pub const fn per_hour(self) -> Self {
        self.per(Duration::from_secs(3_600))
    }

    /// Over 24 hours, which slide like any other window.
    pub const fn per_day(self) -> Self {
        self.per(Duration::from_secs(86_400))
    }

    /// Over a time of your own, from 1 ms to 10 years.
    pub const fn per(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets how much may come at once, apart from the rate; default all of the amount.
    ///
    /// The limit is then kept over the time in which so much comes due at its rate: 600 a minute with
    /// a burst of 10 means never more than 10 in any second, which is also never more than 600 in any
    /// minute. A burst above the amount lets more through at once, and the rate holds only over the
    /// longer time.
    pub const fn burst(mut self, amount: u64) -> Self {
        self.burst = Some(amount);
        self
    }

    /// What it counts.
    pub const fn unit(&self) -> &Unit {
        &self.unit
    }

    /// How much is allowed in a window.
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// How long the window is.
    pub const fn window(&self) -> Duration {
        self.window
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} per ", self.amount, self.unit.name())?;
        match self.window.as_secs() {
            1 if self.window.subsec_nanos() == 0 => f.write_str("second"),
            60 => f.write_str("minute"),
            3_600 => f.write_str("hour"),
            86_400 => f.write_str("day"),
            _ => write!(f, "{:?}", self.window),
        }
    }
}

/// How much a request needs of each unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Weight {
    pub(crate) requests: u64,
    pub(crate) estimate: Estimate,
    pub(crate) custom: SmallVec<[(Arc<str>, u64); 1]>,
}

impl Weight {
    /// One request without tokens.
    pub fn request() -> Self {
        Self::requests(1)
    }

    /// So many requests without tokens.
    pub fn requests(requests: u64) -> Self {
        Self {
            requests,
            ..Self::default()
        }
    }

    /// With so many tokens of prompt and of answer.
    pub fn tokens(mut self, input: u64, output: u64) -> Self {
        self.estimate = Estimate::new(input, output);
        self
    }

    /// With so much of a unit of your own.
    pub fn custom(mut self, name: impl Into<Arc<str>>, amount: u64) -> Self {
        self.custom.push((name.into(), amount));
        self
    }

    pub(crate) fn of(&self, unit: &Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.estimate.total(),
            Unit::InputTokens => self.estimate.input,
            Unit::OutputTokens => self.estimate.output,
            Unit::Custom(name, _) => {
                let mut named = self.custom.iter().filter(|(known, _)| known == name);
                named.next().map_or(0, |(_, amount)| *amount)
            }
        }
    }
}
