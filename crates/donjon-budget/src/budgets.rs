//! The state that all layers share, and its builder.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{KeyBy, WallClock};
use jiff::tz::TimeZone;

use crate::{
    account::{Quota, Scope},
    advice::Repeats,
    bound::Defaults,
    clock::Clock,
    error::ConfigError,
    handle::BudgetHandle,
    layer::BudgetLayer,
    limit::{Limit, check_amount},
    period::Calendar,
    prices::{Price, PriceTable},
    shared::{Core, Shared},
    store::{
        Store,
        keeper::{Keeper, Opened, WhenUnkept},
    },
};

/// The budgets of a service: limits, prices, and what was spent. There is one for the whole service, and
/// a [`BudgetLayer`] over it at each target.
///
/// Clones share everything. When the last clone, layer, service and handle of it is dropped, what was
/// spent is written to the store, if there is one; that may block for the time of a write.
#[derive(Clone)]
pub struct Budgets {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeper: Option<Arc<Keeper>>,
}

/// What becomes of a call whose price nobody knows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum UnknownPrice {
    /// It is refused; another target may serve it. A limit cannot hold what it cannot count.
    #[default]
    Refuse,
    /// It passes, and is counted apart ([`Totals::unpriced`](crate::Totals::unpriced)).
    Allow,
    /// The same, and each is told of ([`BudgetEvent::Unpriced`](crate::BudgetEvent::Unpriced)).
    Alert,
    /// It is taken to cost this.
    Assume(Arc<Price>),
}

impl Budgets {
    /// Builds budgets.
    pub fn builder() -> BudgetsBuilder {
        BudgetsBuilder {
            limits: Vec::new(),
            prices: None,
            unknown: UnknownPrice::default(),
            time_zone: "UTC".to_owned(),
            clock: Clock::System,
            max_keys: 10_000,
            max_lines: 10_000,
            tags: Vec::new(),
            defaults: Defaults {
                max_output: 128_000,
                image_tokens: 2_000,
            },
            sample: 16,
            store: None,
            journal: true,
            flush_every: Duration::from_millis(50),
            when_unkept: WhenUnkept::default(),
        }
    }

    /// A layer for a target. Say which provider it asks by [`BudgetLayer::provider`].
    pub fn layer(&self) -> BudgetLayer {
        BudgetLayer::new(self.clone())
    }

    /// Reads and controls them.
    pub fn handle(&self) -> BudgetHandle {
        BudgetHandle::new(self.clone())
    }
}

impl fmt::Debug for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgets")
            .field("scopes", &self.shared.scopes.len())
            .field("books", &self.shared.books)
            .field("kept", &self.keeper.is_some())
            .finish_non_exhaustive()
    }
}

/// Builds [`Budgets`].
#[must_use]
pub struct BudgetsBuilder {
    limits: Vec<Limit>,
    prices: Option<PriceTable>,
    unknown: UnknownPrice,
    time_zone: String,
    clock: Clock,
    max_keys: usize,
    max_lines: usize,
    tags: Vec<Arc<str>>,
    defaults: Defaults,
    sample: u64,
    store: Option<Box<dyn Store>>,
    journal: bool,
    flush_every: Duration,
    when_unkept: WhenUnkept,
}

