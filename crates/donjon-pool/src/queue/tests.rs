//! The queue against a naive one, and what it promises.

use std::{collections::HashMap, sync::Arc, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::{COST, Place, Queue, Tenant};

const SECOND: Duration = Duration::from_secs(1);

fn tenant(n: u8) -> Tenant {
    (n > 0).then(|| Arc::from(format!("tenant-{n}")))
}

fn queue() -> Queue<u64> {
    Queue::new(10 * SECOND)
}

/// All that wait, in one list, looked through from end to end for every decision.
#[derive(Default)]
struct Naive {
    waiting: Vec<Entry>,
    virtual_time: HashMap<u8, u64>,
    /// When a priority was last given something, or began to wait.
    since: HashMap<u8, Duration>,
    /// When the first of a tenant is done, by priority.
    done: HashMap<(u8, Tenant), u64>,
    /// How many were taken in order since one that starved was.
    in_order: u32,
}

#[derive(Clone)]
struct Entry {
    id: u64,
    priority: u8,
    tenant: Tenant,
    weight: u32,
}

impl Naive {
    fn of(&self, priority: u8) -> impl Iterator<Item = &Entry> {
        self.waiting.iter().filter(move |e| e.priority == priority)
    }

    fn push(&mut self, entry: Entry, now: Duration) {
        if self.of(entry.priority).next().is_none() {
            self.since.insert(entry.priority, now);
            self.virtual_time.insert(entry.priority, 0);
        }
        let of_tenant = |e: &&Entry| e.tenant == entry.tenant;
        if self.of(entry.priority).find(of_tenant).is_none() {
            let now = self.virtual_time[&entry.priority];
            let done = now + COST / u64::from(entry.weight);
            let flow = (entry.priority, entry.tenant.clone());
            self.done.insert(flow, done);
        }
        self.waiting.push(entry);
    }

    fn pop(&mut self, now: Duration) -> Option<u64> {
        let priorities = || self.waiting.iter().map(|e| e.priority);
        let highest = priorities().max()?;
        let starved = priorities()
            .map(|p| (self.since[&p] + 10 * SECOND, p))
            .filter(|(at, p)| *at <= now && *p < highest)
            .min();
        let priority = match starved {
            Some((_, starved)) if self.in_order >= 3 => {
                self.in_order = 0;
                starved
            }
            _ => {
                self.in_order += 1;
                highest
            }
        };
        let done = |e: &Entry| self.done[&(priority, e.tenant.clone())];
        // The first of each tenant stands for it.
        let mut firsts: Vec<&Entry> = Vec::new();
        for entry in self.of(priority) {
            if firsts.iter().all(|first| first.tenant != entry.tenant) {
                firsts.push(entry);
            }
        }
        let next = firsts.into_iter().min_by_key(|e| (done(e), e.id))?.clone();
        self.virtual_time.insert(priority, done(&next));
        self.since.insert(priority, now);
        self.waiting.retain(|e| e.id != next.id);
        let cost = COST / u64::from(next.weight);
        *self
            .done
            .get_mut(&(priority, next.tenant))
            .expect("it waited") += cost;
        Some(next.id)
    }

    fn remove(&mut self, id: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|e| e.id != id);
        self.waiting.len() < before
    }

    fn evict_below(&mut self, priority: u8) -> Option<u64> {
        let lowest = self.waiting.iter().map(|e| e.priority).min()?;
        let newest = self.of(lowest).map(|e| e.id).max()?;
        (lowest < priority && self.remove(newest)).then_some(newest)
    }

    fn ahead(&self, priority: u8, tenant: &Tenant) -> usize {
        let higher = self.waiting.iter().filter(|e| e.priority > priority);
        let own = self.of(priority).filter(|e| e.tenant == *tenant).count();
        let mut others: Vec<_> = self.of(priority).map(|e| &e.tenant).collect();
        others.retain(|other| *other != tenant);
        let all = others.len() + own;
        others.sort();
        others.dedup();
        higher.count() + (own + others.len() * (own + 1)).min(all)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { priority: u8, tenant: u8 },
    Pop,
    Leave(prop::sample::Index),
    Evict { below: u8 },
    Wait { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop::sample::select(vec![0_u8, 1, 128, 255]);
    prop_oneof![
        6 => (priority.clone(), 0..5_u8).prop_map(|(priority, tenant)| Step::Push { priority, tenant }),
        4 => Just(Step::Pop),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => priority.prop_map(|below| Step::Evict { below }),
        1 => (0..8_u32).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_naive_one_does(steps in vec(step(), 1..200)) {
        let (mut queue, mut naive) = (queue(), Naive {
            in_order: 3,
            ..Naive::default()
        });
        let mut places: Vec<(u64, Place)> = Vec::new();
        let mut now = Duration::ZERO;
        for (id, step) in (0_u64..).zip(steps) {
            match step {
                Step::Push { priority, tenant: n } => {
                    // The weight is the tenant's.
                    let weight = u32::from(n) + 1;
                    let tenant = tenant(n);
                    prop_assert_eq!(queue.ahead(priority, &tenant), naive.ahead(priority, &tenant));
                    places.push((id, queue.push(priority, tenant.clone(), weight, now, id)));
                    naive.push(Entry { id, priority, tenant, weight }, now);
                }
                Step::Pop => prop_assert_eq!(queue.pop(now), naive.pop(now)),
                Step::Leave(which) if !places.is_empty() => {
                    let (id, place) = places.swap_remove(which.index(places.len()));
                    prop_assert_eq!(queue.remove(&place).is_some(), naive.remove(id));
                    prop_assert_eq!(queue.remove(&place), None);
                }
                Step::Leave(_) => {}
                Step::Evict { below } => {
                    prop_assert_eq!(queue.has_below(below), naive.waiting.iter().any(|e| e.priority < below));
                    prop_assert_eq!(queue.evict_below(below), naive.evict_below(below));
                }
                Step::Wait { seconds } => now += seconds * SECOND,
            }
            prop_assert_eq!(queue.len(), naive.waiting.len());
        }
        // Nothing is left of those that are gone.
        while queue.pop(now).is_some() {}
        prop_assert!(queue.is_empty() && queue.levels.is_empty() && queue.starves.is_empty());
    }
}

#[test]
fn it_is_strict_between_priorities() {
    let mut queue = queue();
    for (id, priority) in [(0, 0), (1, 128), (2, 255), (3, 128), (4, 255)] {
        queue.push(priority, None, 1, Duration::ZERO, id);
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.pop(SECOND)).collect();
    assert_eq!(order, [2, 4, 1, 3, 0]);
}

#[test]
fn a_priority_that_starves_is_given_one() {
    let mut queue = queue();
    for id in 0..10 {
        queue.push(0, None, 1, Duration::ZERO, id);
    }
    let mut low = 0;
    for second in 0..100_u32 {
        // Somebody of a higher priority always waits.
        queue.push(255, None, 1, second * SECOND, 1_000);
        queue.push(255, None, 1, second * SECOND, 1_000);
        low += u32::from(queue.pop(second * SECOND) < Some(1_000));
    }
    assert_eq!(low, 9, "one in ten seconds, from the tenth on");
}

#[test]
fn one_that_comes_back_at_once_gets_no_more_than_one_that_queues() {
    let mut queue = queue();
    for _ in 0..1_000 {
        queue.push(1, tenant(1), 1, Duration::ZERO, 1);
    }
    queue.push(1, tenant(2), 1, Duration::ZERO, 2);
    let mut served = [0; 3];
    for _ in 0..1_000 {
        let who = queue.pop(Duration::ZERO).expect("somebody waits");
        served[usize::try_from(who).expect("small")] += 1;
        if who == 2 {
            queue.push(1, tenant(2), 1, Duration::ZERO, 2);
        }
    }
    assert_eq!(served, [0, 500, 500]);
}

#[test]
fn shares_are_by_weight() {
    let mut queue = queue();
    for _ in 0..1_000 {
        queue.push(1, tenant(1), 3, Duration::ZERO, 1);
        queue.push(1, tenant(2), 1, Duration::ZERO, 2);
    }
    let heavy = (0..1_000).filter(|_| queue.pop(Duration::ZERO) == Some(1));
    let heavy = heavy.count();
    assert!((749..=751).contains(&heavy), "{heavy}");
}

#[test]
fn who_leaves_is_charged_nothing() {
    let mut queue = queue();
    let places: Vec<_> = (0..100)
        .map(|_| queue.push(1, tenant(1), 1, Duration::ZERO, 1))
        .collect();
    for place in &places[..99] {
        assert!(queue.remove(place).is_some());
    }
    for _ in 0..10 {
        queue.push(1, tenant(2), 1, Duration::ZERO, 2);
    }
    assert_eq!(queue.pop(Duration::ZERO), Some(1), "it is the first turn");
}

/// However slowly slots come back, lower priorities get one in four.
#[test]
fn what_lower_priorities_take_is_bounded() {
    let mut queue = queue();
    for id in 0..20 {
        let priority = if id < 10 { 200 } else { 10 };
        queue.push(priority, None, 1, Duration::ZERO, id);
    }
    let mut at = Duration::ZERO;
    let mut low = 0;
    for _ in 0..10 {
        at += 15 * SECOND;
        low += u32::from(queue.pop(at).expect("they wait") >= 10);
    }
    assert_eq!(low, 3);
}
