//! Who goes first: pure and synchronous, with time passed in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// On whose behalf a call waits.
pub(crate) type Tenant = Option<Arc<str>>;

/// A queue of those who wait for a slot. Everything in it is O(log n), but for looking over the
/// priorities that are in use, of which there are at most 256.
///
/// * Between priorities it is strict, with ageing: a priority of which somebody waits and to which
///   nothing was given for as long as `ageing` says is given the next slot. So what a lower priority
///   takes from a higher one is bounded, and none starves.
/// * Within a priority it is fair between tenants, by weight: self-clocked fair queueing (S. J.
///   Golestani, INFOCOM 1994), in which each entry costs the same. A tenant is remembered only while
///   it waits, and one that leaves the queue is charged nothing.
/// * Within a tenant it is first in, first out.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    levels: BTreeMap<u8, Level<T>>,
    /// When each priority has starved, with the priority.
    starves: BTreeSet<(Duration, u8)>,
    ageing: Duration,
    arrived: u64,
    len: usize,
    /// How many were taken in the order of their priorities since one that starved was.
    in_order: u32,
}

/// Those of one priority.
#[derive(Debug)]
struct Level<T> {
    flows: HashMap<Tenant, Flow<T>>,
    /// The first of each tenant, by the virtual time at which they are done.
    heads: BTreeMap<(u64, u64), Tenant>,
    /// All, by the order of their coming.
    arrivals: BTreeMap<u64, Tenant>,
    /// The virtual time: that of the last who was taken.
    now: u64,
    starves: Duration,
}

/// Those of one tenant.
#[derive(Debug)]
struct Flow<T> {
    entries: BTreeMap<u64, T>,
    /// The virtual time at which the first is done.
    done: u64,
    cost: u64,
}

/// A place in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    priority: u8,
    tenant: Tenant,
    arrived: u64,
}

