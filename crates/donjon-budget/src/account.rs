//! What is spent and reserved under the limits of one key.

use std::sync::{
    Arc, OnceLock,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use donjon_core::{Full, Idle, Key, KeyBy, Keyed, LlmRequest};
use smallvec::SmallVec;

use crate::{
    cell::Cell,
    clock::Clock,
    limit::Limit,
    period::{Calendar, Period},
    ring::Ring,
    store::records::Id,
};

/// A limit while it is in use.
#[derive(Debug)]
pub(crate) struct Quota {
    pub(crate) limit: Limit,
    pub(crate) name: Arc<str>,
    pub(crate) amount: AtomicU64,
    pub(crate) calendar: Calendar,
}

/// The limits that have one key, and their state for each value of it.
#[derive(Debug)]
pub(crate) struct Scope {
    key_by: KeyBy,
    pub(crate) quotas: Arc<[Quota]>,
    clock: Clock,
    /// The one state where no keys are kept apart.
    global: Option<Arc<Account>>,
    pub(crate) keyed: Keyed<Account>,
}

impl Scope {
    pub(crate) fn new(key_by: KeyBy, quotas: Vec<Quota>, clock: Clock, max_keys: usize) -> Self {
        let mut scope = Self {
            key_by,
            quotas: quotas.into(),
            clock,
            global: None,
            keyed: Keyed::new(max_keys),
        };
        if matches!(scope.key_by, KeyBy::Global) {
            scope.global = Some(Arc::new(scope.open(&Key::Global)));
        }
        scope
    }

    fn open(&self, key: &Key) -> Account {
        Account {
            key: key.clone(),
            meters: self.quotas.iter().map(Meter::new).collect(),
            quotas: self.quotas.clone(),
            clock: self.clock.clone(),
            dirty: AtomicBool::new(false),
        }
    }

    /// The one state of a scope without keys: nobody needs to hold it.
    #[inline]
    pub(crate) fn global(&self) -> Option<&Account> {
        self.global.as_deref()
    }

    /// The state of a request's key, of a scope with keys.
    #[inline]
    pub(crate) fn account_of(&self, request: &LlmRequest) -> Result<Arc<Account>, Full> {
        self.account(&self.key_by.key(request))
    }

    pub(crate) fn account(&self, key: &Key) -> Result<Arc<Account>, Full> {
        match &self.global {
            Some(global) => Ok(global.clone()),
            None => self.keyed.get_or_make(key, || self.open(key)),
        }
    }

    pub(crate) fn for_each(&self, mut each: impl FnMut(&Account)) {
        if let Some(global) = &self.global {
            each(global);
        }
        self.keyed.for_each(|_, account| each(account));
    }
}

/// The numbers of the periods that a call was charged in, one for each limit of each key. They fit: a
/// step of a rolling period is at least 0.9 s.
pub(crate) type Slots = SmallVec<[u32; 4]>;

/// The state of one key.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) key: Key,
    pub(crate) meters: Box<[Meter]>,
    pub(crate) quotas: Arc<[Quota]>,
    clock: Clock,
    /// Something was spent since it was kept last; only where somebody asks.
    pub(crate) dirty: AtomicBool,
}

/// Which limit stands in the way, and how much is used of it.
pub(crate) struct Obstacle {
    pub(crate) at: usize,
    pub(crate) used: u64,
}

/// A soft limit was passed for the first time in its period.
pub(crate) struct Passed {
    pub(crate) at: usize,
    pub(crate) spent: u64,
}

