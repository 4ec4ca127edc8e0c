//! How entries stand in a file of the journal: each in a frame that says how long it is and what its
//! checksum is, so that one that was not written whole is known, and what follows it is found.

use smallvec::SmallVec;

/// No byte of UTF-8 is 0xFF, so nothing that a caller sends can look like the beginning of a frame.
const MAGIC: [u8; 4] = [0xff, b'D', b'J', 1];

/// The magic, the length and the checksum.
const HEAD: usize = 12;

/// A frame around `entry`; most are on the stack.
///
/// # Panics
///
/// Where an entry has 4 GB.
pub(crate) fn around(entry: &[u8]) -> SmallVec<[u8; 1_040]> {
    let length = u32::try_from(entry.len()).expect("an entry has names and figures, not gigabytes");
    let length = length.to_le_bytes();
    let mut frame = SmallVec::with_capacity(HEAD + entry.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&checksum(length, entry).to_le_bytes());
    frame.extend_from_slice(entry);
    frame
}

/// Calls `each` with every whole entry of `bytes`, and says how many bytes belong to none.
pub(crate) fn read<'a>(bytes: &'a [u8], mut each: impl FnMut(&'a [u8])) -> usize {
    let mut rest = bytes;
    let mut damaged = 0;
    while !rest.is_empty() {
        if let Some(entry) = whole(rest) {
            each(entry);
            rest = &rest[HEAD + entry.len()..];
        } else {
            // Somebody was stopped while writing; others may have written behind that.
            damaged += 1;
            rest = &rest[1..];
        }
    }
    damaged
}

/// The entry whose frame stands at the beginning of `bytes`.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let entry = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (checksum(*length, entry) == u32::from_le_bytes(*sum)).then_some(entry)
}

fn checksum(length: [u8; 4], entry: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(entry);
    sum.finalize()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let mut entries = Vec::new();
        let damaged = read(bytes, |entry| entries.push(entry.to_vec()));
        (entries, damaged)
    }

    fn framed(entries: &[Vec<u8>]) -> Vec<u8> {
        entries.iter().flat_map(|entry| around(entry)).collect()
    }

    fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Some look like frames themselves.
        let bytes = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40),
            1 => Just(framed(&[b"inner".to_vec()])),
        ];
        prop::collection::vec(bytes, 0..12)
    }

    proptest! {
        /// Cut anywhere, what was whole before the cut is read, and the rest is told.
        #[test]
        fn every_prefix_has_the_entries_that_are_whole_in_it(entries in entries(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for entry in &entries {
                bytes.extend(around(entry));
                ends.push(bytes.len());
            }
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (read, damaged) = all(&bytes[..cut]);
            // A frame that was cut may hold a whole one of its own, which only a test writes.
            prop_assert_eq!(&read[..whole], &entries[..whole]);
            let inner = read[whole..].iter().map(|entry| entry.len() + HEAD).sum::<usize>();
            prop_assert_eq!(damaged + inner, cut - ends[whole]);
        }

        /// One byte that is not what it was costs the entry that it is in, and no other.
        #[test]
        fn a_damaged_entry_costs_no_other(
            lengths in prop::collection::vec(0_usize..40, 1..12),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let entries: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
            let mut bytes = framed(&entries);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let mut end = 0;
            let hurt = entries.iter().position(|entry| {
                end += HEAD + entry.len();
                at < end
            });
            let mut expected = entries.clone();
            let lost = expected.remove(hurt.expect("within one"));
            prop_assert_eq!(all(&bytes), (expected, HEAD + lost.len()));
        }
    }
}