impl Place {
    pub(crate) fn priority(&self) -> u8 {
        self.priority
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

/// After one that starved so many are taken in the order of their priorities.
const IN_ORDER: u32 = 3;

/// What an entry of weight 1 costs in virtual time; fine enough that weights divide it.
const COST: u64 = 1 << 20;

/// The largest weight of a tenant: at this one, an entry still costs something.
pub(crate) const MAX_WEIGHT: u32 = 1_000;

impl<T> Queue<T> {
    /// After `ageing` without a slot, a priority is given the next one.
    pub(crate) fn new(ageing: Duration) -> Self {
        Self {
            levels: BTreeMap::new(),
            starves: BTreeSet::new(),
            ageing,
            arrived: 0,
            len: 0,
            in_order: IN_ORDER,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `entry` at the end of those of its tenant.
    pub(crate) fn push(
        &mut self,
        priority: u8,
        tenant: Tenant,
        weight: u32,
        now: Duration,
        entry: T,
    ) -> Place {
        let arrived = self.arrived;
        self.arrived += 1;
        self.len += 1;
        let level = self.levels.entry(priority).or_insert_with(|| {
            let starves = now.saturating_add(self.ageing);
            self.starves.insert((starves, priority));
            Level {
                flows: HashMap::new(),
                heads: BTreeMap::new(),
                arrivals: BTreeMap::new(),
                now: 0,
                starves,
            }
        });
        level.push(tenant.clone(), weight, arrived, entry);
        Place {
            priority,
            tenant,
            arrived,
        }
    }

    /// Takes out who is next.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<T> {
        let highest = *self.levels.last_key_value()?.0;
        let due = self.starves.iter().take_while(|(at, _)| *at <= now);
        let starved = due.map(|(_, priority)| *priority).find(|p| *p < highest);
        // So that what lower ones take is bounded, also where slots come back seldom.
        let priority = match starved {
            Some(starved) if self.in_order >= IN_ORDER => {
                self.in_order = 0;
                starved
            }
            _ => {
                self.in_order = self.in_order.saturating_add(1);
                highest
            }
        };
        let level = self.levels.get_mut(&priority)?;
        let entry = level.pop()?;
        self.starves.remove(&(level.starves, priority));
        level.starves = now.saturating_add(self.ageing);
        if level.flows.is_empty() {
            self.levels.remove(&priority);
        } else {
            self.starves.insert((level.starves, priority));
        }
        self.len -= 1;
        Some(entry)
    }

    /// Takes out who has that place, if they still have it.
    pub(crate) fn remove(&mut self, place: &Place) -> Option<T> {
        let level = self.levels.get_mut(&place.priority)?;
        let entry = level.remove(&place.tenant, place.arrived)?;
        if level.flows.is_empty() {
            self.starves.remove(&(level.starves, place.priority));
            self.levels.remove(&place.priority);
        }
        self.len -= 1;
        Some(entry)
    }

    /// Whether somebody of a priority below `priority` waits.
    pub(crate) fn has_below(&self, priority: u8) -> bool {
        let lowest = self.levels.first_key_value();
        lowest.is_some_and(|(&lowest, _)| lowest < priority)
    }

    /// Takes out the newest of the lowest priority, if that is below `priority`.
    pub(crate) fn evict_below(&mut self, priority: u8) -> Option<T> {
        let (&lowest, level) = self.levels.first_key_value()?;
        if lowest >= priority {
            return None;
        }
        let (&arrived, tenant) = level.arrivals.last_key_value()?;
        let place = Place {
            priority: lowest,
            tenant: tenant.clone(),
            arrived,
        };
        self.remove(&place)
    }

    /// How many would go before a new one of this priority and tenant, as things stand; weights are
    /// taken to be equal.
    pub(crate) fn ahead(&self, priority: u8, tenant: &Tenant) -> usize {
        let of = |level: &Level<T>| level.arrivals.len();
        let higher: usize = match priority.checked_add(1) {
            Some(above) => self.levels.range(above..).map(|(_, level)| of(level)).sum(),
            None => 0,
        };
        let Some(level) = self.levels.get(&priority) else {
            return higher;
        };
        let own = level.flows.get(tenant).map_or(0, |flow| flow.entries.len());
        let others = level.flows.len() - usize::from(own > 0);
        // In each round each tenant has a turn; the new one's is in the round after its own.
        let before = own.saturating_add(others.saturating_mul(own + 1));
        higher.saturating_add(before.min(of(level)))
    }
}

impl<T> Level<T> {
    fn push(&mut self, tenant: Tenant, weight: u32, arrived: u64, entry: T) {
        let cost = COST / u64::from(weight.clamp(1, MAX_WEIGHT));
        self.arrivals.insert(arrived, tenant.clone());
        let heads = &mut self.heads;
        let now = self.now;
        let flow = self.flows.entry(tenant.clone()).or_insert_with(|| {
            let done = now + cost;
            heads.insert((done, arrived), tenant);
            Flow {
                entries: BTreeMap::new(),
                done,
                cost,
            }
        });
        flow.entries.insert(arrived, entry);
    }

    fn pop(&mut self) -> Option<T> {
        let ((done, arrived), tenant) = self.heads.pop_first()?;
        self.now = done;
        self.arrivals.remove(&arrived);
        let flow = self.flows.get_mut(&tenant)?;
        let entry = flow.entries.remove(&arrived)?;
        match flow.entries.first_key_value() {
            Some((&next, _)) => {
                flow.done += flow.cost;
                self.heads.insert((flow.done, next), tenant);
            }
            None => {
                self.flows.remove(&tenant);
            }
        }
        Some(entry)
    }

    fn remove(&mut self, tenant: &Tenant, arrived: u64) -> Option<T> {
        let flow = self.flows.get_mut(tenant)?;
        let entry = flow.entries.remove(&arrived)?;
        self.arrivals.remove(&arrived);
        let was_first = self.heads.remove(&(flow.done, arrived)).is_some();
        match flow.entries.first_key_value() {
            // It takes over the turn of the one that left.
            Some((&next, _)) if was_first => {
                self.heads.insert((flow.done, next), tenant.clone());
            }
            Some(_) => {}
            None => {
                self.flows.remove(tenant);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
