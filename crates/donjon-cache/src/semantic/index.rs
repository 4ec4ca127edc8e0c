//! Which of the vectors that are kept is nearest.

use std::collections::{BTreeMap, HashMap};

use super::vector::cosine;
use crate::{entry::Moment, key::CacheKey};

/// Vectors in partitions, each of which is scanned as a whole: up to ten thousand vectors that is
/// as fast as an index of neighbours, exact, and has nothing to be kept in order.
#[derive(Debug)]
pub(super) struct Index {
    partitions: HashMap<Place, Partition, foldhash::fast::RandomState>,
    /// The partition of each row, by when it was used last.
    order: BTreeMap<u64, Place>,
    /// How often something was put in or used.
    uses: u64,
    max_entries: usize,
    numbers: usize,
}

/// What must be the same, and how long the vectors are.
pub(super) type Place = (CacheKey, usize);

#[derive(Debug, Default)]
struct Partition {
    /// One after another.
    vectors: Vec<f32>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    key: CacheKey,
    used: u64,
    /// Until when its answer is given.
    fresh: Moment,
}

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    /// Whose answer it is.
    pub(super) key: CacheKey,
    pub(super) similarity: f32,
}

impl Index {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            partitions: HashMap::default(),
            order: BTreeMap::new(),
            uses: 0,
            max_entries,
            numbers: 0,
        }
    }

    /// The row of `partition` that is nearest to `vector`, the oldest of those that are equally near.
    pub(super) fn nearest(&self, partition: CacheKey, vector: &[f32], now: Moment) -> Option<Near> {
        let partition = self.partitions.get(&(partition, vector.len()))?;
        let vectors = partition.vectors.chunks_exact(vector.len());
        let mut best: Option<Near> = None;
        for (row, kept) in partition.rows.iter().zip(vectors) {
            let similarity = cosine(vector, kept);
            if row.fresh > now && best.is_none_or(|best| similarity > best.similarity) {
                let key = row.key;
                best = Some(Near { key, similarity });
            }
        }
        best
    }

    /// The answer of `key` was given.
    pub(super) fn touch(&mut self, place: Place, key: &CacheKey) {
        let used = self.next();
        if let Some(partition) = self.partitions.get_mut(&place)
            && let Some(row) = partition.rows.iter_mut().find(|row| row.key == *key)
        {
            self.order.remove(&row.used);
            row.used = used;
            self.order.insert(used, place);
        }
    }

    /// Puts `vector` in, in the place of what `key` had, and tells how many rows had to go.
    pub(super) fn insert(
        &mut self,
        partition: CacheKey,
        vector: &[f32],
        key: CacheKey,
        fresh: Moment,
    ) -> usize {
        let place = (partition, vector.len());
        self.remove(place, &key);
        let mut evicted = 0;
        while self.order.len() >= self.max_entries {
            self.evict();
            evicted += 1;
        }
        let used = self.next();
        let partition = self.partitions.entry(place).or_default();
        partition.vectors.extend_from_slice(vector);
        partition.rows.push(Row { key, used, fresh });
        self.order.insert(used, place);
        self.numbers += vector.len();
        evicted
    }

    /// Takes out the row of `key`.
    pub(super) fn remove(&mut self, place: Place, key: &CacheKey) {
        self.remove_where(place, |row| row.key == *key);
    }

    /// Takes out the row that was used least recently.
    fn evict(&mut self) {
        if let Some((used, place)) = self.order.pop_first() {
            self.remove_where(place, |row| row.used == used);
        }
    }

    fn remove_where(&mut self, place: Place, which: impl Fn(&Row) -> bool) {
        let Some(partition) = self.partitions.get_mut(&place) else {
            return;
        };
        let Some(at) = partition.rows.iter().position(which) else {
            return;
        };
        let (row, length) = (partition.rows.swap_remove(at), place.1);
        let last = partition.vectors.len() - length;
        partition.vectors.copy_within(last.., at * length);
        partition.vectors.truncate(last);
        self.numbers -= length;
        self.order.remove(&row.used);
        if partition.rows.is_empty() {
            self.partitions.remove(&place);
        } else if partition.rows.len() < partition.rows.capacity() / 4 {
            partition.rows.shrink_to(2 * partition.rows.len());
            partition.vectors.shrink_to(2 * partition.vectors.len());
        }
    }

    pub(super) fn clear(&mut self) {
        self.partitions.clear();
        self.order.clear();
        self.numbers = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// About how many bytes the vectors take.
    pub(super) fn bytes(&self) -> usize {
        self.numbers * size_of::<f32>() + self.order.len() * size_of::<Row>()
    }

    fn next(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

#[cfg(test)]
mod tests;
