//! What is kept of accounts and lines, and how it is read again.

use std::sync::{Arc, atomic::Ordering::AcqRel};

use donjon_core::{Key, Name};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::{
    account::{Quota, Scope},
    books::LineKey,
    shared::Shared,
};

/// Of what a record is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub(crate) enum Id {
    /// Spent under a limit by a key: the figures are the period and the amount, so that a new period
    /// takes the place of the one before. A rolling period has a cell for each of its steps.
    Limit {
        limit: Arc<str>,
        /// How its periods are numbered: the numbers of another kind say nothing.
        per: Arc<str>,
        key: Vec<Arc<str>>,
        /// Without one it is the name of all cells together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cell: Option<u64>,
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
    /// Up to which generation the journal is in the records.
    Journal {},
}

impl Id {
    /// Of what a key has spent under a limit.
    pub(crate) fn limit(quota: &Quota, key: &Key) -> Self {
        Self::Limit {
            limit: quota.name.clone(),
            per: quota.calendar.period().to_string().into(),
            key: match key {
                Key::Name(name) => vec![name.clone()],
                Key::Pair(one, other) => vec![one.clone(), other.clone()],
                _ => Vec::new(),
            },
            cell: None,
        }
    }

    pub(crate) fn line(key: &LineKey) -> Self {
        let LineKey {
            provider,
            model,
            tenant,
            user,
            project,
            tags,
        } = key.clone();
        Self::Line {
            provider: provider.map(Name::to_arc),
            model,
            tenant,
            user,
            project,
            tags,
        }
    }

    /// `None` for one of a later version, or of somebody else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    pub(crate) fn record(&self, figures: Vec<u64>) -> Option<Record> {
        let id = self.text()?;
        Some(Record { id, figures })
    }

    /// The same limit and key, in this cell.
    pub(crate) fn with_cell(&self, at: u64) -> Self {
        self.celled(Some(at))
    }

    /// The name of the same limit and key, whatever the cell.
    pub(crate) fn of_all_cells(&self) -> Option<String> {
        self.celled(None).text()
    }

    fn celled(&self, at: Option<u64>) -> Self {
        match self {
            Self::Limit {
                limit, per, key, ..
            } => Self::Limit {
                limit: limit.clone(),
                per: per.clone(),
                key: key.clone(),
                cell: at,
            },
            _ => Self::Journal {},
        }
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
                let id = Id::limit(quota, &account.key);
                meter.spent.held(|period, amount| {
                    let id = id.with_cell(quota.calendar.cell(period));
                    records.extend(id.record(vec![period, amount]));
                });
            }
        });
    }
    shared.books.for_each(|line| {
        if line.dirty.swap(false, AcqRel) {
            records.extend(Id::line(&line.key).record(line.all()));
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
    let now = shared.clock.nanos();
    let mut past = Vec::new();
    for record in records {
        match Id::parse(&record.id) {
            Some(Id::Limit {
                limit, per, key, ..
            }) => {
                let &[period, amount] = &*record.figures else {
                    continue;
                };
                // A limit that is not configured now may be again.
                let Some((scope, at)) = quota(shared, &limit, &per) else {
                    continue;
                };
                if scope.quotas[at].calendar.over_at(period) <= now {
                    past.push(record.id);
                    continue;
                }
                if amount > 0
                    && let Ok(account) = scope.account(&key_of(&key))
                {
                    account.restore(at, period, amount);
                }
            }
            Some(Id::Line {
                provider,
                model,
                tenant,
                user,
                project,
                tags,
            }) => {
                let key = LineKey {
                    provider: provider.map(Name::from),
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
            // One of a later version, or of a store that others write to, is left alone.
            _ => {}
        }
    }
    past
}

/// Whether nobody will ask for what was spent in this period.
pub(crate) fn is_past(shared: &Shared, id: &Id, period: u64) -> bool {
    let Id::Limit { limit, per, .. } = id else {
        return false;
    };
    quota(shared, limit, per).is_some_and(|(scope, at)| {
        scope.quotas[at].calendar.over_at(period) <= shared.clock.nanos()
    })
}

/// The limit of this name, if it has the same kind of periods as when it was kept.
fn quota<'a>(shared: &'a Shared, limit: &str, per: &str) -> Option<(&'a Scope, usize)> {
    let (scope, at) = shared.quota(limit)?;
    (scope.quotas[at].calendar.period().to_string() == per).then_some((scope, at))
}
