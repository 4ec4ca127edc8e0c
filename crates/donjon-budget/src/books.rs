//! What was spent, by whom and on what: a line for each provider, model and identity.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use donjon_core::{Identity, Name, NanoUsd, Usage};
use foldhash::fast::RandomState;
use papaya::{Equivalent, HashMap};

use crate::{prices::Price, shared::Core, store::records::Id, tally::Tally};

/// The lines of all calls: bounded; once there are as many as there may be, what is spent by others
/// is one line together.
pub(crate) struct Books {
    core: Arc<Core>,
    lines: HashMap<LineKey, Arc<Line>, RandomState>,
    others: Arc<Line>,
    most: usize,
    /// Which tags tell lines apart.
    tags: Box<[Arc<str>]>,
}

impl Books {
    pub(crate) fn new(core: Arc<Core>, most: usize, tags: Vec<Arc<str>>) -> Self {
        let others = Arc::new(Line::new(core.clone(), LineKey::others(), None));
        Self {
            core,
            lines: HashMap::with_hasher(RandomState::default()),
            others,
            most,
            tags: tags.into(),
        }
    }

    /// The line of such a call.
    #[inline]
    pub(crate) fn line(
        &self,
        provider: Option<Name>,
        model: &str,
        identity: &Identity,
    ) -> Arc<Line> {
        let wanted = LineRef {
            provider,
            model,
            identity,
            tags: &self.tags,
        };
        if let Some(line) = self.lines.pin().get(&wanted) {
            return line.clone();
        }
        self.open(LineKey::of(&wanted))
    }

    #[cold]
    pub(crate) fn open(&self, key: LineKey) -> Arc<Line> {
        if self.lines.len() >= self.most {
            // It has a price of its own, and books to the one of all others.
            let others = Some(self.others.clone());
            return Arc::new(Line::new(self.core.clone(), key, others));
        }
        self.reopen(key)
    }

    /// A line of its own, whatever the bound: it is known from before a restart.
    pub(crate) fn reopen(&self, key: LineKey) -> Arc<Line> {
        let line = Arc::new(Line::new(self.core.clone(), key.clone(), None));
        let lines = self.lines.pin();
        lines.get_or_insert(key, line).clone()
    }

    /// The line of the same call for another model.
    fn of_model(&self, line: &Line, model: &Arc<str>) -> Arc<Line> {
        let key = LineKey {
            model: model.clone(),
            ..line.key.clone()
        };
        let lines = self.lines.pin();
        match lines.get(&key) {
            Some(known) => known.clone(),
            None => self.open(key),
        }
    }

    pub(crate) fn for_each(&self, mut each: impl FnMut(&Line)) {
        for line in self.lines.pin().values() {
            each(line);
        }
        each(&self.others);
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Sets every figure to zero, and calls `each` with what it takes off. The lines stay.
    pub(crate) fn clear(&self, marks: bool, mut each: impl FnMut(&Line, &[u64; COUNTS])) {
        self.for_each(|line| {
            let taken = line.figures.clear();
            line.touch(marks);
            each(line, &taken);
        });
    }

    /// The line of all who have none of their own.
    pub(crate) fn others(&self) -> &Arc<Line> {
        &self.others
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        // Two models that serve for each other would hold each other, and all that lines share.
        self.for_each(|line| line.served.store(None));
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books")
            .field("lines", &self.len())
            .finish_non_exhaustive()
    }
}

/// What tells lines apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineKey {
    pub(crate) provider: Option<Name>,
    pub(crate) model: Arc<str>,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) project: Option<Arc<str>>,
    pub(crate) tags: Vec<(Arc<str>, Arc<str>)>,
}

impl LineKey {
    fn of(line: &LineRef<'_>) -> Self {
        let Identity {
            tenant,
            user,
            project,
            ..
        } = line.identity;
        Self {
            provider: line.provider,
            model: line.model.into(),
            tenant: tenant.clone(),
            user: user.clone(),
            project: project.clone(),
            tags: line.tags().cloned().collect(),
        }
    }

    /// The name of what has no line of its own.
    pub(crate) fn others() -> Self {
        Self {
            provider: None,
            model: "(others)".into(),
            tenant: None,
            user: None,
            project: None,
            tags: Vec::new(),
        }
    }
}

/// The same, borrowed from a request.
struct LineRef<'a> {
    provider: Option<Name>,
    model: &'a str,
    identity: &'a Identity,
    tags: &'a [Arc<str>],
}

impl LineRef<'_> {
    fn tags(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        let wanted = |(name, _): &&(Arc<str>, Arc<str>)| self.tags.contains(name);
        // Most report no tags, and look at none.
        let all = if self.tags.is_empty() {
            &[]
        } else {
            &*self.identity.tags
        };
        all.iter().filter(wanted)
    }
}

impl Hash for LineKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.provider.hash(state);
        self.model.hash(state);
        self.tenant.as_deref().hash(state);
        self.user.as_deref().hash(state);
        self.project.as_deref().hash(state);
        self.tags.iter().for_each(|tag| tag.hash(state));
    }
}

impl Hash for LineRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.provider.hash(state);
        self.model.hash(state);
        self.identity.tenant.as_deref().hash(state);
        self.identity.user.as_deref().hash(state);
        self.identity.project.as_deref().hash(state);
        self.tags().for_each(|tag| tag.hash(state));
    }
}

