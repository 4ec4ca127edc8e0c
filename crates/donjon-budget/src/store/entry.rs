//! What an entry of the journal says: by how much sums have grown, all of one settlement together.
//!
//! An entry names what it changes in full, so that each can be read without any other.

use smallvec::SmallVec;

/// A line of the report: how many figures follow, and for each its place and by how much it grew.
const LINE: u8 = 0;
/// Spent under a limit: the cell, the period, and by how much that grew.
const LIMIT: u8 = 1;

/// An entry that is being written. What is taken off is added as its complement to 2⁶⁴.
#[derive(Default)]
pub(crate) struct Entry {
    bytes: SmallVec<[u8; 1_024]>,
    /// Where the number of figures of the last line stands.
    count: usize,
}

impl Entry {
    /// Begins a line; its figures follow.
    pub(crate) fn line(&mut self, id: &str) {
        self.of(LINE, id);
        self.count = self.bytes.len();
        self.bytes.push(0);
    }

    /// A figure of the line that was begun last has grown by `more`.
    pub(crate) fn figure(&mut self, place: u8, more: u64) {
        self.bytes[self.count] += 1;
        self.bytes.push(place);
        self.bytes.extend_from_slice(&more.to_le_bytes());
    }

    /// What was spent in a period under a limit has grown by `more`.
    pub(crate) fn limit(&mut self, id: &str, cell: u8, period: u64, more: u64) {
        self.of(LIMIT, id);
        self.bytes.push(cell);
        self.bytes.extend_from_slice(&period.to_le_bytes());
        self.bytes.extend_from_slice(&more.to_le_bytes());
    }

    fn of(&mut self, kind: u8, id: &str) {
        // Whoever has a name of 4 GB has other cares.
        let length = u32::try_from(id.len()).unwrap_or(u32::MAX);
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(id.as_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an entry changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Figure {
        line: &'a str,
        place: u8,
        more: u64,
    },
    Spent {
        limit: &'a str,
        cell: u8,
        period: u64,
        more: u64,
    },
}

/// All changes of an entry, or none if it is no entry of this version.
pub(crate) fn changes(mut bytes: &[u8]) -> Option<Vec<Change<'_>>> {
    let mut changes = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        bytes = rest;
        let length = usize::try_from(u32::from_le_bytes(*take(&mut bytes)?)).ok()?;
        let (id, rest) = bytes.split_at_checked(length)?;
        let id = std::str::from_utf8(id).ok()?;
        bytes = rest;
        let [first] = *take(&mut bytes)?;
        match kind {
            LINE => {
                for _ in 0..first {
                    let [place] = *take(&mut bytes)?;
                    let more = u64::from_le_bytes(*take(&mut bytes)?);
                    let line = id;
                    changes.push(Change::Figure { line, place, more });
                }
            }
            LIMIT => changes.push(Change::Spent {
                limit: id,
                cell: first,
                period: u64::from_le_bytes(*take(&mut bytes)?),
                more: u64::from_le_bytes(*take(&mut bytes)?),
            }),
            _ => return None,
        }
    }
    Some(changes)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut entry = Entry::default();
        entry.line("{\"of\":\"line\"}");
        entry.figure(0, 1);
        entry.figure(15, u64::MAX);
        entry.limit("é", 64, 20_000, 7);
        let line = "{\"of\":\"line\"}";
        let figure = |place, more| Change::Figure { line, place, more };
        let spent = Change::Spent {
            limit: "é",
            cell: 64,
            period: 20_000,
            more: 7,
        };
        assert_eq!(
            changes(entry.bytes()),
            Some(vec![figure(0, 1), figure(15, u64::MAX), spent])
        );
        for cut in 1..entry.bytes().len() {
            let known = changes(&entry.bytes()[..cut]);
            assert!(known.is_none_or(|known| known == [figure(0, 1), figure(15, u64::MAX)]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = changes(&bytes);
        }
    }
}
