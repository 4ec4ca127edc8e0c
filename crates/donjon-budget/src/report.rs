//! The report, and what would save money.

use std::{collections::BTreeMap, sync::Arc};

use donjon_core::{Name, NanoUsd};

use crate::{
    books::{Books, Count, Line, Totals, money},
    prices::{Price, ServiceTier},
    shared::Shared,
};

/// What was spent, by whom and on what.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Every line: a provider, a model and an identity.
    pub lines: Vec<ReportLine>,
}

/// What was spent on a model for an identity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReportLine {
    /// The provider, if it was said.
    pub provider: Option<Name>,
    /// The model that served; of an attempt that failed, the one that was asked.
    pub model: Arc<str>,
    /// The tenant.
    pub tenant: Option<Arc<str>>,
    /// The user.
    pub user: Option<Arc<str>>,
    /// The project.
    pub project: Option<Arc<str>>,
    /// The tags that the report tells apart.
    pub tags: Vec<(Arc<str>, Arc<str>)>,
    /// What it came to.
    pub totals: Totals,
}

impl Report {
    /// All together.
    pub fn total(&self) -> Totals {
        let mut total = Totals::default();
        self.lines.iter().for_each(|line| total.add(&line.totals));
        total
    }

    /// By model.
    pub fn by_model(&self) -> BTreeMap<Arc<str>, Totals> {
        self.by(|line| Some(line.model.clone()))
    }

    /// By user; what says no user is under the empty name, as in all of these.
    pub fn by_user(&self) -> BTreeMap<Arc<str>, Totals> {
        self.by(|line| line.user.clone())
    }

    /// By project.
    pub fn by_project(&self) -> BTreeMap<Arc<str>, Totals> {
        self.by(|line| line.project.clone())
    }

    /// By tenant.
    pub fn by_tenant(&self) -> BTreeMap<Arc<str>, Totals> {
        self.by(|line| line.tenant.clone())
    }

    /// By the value of a tag that the report tells apart.
    pub fn by_tag(&self, name: &str) -> BTreeMap<Arc<str>, Totals> {
        self.by(|line| {
            let mut tags = line.tags.iter();
            tags.find(|(known, _)| **known == *name)
                .map(|(_, value)| value.clone())
        })
    }

    /// By anything else.
    pub fn by(&self, name: impl Fn(&ReportLine) -> Option<Arc<str>>) -> BTreeMap<Arc<str>, Totals> {
        let mut sums: BTreeMap<_, Totals> = BTreeMap::new();
        for line in &self.lines {
            let name = name(line).unwrap_or_else(|| "".into());
            sums.entry(name).or_default().add(&line.totals);
        }
        sums
    }
}

pub(crate) fn of(books: &Books) -> Report {
    let mut report = Report::default();
    books.for_each(|line| {
        let totals = line.totals();
        if totals != Totals::default() {
            report.lines.push(ReportLine {
                provider: line.key.provider,
                model: line.key.model.clone(),
                tenant: line.key.tenant.clone(),
                user: line.key.user.clone(),
                project: line.key.project.clone(),
                tags: line.key.tags.clone(),
                totals,
            });
        }
    });
    report
}

/// Something that would save money. It says what the figures show; whether it fits only you know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The same tokens would cost less at another model of the same provider.
    CheaperModel {
        /// The model that served.
        model: Arc<str>,
        /// The other one.
        instead: Arc<str>,
        /// How many attempts it is about.
        attempts: u64,
        /// What they cost.
        cost: NanoUsd,
        /// What they would have cost.
        would_cost: NanoUsd,
    },
    /// The same prompts come again, so a cache of answers would serve them.
    CacheAnswers {
        /// The model that served.
        model: Arc<str>,
        /// How many prompts were looked at.
        sampled: u64,
        /// How many of them had been asked before.
        repeated: u64,
        /// What all repeated ones cost, as far as the sample shows.
        cost: NanoUsd,
    },
    /// Prompts begin alike, and the provider's cache of prefixes was not used.
    CachePrefixes {
        /// The model that served.
        model: Arc<str>,
        /// How many prompts were looked at.
        sampled: u64,
        /// About how many tokens at their beginning had been sent before.
        tokens: u64,
        /// What reading them from the cache would have saved, as far as the sample shows.
        saves: NanoUsd,
    },
    /// Answers end because they may have no more tokens: they were paid for and may be of no use.
    CutAnswers {
        /// The model that served.
        model: Arc<str>,
        /// How many of its answers were cut.
        cut: u64,
        /// Of how many.
        of: u64,
        /// What the cut ones cost.
        cost: NanoUsd,
    },
}