impl Equivalent<LineKey> for LineRef<'_> {
    fn equivalent(&self, key: &LineKey) -> bool {
        self.provider == key.provider
            && *self.model == *key.model
            && self.identity.tenant == key.tenant
            && self.identity.user == key.user
            && self.identity.project == key.project
            && self.tags().eq(key.tags.iter())
    }
}

/// What is counted on a line, in the order in which it is kept.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Attempts,
    Input,
    Output,
    Cost,
    CacheRead,
    CacheWrite,
    Reasoning,
    Unbilled,
    Unpriced,
    Cut,
    CutCost,
    Sampled,
    SampledCost,
    Repeated,
    RepeatedCost,
    PrefixTokens,
}

pub(crate) const COUNTS: usize = Count::PrefixTokens as usize + 1;

/// One line. It holds what all lines share, so that a call holds its line and nothing else.
pub(crate) struct Line {
    pub(crate) core: Arc<Core>,
    pub(crate) key: LineKey,
    figures: Tally<COUNTS>,
    /// Where it books to, if not here.
    instead: Option<Arc<Line>>,
    price: ArcSwap<Priced>,
    /// The line of the model that served last, where another name was asked.
    served: ArcSwapOption<Line>,
    /// Something was counted since it was kept last; only where somebody asks.
    pub(crate) dirty: AtomicBool,
    id: OnceLock<Box<str>>,
}

/// A price as it was found in one version of the list.
pub(crate) struct Priced {
    pub(crate) version: u64,
    pub(crate) price: Option<Arc<Price>>,
}

impl Line {
    fn new(core: Arc<Core>, key: LineKey, instead: Option<Arc<Self>>) -> Self {
        Self {
            core,
            key,
            figures: Tally::new(),
            instead,
            price: ArcSwap::from_pointee(Priced {
                version: 0,
                price: None,
            }),
            served: ArcSwapOption::empty(),
            dirty: AtomicBool::new(false),
            id: OnceLock::new(),
        }
    }

    /// Its price in this version of the list, looked up once.
    #[inline]
    pub(crate) fn price(
        &self,
        version: u64,
        look_up: impl FnOnce() -> Priced,
    ) -> arc_swap::Guard<Arc<Priced>> {
        let known = self.price.load();
        if known.version == version {
            return known;
        }
        self.price.store(Arc::new(look_up()));
        self.price.load()
    }

    /// The line that it books to.
    pub(crate) fn booked(&self) -> &Self {
        self.instead.as_deref().unwrap_or(self)
    }

    /// The line of the same call for the model that served.
    pub(crate) fn of_model(&self, model: &Arc<str>) -> Option<Arc<Self>> {
        if let Some(known) = &*self.served.load()
            && *known.key.model == **model
        {
            return Some(known.clone());
        }
        // The budgets are gone where there is none, and nobody is left to ask for the report.
        let shared = self.core.shared()?;
        let served = shared.books.of_model(self, model);
        self.served.store(Some(served.clone()));
        Some(served)
    }

    #[inline]
    pub(crate) fn count(&self, count: Count, more: u64) {
        self.figures.add(count as usize, more);
    }

    pub(crate) fn touch(&self, marks: bool) {
        if marks {
            // Not only where it is clean: whoever takes the mark away has what was counted before it.
            self.dirty.swap(true, AcqRel);
        }
    }

    /// Its name in the journal.
    pub(crate) fn id(&self) -> &str {
        let id = || Id::line(&self.key).text().unwrap_or_default().into();
        self.id.get_or_init(id)
    }

    pub(crate) fn get(&self, count: Count) -> u64 {
        self.figures.get(count as usize)
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        (0..COUNTS).map(|at| self.figures.get(at)).collect()
    }

    pub(crate) fn restore(&self, figures: &[u64]) {
        for (at, kept) in figures.iter().enumerate().take(COUNTS) {
            self.figures.add(at, *kept);
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            attempts: self.get(Count::Attempts),
            unbilled: self.get(Count::Unbilled),
            unpriced: self.get(Count::Unpriced),
            cut: self.get(Count::Cut),
            usage: Usage::new(self.get(Count::Input), self.get(Count::Output)),
            cost: money(self.get(Count::Cost)),
        }
        .with(self)
    }
}

pub(crate) fn money(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// What some calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Attempts that were billed.
    pub attempts: u64,
    /// Attempts that were sent and refused, and so cost nothing.
    pub unbilled: u64,
    /// Attempts among those billed whose price nobody knows: they are not in `cost`.
    pub unpriced: u64,
    /// Answers that ended because the limit of their tokens was reached.
    pub cut: u64,
    /// Tokens.
    pub usage: Usage,
    /// Money.
    pub cost: NanoUsd,
}

impl Totals {
    fn with(mut self, line: &Line) -> Self {
        self.usage.cache_read = line.get(Count::CacheRead);
        self.usage.cache_write = line.get(Count::CacheWrite);
        self.usage.reasoning = line.get(Count::Reasoning);
        self
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.unbilled += other.unbilled;
        self.unpriced += other.unpriced;
        self.cut += other.cut;
        self.usage = self.usage.plus(other.usage);
        self.cost += other.cost;
    }
}
