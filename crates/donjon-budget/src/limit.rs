//! The limits of budgets.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Key, KeyBy, LlmRequest, NanoUsd, Scope};

use crate::{
    cell::MOST,
    error::ConfigError,
    period::{Day, Period},
};

/// So much money in a period, for each key.
///
/// A hard one refuses the call that might pass it; a soft one lets it pass and tells once a period that it was passed.
#[derive(Clone)]
#[must_use]
pub struct Limit {
    pub(crate) amount: NanoUsd,
    pub(crate) hard: bool,
    pub(crate) period: Period,
    pub(crate) key_by: KeyBy,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) scope: Scope,
}

impl Limit {
    /// Refuses what would pass `amount`; a month of the calendar, for all calls together.
    pub fn hard(amount: NanoUsd) -> Self {
        Self {
            amount,
            hard: true,
            period: Period::Month,
            key_by: KeyBy::Global,
            name: None,
            scope: Scope::Caller,
        }
    }

    /// Tells when `amount` is passed; a month of the calendar, for all calls together.
    pub fn soft(amount: NanoUsd) -> Self {
        Self {
            hard: false,
            ..Self::hard(amount)
        }
    }

    /// In this period.
    pub const fn per(mut self, period: Period) -> Self {
        self.period = period;
        self
    }

    /// In a day of the calendar.
    pub const fn per_day(self) -> Self {
        self.per(Period::Day)
    }

    /// In a week of the calendar, from Monday.
    pub const fn per_week(self) -> Self {
        self.per(Period::Week(Day::Monday))
    }

    /// In a month of the calendar.
    pub const fn per_month(self) -> Self {
        self.per(Period::Month)
    }

    /// In any span of this length: from a minute to a year.
    pub const fn rolling(self, length: Duration) -> Self {
        self.per(Period::Rolling(length))
    }

    /// For each key apart; default [`KeyBy::Global`].
    pub fn key_by(mut self, key_by: KeyBy) -> Self {
        self.key_by = key_by;
        self
    }

    /// For each value of this tag apart; calls without it fall under one key together.
    pub fn by_tag(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        let named = Named(format!("tag {name}").into());
        let limit = self.key_by(KeyBy::custom(move |request: &LlmRequest| {
            let mut tags = request.identity().tags.iter();
            let tag = tags.find(|(known, _)| *known == name);
            tag.map_or(Key::Global, |(_, value)| Key::Name(value.clone()))
        }));
        limit.or_name(named)
    }

    /// For each pair of two keys apart: a user's money for a model.
    pub fn by_both(self, one: KeyBy, other: KeyBy) -> Self {
        let named = Named(format!("{one:?} and {other:?}").to_lowercase().into());
        let limit = self.key_by(KeyBy::custom(move |request: &LlmRequest| {
            let name = |key: Key| match key {
                Key::Name(name) => name,
                other => other.to_string().into(),
            };
            Key::Pair(name(one.key(request)), name(other.key(request)))
        }));
        limit.or_name(named)
    }

    /// Sets its name, by which it is told of, set, and kept in a store; default made of its key and its period
    /// (`tenant, month, hard`).
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whom a refusal concerns; default [`Scope::Caller`], which is final. With [`Scope::Target`] the call
    /// goes on to another target: for the budget of a model.
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// How much.
    pub const fn amount(&self) -> NanoUsd {
        self.amount
    }

    /// Whether it refuses.
    pub const fn is_hard(&self) -> bool {
        self.hard
    }

    /// In which period.
    pub const fn period(&self) -> Period {
        self.period
    }

    fn or_name(mut self, named: Named) -> Self {
        self.name.get_or_insert(named.0);
        self
    }

    /// Its name, given or made.
    pub(crate) fn full_name(&self) -> Arc<str> {
        match &self.name {
            Some(name) => name.clone(),
            None => self.to_string().into(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check_amount(self.amount)?;
        if let Period::Rolling(length) = self.period {
            const YEAR: u64 = 366 * 24 * 3_600;
            if !(Duration::from_secs(60)..=Duration::from_secs(YEAR)).contains(&length) {
                return Err(ConfigError::Rolling(length));
            }
        }
        Ok(())
    }
}

/// What a limit counts for, where its key is a closure.
struct Named(Arc<str>);

pub(crate) fn check_amount(amount: NanoUsd) -> Result<u64, ConfigError> {
    let nanos = u64::try_from(amount.nanos()).ok();
    nanos
        .filter(|nanos| (1..=MOST).contains(nanos))
        .ok_or(ConfigError::Amount(amount))
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name)?,
            None => f.write_str(&format!("{:?}", self.key_by).to_lowercase())?,
        }
        let hard = if self.hard { "hard" } else { "soft" };
        write!(f, ", {}, {hard}", self.period)
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit({self}, {})", self.amount)
    }
}