impl Advice {
    /// How much money it is about.
    pub fn saves(&self) -> NanoUsd {
        match self {
            Self::CheaperModel {
                cost, would_cost, ..
            } => *cost - *would_cost,
            Self::CacheAnswers { cost, .. } | Self::CutAnswers { cost, .. } => *cost,
            Self::CachePrefixes { saves, .. } => *saves,
        }
    }
}

/// The figures of all lines of one provider and model.
#[derive(Default)]
struct OfModel {
    totals: Totals,
    counts: [u64; 6],
}

/// What is looked at beside the totals.
const COUNTED: [Count; 6] = [
    Count::CutCost,
    Count::Sampled,
    Count::SampledCost,
    Count::Repeated,
    Count::RepeatedCost,
    Count::PrefixTokens,
];

impl OfModel {
    fn add(&mut self, line: &Line) {
        self.totals.add(&line.totals());
        for (sum, count) in self.counts.iter_mut().zip(COUNTED) {
            *sum += line.get(count);
        }
    }
}

pub(crate) fn advice(shared: &Shared) -> Vec<Advice> {
    let mut models: BTreeMap<(Option<&str>, Arc<str>), OfModel> = BTreeMap::new();
    shared.books.for_each(|line| {
        let provider = line.key.provider.as_ref().map(|name| name.as_str());
        models
            .entry((provider, line.key.model.clone()))
            .or_default()
            .add(line);
    });
    let prices = shared.prices();
    let mut advice = Vec::new();
    for ((provider, model), figures) in models {
        let totals = &figures.totals;
        if totals.cost == NanoUsd::ZERO {
            continue;
        }
        let [
            cut_cost,
            sampled,
            sampled_cost,
            repeated,
            repeated_cost,
            prefix,
        ] = figures.counts;
        let price = prices.find(provider, &model);
        if let Some(price) = price {
            let others = prices.iter().filter(|(of, _, _)| {
                provider.is_none_or(|known| same_provider(&prices, known, of))
            });
            let cheaper = others.filter_map(|(_, name, other)| {
                let cost = other.cost(&totals.usage, 0, ServiceTier::Standard)?;
                // One that gives no answers serves nothing.
                (fits(price, other) && cost < totals.cost).then_some((cost, name))
            });
            // The next cheaper one is nearer in kind than the cheapest.
            if let Some((would_cost, instead)) = cheaper.max() {
                advice.push(Advice::CheaperModel {
                    model: model.clone(),
                    instead: instead.into(),
                    attempts: totals.attempts,
                    cost: totals.cost,
                    would_cost,
                });
            }
        }
        // The sample stands for all in the measure of its cost.
        let scale = |part: u64| {
            let all = u128::try_from(totals.cost.nanos()).unwrap_or(0);
            let scaled = u128::from(part) * all / u128::from(sampled_cost.max(1));
            money(u64::try_from(scaled).unwrap_or(u64::MAX))
        };
        if repeated > 0 {
            advice.push(Advice::CacheAnswers {
                model: model.clone(),
                sampled,
                repeated,
                cost: scale(repeated_cost),
            });
        }
        if prefix > 0
            && let Some(price) = price
            && let Some(read) = price.cache_read
        {
            let saved = (price.input - read).per_million(prefix).nanos();
            advice.push(Advice::CachePrefixes {
                model: model.clone(),
                sampled,
                tokens: prefix,
                saves: scale(u64::try_from(saved).unwrap_or(0)),
            });
        }
        if totals.cut > 0 {
            advice.push(Advice::CutAnswers {
                model,
                cut: totals.cut,
                of: totals.attempts,
                cost: money(cut_cost),
            });
        }
    }
    advice.sort_by_key(|one| std::cmp::Reverse(one.saves()));
    advice
}

/// Whether `other` can take the place: it gives answers if this one does, and as long ones.
fn fits(price: &Price, other: &Price) -> bool {
    let answers = |price: &Price| price.output > NanoUsd::ZERO;
    answers(price) == answers(other)
        && match (price.max_output, other.max_output) {
            (Some(mine), Some(others)) => others * 2 >= mine,
            _ => true,
        }
}

/// Whether the list has `of` for the provider that is known by the name `known`.
fn same_provider(prices: &crate::PriceTable, known: &str, of: &str) -> bool {
    prices.provider_name(known) == of
}
