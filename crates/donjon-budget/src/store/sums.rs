//! All sums as the store has them, for the thread that folds the journal into them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Closed, Record,
    entry::{Change, changes},
    records::Id,
};

/// Sums, and which of them changed since they were saved.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    lines: HashMap<Arc<str>, Line>,
    limits: HashMap<Arc<str>, Limit>,
    changed_lines: Vec<Arc<str>>,
    changed_limits: Vec<(Arc<str>, u64)>,
    /// The generation of the journal up to which all entries are in them.
    pub(crate) generation: u64,
}

#[derive(Debug, Default)]
struct Line {
    figures: Vec<u64>,
    changed: bool,
}

/// Spent by a key under a limit: a rolling period has a cell for each of its steps.
#[derive(Debug, Default)]
struct Limit {
    cells: BTreeMap<u64, Spent>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    period: u64,
    amount: u64,
    changed: bool,
}

impl Sums {
    /// What a store has.
    pub(crate) fn of(records: &[Record]) -> Self {
        let mut sums = Self::default();
        for record in records {
            match (Id::parse(&record.id), &*record.figures) {
                (Some(Id::Journal {}), [generation]) => sums.generation = *generation,
                (Some(id @ Id::Limit { cell, .. }), &[period, amount]) => {
                    let Some(name) = id.of_all_cells() else {
                        continue;
                    };
                    let limit = sums.limits.entry(name.into()).or_default();
                    let spent = Spent {
                        period,
                        amount,
                        changed: false,
                    };
                    limit.cells.insert(cell.unwrap_or(0), spent);
                }
                (Some(Id::Line { .. }), figures) => {
                    let line = sums.lines.entry(record.id.as_str().into()).or_default();
                    line.figures = figures.to_vec();
                }
                // One of a later version, or of a store that others write to, is left alone.
                _ => {}
            }
        }
        sums
    }

    /// Adds what closed generations of the journal say.
    pub(crate) fn fold(&mut self, closed: &Closed) {
        for entry in &closed.entries {
            self.apply(entry);
        }
        self.generation = closed.generation.unwrap_or(0).max(self.generation);
    }

    /// Adds what an entry of the journal says.
    pub(crate) fn apply(&mut self, entry: &[u8]) {
        for change in changes(entry).unwrap_or_default() {
            match change {
                Change::Figure { line, place, more } => self.figure(line, place.into(), more),
                Change::Spent {
                    limit,
                    cell,
                    period,
                    more,
                } => self.spent(limit, cell.into(), period, more),
            }
        }
    }

    fn figure(&mut self, id: &str, place: usize, more: u64) {
        let line = match self.lines.get_mut(id) {
            Some(line) => line,
            None => self.lines.entry(id.into()).or_default(),
        };
        if line.figures.len() <= place {
            line.figures.resize(place + 1, 0);
        }
        line.figures[place] = line.figures[place].wrapping_add(more);
        if !std::mem::replace(&mut line.changed, true) {
            self.changed_lines.push(id.into());
        }
    }

    fn spent(&mut self, id: &str, cell: u64, period: u64, more: u64) {
        let limit = match self.limits.get_mut(id) {
            Some(limit) => limit,
            None => self.limits.entry(id.into()).or_default(),
        };
        let spent = limit.cells.entry(cell).or_insert(Spent {
            period,
            amount: 0,
            changed: false,
        });
        if spent.period > period {
            // It was settled after a later one had begun, and limits nobody.
            return;
        }
        if spent.period < period {
            (spent.period, spent.amount) = (period, 0);
        }
        spent.amount = spent.amount.wrapping_add(more);
        if !std::mem::replace(&mut spent.changed, true) {
            self.changed_limits.push((id.into(), cell));
        }
    }

    /// Adds what others have changed.
    pub(crate) fn add(&mut self, others: &Self) {
        for id in &others.changed_lines {
            for (place, more) in others.lines[id].figures.iter().enumerate() {
                if *more > 0 {
                    self.figure(id, place, *more);
                }
            }
        }
        for (id, cell) in &others.changed_limits {
            let spent = others.limits[id].cells[cell];
            self.spent(id, *cell, spent.period, spent.amount);
        }
    }

    /// Sets to nothing what is less than that: a reset was written down, and what it took off could not be, and was in
    /// the memory of a process that was killed.
    pub(crate) fn mend(&mut self) {
        let mend = |figure: &mut u64| {
            if i64::try_from(*figure).is_err() {
                *figure = 0;
            }
        };
        for id in &self.changed_lines {
            let line = self.lines.get_mut(id);
            line.into_iter()
                .flat_map(|line| &mut line.figures)
                .for_each(mend);
        }
        for (id, cell) in &self.changed_limits {
            let limit = self.limits.get_mut(id);
            let spent = limit.and_then(|limit| limit.cells.get_mut(cell));
            spent.into_iter().for_each(|spent| mend(&mut spent.amount));
        }
    }

    /// Those that changed since they were saved, with the generation that they have.
    pub(crate) fn changed(&self) -> Vec<Record> {
        if self.changed_lines.is_empty() && self.changed_limits.is_empty() {
            return Vec::new();
        }
        let lines = self.changed_lines.iter().map(|id| Record {
            id: id.as_ref().into(),
            figures: self.lines[id].figures.clone(),
        });
        let limits = self.changed_limits.iter();
        let limits = limits.filter_map(|(id, cell)| self.limits[id].record(id, *cell));
        let generation = Id::Journal {}.record(vec![self.generation]);
        lines.chain(limits).chain(generation).collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Record> {
        let lines = self.lines.iter().map(|(id, line)| Record {
            id: id.as_ref().into(),
            figures: line.figures.clone(),
        });
        let limits = self.limits.iter().flat_map(|(id, limit)| {
            let cells = limit.cells.keys();
            cells.filter_map(move |cell| limit.record(id, *cell))
        });
        lines.chain(limits).collect()
    }

    /// What changed is saved.
    pub(crate) fn saved(&mut self) {
        for id in self.changed_lines.drain(..) {
            if let Some(line) = self.lines.get_mut(&id) {
                line.changed = false;
            }
        }
        for (id, cell) in self.changed_limits.drain(..) {
            let limit = self.limits.get_mut(&id);
            if let Some(spent) = limit.and_then(|limit| limit.cells.get_mut(&cell)) {
                spent.changed = false;
            }
        }
    }

    /// Forgets what `is_past` says of a limit's record; that is saved. Says of which records.
    pub(crate) fn forget(&mut self, is_past: impl Fn(&Id, u64) -> bool) -> Vec<String> {
        let mut forgotten = Vec::new();
        self.limits.retain(|text, limit| {
            let Some(id) = Id::parse(text) else {
                return true;
            };
            limit.cells.retain(|cell, spent| {
                let past = !spent.changed && is_past(&id, spent.period);
                if past {
                    forgotten.extend(id.with_cell(*cell).text());
                }
                !past
            });
            !limit.cells.is_empty()
        });
        forgotten
    }
}

impl Limit {
    fn record(&self, id: &str, cell: u64) -> Option<Record> {
        let spent = self.cells.get(&cell)?;
        Id::parse(id)?
            .with_cell(cell)
            .record(vec![spent.period, spent.amount])
    }
}