impl Account {
    /// Reserves `n` under all limits, or under none, and adds in which periods to `slots`.
    #[inline]
    pub(crate) fn reserve(&self, n: u64, now: u64, slots: &mut Slots) -> Result<(), Obstacle> {
        let first = slots.len();
        for (at, (meter, quota)) in self.meters.iter().zip(&*self.quotas).enumerate() {
            let slot = quota.calendar.slot(now);
            let slot = match &meter.used {
                // As under a hard one: where the clock was set back the period is a later one.
                None => slot.max(meter.spent.head()),
                Some(used) => match used.reserve(n, quota.amount.load(Relaxed), slot) {
                    Ok(slot) => slot,
                    Err(used) => {
                        self.give_back(n, &slots[first..]);
                        slots.truncate(first);
                        return Err(Obstacle { at, used });
                    }
                },
            };
            slots.push(u32::try_from(slot).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Gives back what was reserved in these periods.
    pub(crate) fn give_back(&self, n: u64, slots: &[u32]) {
        for (meter, slot) in self.meters.iter().zip(slots) {
            if let Some(used) = &meter.used {
                used.settle(n, 0, u64::from(*slot));
            }
        }
    }

    /// Books `spent` in the place of what was reserved.
    #[inline]
    pub(crate) fn settle(
        &self,
        reserved: u64,
        spent: u64,
        slots: &[u32],
        at: u64,
        marks: bool,
        mut passed: impl FnMut(Passed),
    ) {
        let all = self.meters.iter().zip(&*self.quotas).zip(slots);
        for (place, ((meter, quota), slot)) in all.enumerate() {
            let slot = u64::from(*slot);
            if let Some(used) = &meter.used {
                used.settle(reserved, spent, slot);
            }
            if spent == 0 {
                continue;
            }
            let Some(sum) = meter.spent.settle(0, spent, slot) else {
                continue;
            };
            meter.pace.note(at, sum);
            if meter.used.is_none()
                && sum >= quota.amount.load(Relaxed)
                && meter.tells(slot, quota.calendar.period())
            {
                passed(Passed {
                    at: place,
                    spent: sum,
                });
            }
        }
        if marks && spent > 0 {
            // Not only where it is clean: whoever takes the mark away has what was spent before it.
            self.dirty.swap(true, AcqRel);
        }
    }

    /// Calls `each` with the name, the cell and the period in which the journal has what is spent now.
    pub(crate) fn places(&self, slots: &[u32], mut each: impl FnMut(&str, u8, u64)) {
        for (at, slot) in slots.iter().enumerate() {
            let (id, cell) = self.place(at, u64::from(*slot));
            each(id, cell, u64::from(*slot));
        }
    }

    fn place(&self, at: usize, slot: u64) -> (&str, u8) {
        let quota = &self.quotas[at];
        let id = self.meters[at].id.get_or_init(|| {
            let id = Id::limit(quota, &self.key);
            id.text().unwrap_or_default().into()
        });
        let cell = quota.calendar.cell(slot);
        (id, u8::try_from(cell).unwrap_or(u8::MAX))
    }

    /// Forgets what was spent under the limit at `at`; what is reserved stays. Calls `each` with what
    /// it takes off, as [`places`](Self::places) has it.
    pub(crate) fn reset(&self, at: usize, marks: bool, mut each: impl FnMut(&str, u8, u64, u64)) {
        let meter = &self.meters[at];
        meter.spent.held(|slot, amount| {
            if meter.spent.settle(amount, 0, slot).is_none() {
                return;
            }
            if let Some(used) = &meter.used {
                used.settle(amount, 0, slot);
            }
            let (id, cell) = self.place(at, slot);
            each(id, cell, slot, amount);
        });
        meter.told.store(0, Relaxed);
        if marks {
            self.dirty.store(true, Release);
        }
    }

    /// Puts back what was spent in a period before a restart.
    pub(crate) fn restore(&self, at: usize, slot: u64, amount: u64) {
        let meter = &self.meters[at];
        let now = self.quotas[at].calendar.slot(self.clock.nanos());
        for sum in meter.used.iter().chain([&meter.spent]) {
            sum.used(now);
            sum.settle(0, amount, slot);
        }
    }
}

impl Idle for Account {
    fn is_idle(&self) -> bool {
        let now = self.clock.nanos();
        let unused = |(meter, quota): (&Meter, &Quota)| {
            let slot = quota.calendar.slot(now);
            let used = meter.used.as_ref().map_or(0, |used| used.used(slot));
            used == 0 && meter.spent.used(slot) == 0
        };
        !self.dirty.load(Acquire) && self.meters.iter().zip(&*self.quotas).all(unused)
    }
}

/// What counts for one limit.
#[derive(Debug)]
pub(crate) struct Meter {
    /// What is spent and reserved; a hard limit decides by it.
    pub(crate) used: Option<Sum>,
    /// What is spent.
    pub(crate) spent: Sum,
    /// The last period in which it was told that a soft limit is passed, plus one.
    told: AtomicU64,
    pub(crate) pace: Pace,
    /// Its name in the journal.
    id: OnceLock<Box<str>>,
}

impl Meter {
    fn new(quota: &Quota) -> Self {
        let sum = || match quota.limit.period {
            Period::Rolling(_) => Sum::Rolling(Box::new(Ring::new(0))),
            _ => Sum::Period(Cell::new()),
        };
        Self {
            used: quota.limit.hard.then(sum),
            spent: sum(),
            told: AtomicU64::new(0),
            pace: Pace::default(),
            id: OnceLock::new(),
        }
    }

    /// Whether this is the one that tells of it in this period.
    fn tells(&self, slot: u64, period: Period) -> bool {
        let told = self.told.load(Relaxed);
        let again = match period {
            Period::Rolling(_) => told == 0 || slot > told + crate::ring::SLOTS,
            _ => told <= slot,
        };
        again
            && self
                .told
                .compare_exchange(told, slot + 1, AcqRel, Relaxed)
                .is_ok()
    }
}

/// An amount in the periods of a calendar, or in a rolling one.
#[derive(Debug)]
pub(crate) enum Sum {
    Period(Cell),
    Rolling(Box<Ring>),
}

impl Sum {
    pub(crate) fn used(&self, slot: u64) -> u64 {
        match self {
            Self::Period(cell) => cell.used(slot),
            Self::Rolling(ring) => {
                ring.turn(slot);
                ring.used()
            }
        }
    }

    /// In which period `n` was charged, or how much is charged already.
    #[inline]
    fn reserve(&self, n: u64, limit: u64, slot: u64) -> Result<u64, u64> {
        match self {
            Self::Period(cell) => cell.reserve(n, limit, slot),
            Self::Rolling(ring) => ring.reserve(n, limit, slot).ok_or_else(|| ring.used()),
        }
    }

    /// Takes `back` off and puts `more` on what was charged in `slot`; says the sum, unless that is
    /// past.
    #[inline]
    fn settle(&self, back: u64, more: u64, slot: u64) -> Option<u64> {
        match self {
            Self::Period(cell) => cell.settle(back, more, slot),
            Self::Rolling(ring) => {
                ring.turn(slot);
                // What is used stands in the place of what was reserved, so that nobody takes it meanwhile.
                if back > more {
                    ring.refund(back - more, slot);
                } else if more > back {
                    ring.force_at(more - back, slot);
                }
                Some(ring.used())
            }
        }
    }

    /// What is held in each period that is not past.
    pub(crate) fn held(&self, mut each: impl FnMut(u64, u64)) {
        match self {
            Self::Period(cell) => {
                let (slot, amount) = cell.held();
                if slot > 0 {
                    each(slot, amount);
                }
            }
            Self::Rolling(ring) => ring.held(each),
        }
    }

    /// The newest period that was seen.
    pub(crate) fn head(&self) -> u64 {
        match self {
            Self::Period(cell) => cell.held().0,
            Self::Rolling(ring) => ring.head(),
        }
    }

    /// When `n` fits into `limit` of a rolling period, if it does at all.
    pub(crate) fn fits_at(&self, n: u64, limit: u64) -> Option<u64> {
        match self {
            Self::Rolling(ring) if n <= limit => Some(ring.fits_at(n, limit)),
            _ => None,
        }
    }
}

/// How much was spent at two moments of the past, for a forecast: nobody reads a clock for it, and
/// a call that finds the last one recent only looks.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    newer_at: AtomicU64,
    newer: AtomicU64,
    older_at: AtomicU64,
    older: AtomicU64,
}

/// A quarter of an hour.
const PACE: u64 = 900_000_000_000;

impl Pace {
    #[inline]
    fn note(&self, at: u64, spent: u64) {
        let last = self.newer_at.load(Relaxed);
        if at >= last.saturating_add(PACE) {
            self.step(last, at, spent);
        }
    }

    #[cold]
    fn step(&self, last: u64, at: u64, spent: u64) {
        let mine = self.newer_at.compare_exchange(last, at, AcqRel, Relaxed);
        if mine.is_ok() {
            let before = self.newer.swap(spent, AcqRel);
            self.older.store(before, Relaxed);
            self.older_at.store(last, Release);
        }
    }

    /// The older of the two moments that is in the period which began at `from`, and what was spent
    /// by then; the period's beginning where there is none.
    pub(crate) fn since(&self, from: u64) -> (u64, u64) {
        let older = (self.older_at.load(Acquire), self.older.load(Relaxed));
        if older.0 >= from && older.0 > 0 {
            older
        } else {
            (from, 0)
        }
    }
}