impl BudgetsBuilder {
    /// Adds a limit. A call must fit into all hard ones; without any, money is only counted.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets the prices; default the embedded list, or none without the feature `prices`.
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(prices);
        self
    }

    /// Sets what becomes of a call whose price nobody knows; default [`UnknownPrice::Refuse`].
    pub fn unknown_price(mut self, unknown: UnknownPrice) -> Self {
        self.unknown = unknown;
        self
    }

    /// Sets in which time zone days, weeks and months begin, by its name in the tz database
    /// (`Europe/Berlin`); default `UTC`.
    pub fn time_zone(mut self, name: impl Into<String>) -> Self {
        self.time_zone = name.into();
        self
    }

    /// Sets the wall clock; default the system's.
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.clock = Clock::Given(clock);
        self
    }

    /// Sets for how many keys each kind of key is kept apart; default 10,000. A key that has spent
    /// something in a current period is never forgotten, so a new one is refused where there is no
    /// room. One takes about 700 bytes, and 1.1 KB more for each rolling limit.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets how many lines the report has; default 10,000: one for each provider, model and
    /// identity. What is spent beyond is one line together. One takes about 500 bytes.
    pub fn max_lines(mut self, lines: usize) -> Self {
        self.max_lines = lines;
        self
    }

    /// Adds a tag of the identity to what the report tells apart.
    pub fn report_tag(mut self, name: impl Into<Arc<str>>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Sets how many tokens an answer may have where neither the request, its estimate nor the
    /// price says; default 128,000.
    pub fn default_max_output(mut self, tokens: u64) -> Self {
        self.defaults.max_output = tokens;
        self
    }

    /// Sets how many tokens an image may be where the price does not say; default 2,000.
    pub fn default_image_tokens(mut self, tokens: u64) -> Self {
        self.defaults.image_tokens = tokens;
        self
    }

    /// Looks at one prompt in so many for what repeats itself, which costs as much as to hash it;
    /// default 16, zero for none.
    pub fn sample_one_in(mut self, prompts: u64) -> Self {
        self.sample = prompts;
        self
    }

    /// Keeps what was spent in a store; default none.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Sets whether each settlement is written down before it returns, where the store has a
    /// [`Journal`](crate::Journal); default yes. Nothing that was settled is lost then if the process is killed,
    /// for one or two microseconds more a call.
    pub fn journal(mut self, written: bool) -> Self {
        self.journal = written;
        self
    }

    /// Sets how often sums are saved; default 50 ms. With a journal so much may be lost if the machine goes
    /// down, without one if the process is killed; [`BudgetHandle::flush`] waits until nothing is.
    pub fn flush_every(mut self, every: Duration) -> Self {
        self.flush_every = every;
        self
    }

    /// Sets what becomes of calls while the store fails; default [`WhenUnkept::Pass`].
    pub fn when_unkept(mut self, when: WhenUnkept) -> Self {
        self.when_unkept = when;
        self
    }

    /// Builds them, with what the store has.
    ///
    /// # Errors
    ///
    /// A limit, a bound, a time zone that makes no sense; two limits of one name; a store that cannot
    /// be read.
    pub fn build(self) -> Result<Budgets, ConfigError> {
        if self.max_keys == 0 {
            return Err(ConfigError::ZeroMaxKeys);
        }
        if self.max_lines == 0 {
            return Err(ConfigError::ZeroMaxLines);
        }
        if self.flush_every < Duration::from_millis(1) {
            return Err(ConfigError::FlushEvery(self.flush_every));
        }
        if let UnknownPrice::Assume(price) = &self.unknown {
            price.check("the assumed price")?;
        }
        let zone = TimeZone::get(&self.time_zone)
            .map_err(|_| ConfigError::TimeZone(self.time_zone.clone()))?;
        let scopes = scopes(self.limits, &zone, &self.clock, self.max_keys)?;
        let mut opened = match self.store {
            Some(store) => Some(Opened::read(store, self.journal)?),
            None => None,
        };
        let ink = opened.as_mut().and_then(|opened| opened.ink.take());
        let marks = opened.is_some() && ink.is_none();
        let core = Core::new(
            scopes.into(),
            self.prices.unwrap_or_else(default_prices),
            self.clock,
            self.unknown,
            self.defaults,
            (self.sample > 0).then(|| Repeats::new(self.sample)),
            self.when_unkept,
            ink,
            marks,
        );
        let shared = Shared::new(core, self.max_lines, self.tags);
        let keeper = match opened {
            Some(opened) => Some(Arc::new(Keeper::start(&shared, opened, self.flush_every)?)),
            None => None,
        };
        Ok(Budgets { shared, keeper })
    }
}

#[cfg(feature = "prices")]
fn default_prices() -> PriceTable {
    PriceTable::embedded()
}

#[cfg(not(feature = "prices"))]
fn default_prices() -> PriceTable {
    PriceTable::empty()
}

/// Puts limits together that have the same key, so that it is looked up once.
fn scopes(
    limits: Vec<Limit>,
    zone: &TimeZone,
    clock: &Clock,
    max_keys: usize,
) -> Result<Vec<Scope>, ConfigError> {
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut groups: Vec<(KeyBy, Vec<Quota>)> = Vec::new();
    for limit in limits {
        limit.check()?;
        let name = limit.full_name();
        if names.contains(&name) {
            return Err(ConfigError::Twice(name));
        }
        names.push(name.clone());
        let quota = Quota {
            name,
            amount: check_amount(limit.amount)?.into(),
            calendar: Calendar::new(limit.period, zone.clone()),
            limit,
        };
        let key_by = quota.limit.key_by.clone();
        let group = groups.iter_mut().find(|(known, _)| alike(known, &key_by));
        match group {
            Some((_, quotas)) => quotas.push(quota),
            None => groups.push((key_by, vec![quota])),
        }
    }
    let scope = |(key_by, quotas)| Scope::new(key_by, quotas, clock.clone(), max_keys);
    Ok(groups.into_iter().map(scope).collect())
}

/// Whether two keys are the same; two closures are if they are one.
fn alike(one: &KeyBy, other: &KeyBy) -> bool {
    match (one, other) {
        (KeyBy::Custom(one), KeyBy::Custom(other)) => Arc::ptr_eq(one, other),
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

impl fmt::Debug for BudgetsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetsBuilder")
            .field("limits", &self.limits)
            .field("time_zone", &self.time_zone)
            .finish_non_exhaustive()
    }
}
