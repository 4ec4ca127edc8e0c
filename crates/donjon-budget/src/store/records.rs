//! What is kept of accounts and lines, and how it is read again.

use std::sync::{Arc, atomic::Ordering::AcqRel};

use donjon_core::{Key, Name};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::{account::nanos, books::LineKey, shared::Shared};

/// Of what a record is.
#[derive(Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
enum Id {
    /// Spent under a limit by a key: the figures are the period and the amount, so that a new period
    /// takes the place of the one before. A rolling period has a cell for each of its steps.
    Limit {
        limit: Arc<str>,
        key: Vec<Arc<str>>,
        cell: u64,
    },
    /// A line of the books.
    Line {
        provider: Option<Arc<str>>,
        model: Arc<str>,
        tenant: Option<Arc<str>>,
        user: Option<Arc<str>>,
        project: Option<Arc<str>>,
        tags: Vec<(Arc<str>, Arc<str>)>,
    },
}

impl Id {
    fn record(&self, figures: Vec<u64>) -> Option<Record> {
        let id = serde_json::to_string(self).ok()?;
        Some(Record { id, figures })
    }
}

fn key_names(key: &Key) -> Vec<Arc<str>> {
    match key {
        Key::Name(name) => vec![name.clone()],
        Key::Pair(one, other) => vec![one.clone(), other.clone()],
        _ => Vec::new(),
    }
}

fn key_of(names: &[Arc<str>]) -> Key {
    match names {
        [name] => Key::Name(name.clone()),
        [one, other, ..] => Key::Pair(one.clone(), other.clone()),
        [] => Key::Global,
    }
}

/// What was spent since it was kept last, as sums.
pub(crate) fn changed(shared: &Shared) -> Vec<Record> {
    let mut records = Vec::new();
    for scope in &shared.scopes {
        scope.for_each(|account| {
            // Marked clean before it is read: what is spent meanwhile marks it again.
            if !account.dirty.swap(false, AcqRel) {
                return;
            }
            for (meter, quota) in account.meters.iter().zip(&*account.quotas) {
                meter.spent.held(|period, amount| {
                    let id = Id::Limit {
                        limit: quota.name.clone(),
                        key: key_names(&account.key),
                        cell: quota.calendar.cell(period),
                    };
                    records.extend(id.record(vec![period, amount]));
                });
            }
        });
    }
    shared.books.for_each(|line| {
        if line.dirty.swap(false, AcqRel) {
            let LineKey {
                provider,
                model,
                tenant,
                user,
                project,
                tags,
            } = line.key.clone();
            let provider = provider.map(Name::to_arc);
            let id = Id::Line {
                provider,
                model,
                tenant,
                user,
                project,
                tags,
            };
            records.extend(id.record(line.all()));
        }
    });
    records
}

/// After they could not be kept: all of them are to be kept again.
pub(crate) fn mark_all(shared: &Shared) {
    for scope in &shared.scopes {
        scope.for_each(|account| {
            account
                .dirty
                .store(true, std::sync::atomic::Ordering::Release)
        });
    }
    shared
        .books
        .for_each(|line| line.dirty.store(true, std::sync::atomic::Ordering::Release));
}

/// Puts back what was kept; says which records nobody will ask for any more.
pub(crate) fn restore(shared: &Shared, records: Vec<Record>) -> Vec<String> {
    let now = nanos(&shared.clock);
    let mut past = Vec::new();
    for record in records {
        // One of a later version, or of a store that others write to, is left alone.
        let Ok(id) = serde_json::from_str::<Id>(&record.id) else {
            continue;
        };
        match id {
            Id::Limit {
                limit,
                key,
                cell: _,
            } => {
                let &[period, amount] = &*record.figures else {
                    continue;
                };
                let mut all = shared.scopes.iter().flat_map(|scope| {
                    scope
                        .quotas
                        .iter()
                        .enumerate()
                        .map(move |(at, quota)| (scope, at, quota))
                });
                // A limit that is not configured now may be again.
                let Some((scope, at, quota)) = all.find(|(_, _, quota)| quota.name == limit) else {
                    continue;
                };
                if quota.calendar.over_at(period) <= now {
                    past.push(record.id);
                    continue;
                }
                if amount > 0
                    && let Ok(account) = scope.account(&key_of(&key))
                {
                    account.restore(at, period, amount);
                }
            }
            Id::Line {
                provider,
                model,
                tenant,
                user,
                project,
                tags,
            } => {
                let provider = provider.map(Name::from);
                let key = LineKey {
                    provider,
                    model,
                    tenant,
                    user,
                    project,
                    tags,
                };
                let line = if key == LineKey::others() {
                    shared.books.others().clone()
                } else {
                    shared.books.reopen(key)
                };
                line.restore(&record.figures);
            }
        }
    }
    past
}
