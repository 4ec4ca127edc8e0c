//! What is remembered of texts.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
};

use foldhash::quality::{FixedState, RandomState};

use crate::slot::Slot;

/// How many slots a key may be in. It is looked for in all of them.
const WAYS: usize = 4;

/// A table of fixed size from the hash of what is counted to its count. Who finds no room takes the
/// place of another; nothing grows, nothing is allocated once it stands, and nobody waits.
///
/// The hash has 128 bits under two keys of this table's own, so that nobody can make two texts that
/// are taken for one another.
pub(crate) struct Memo {
    slots: Box<[Slot]>,
    keys: [RandomState; 2],
}

impl Memo {
    /// Remembers up to `capacity`, rounded up to a power of two.
    pub(crate) fn new(capacity: usize) -> Self {
        let slots = capacity.max(WAYS).next_power_of_two();
        Self {
            slots: std::iter::repeat_with(Slot::new).take(slots).collect(),
            keys: [RandomState::default(), RandomState::default()],
        }
    }

    /// The hash of what `feed` gives.
    pub(crate) fn hash(&self, feed: impl Fn(&mut dyn FnMut(&[u8]))) -> [u64; 2] {
        self.keys.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            feed(&mut |bytes| {
                // Told with its length, so that what ends one text cannot begin the next.
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            });
            hasher.finish()
        })
    }

    /// What is remembered of the text of this hash.
    pub(crate) fn get(&self, hash: [u64; 2]) -> Option<u64> {
        self.ways(hash).iter().find_map(|slot| slot.get(hash))
    }

    /// Remembers `value` of the text of this hash.
    pub(crate) fn set(&self, hash: [u64; 2], value: u64) {
        let ways = self.ways(hash);
        // Which of the ways gives room is as good as random: other bits of the hash than those that
        // chose the ways, mixed with those of the count.
        let mixed = FixedState::default().hash_one((hash[1], value));
        let free = ways.iter().find(|slot| slot.is_free());
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are enough")]
        let chosen = free.unwrap_or(&ways[mixed as usize % WAYS]);
        chosen.set(hash, value);
    }

    fn ways(&self, hash: [u64; 2]) -> &[Slot] {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are enough")]
        let set = hash[0] as usize & (self.slots.len() / WAYS - 1);
        &self.slots[set * WAYS..][..WAYS]
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(memo: &Memo, texts: &[&str]) -> [u64; 2] {
        memo.hash(|tell| texts.iter().for_each(|text| tell(text.as_bytes())))
    }

    #[test]
    fn where_a_text_ends_counts() {
        let memo = Memo::new(4);
        assert_ne!(hash(&memo, &["ab", "c"]), hash(&memo, &["a", "bc"]));
        assert_ne!(hash(&memo, &["ab"]), hash(&memo, &["ab", ""]));
        assert_eq!(hash(&memo, &["ab"]), hash(&memo, &["ab"]));
        assert_ne!(hash(&memo, &["ab"]), hash(&Memo::new(4), &["ab"]), "keyed");
    }

    #[test]
    fn it_holds_what_fits_and_no_more() {
        let memo = Memo::new(1_024);
        let keys: Vec<_> = (0..100_000_u64)
            .map(|n| hash(&memo, &[&n.to_string()]))
            .collect();
        for (key, n) in keys.iter().zip(0..) {
            memo.set(*key, n);
        }
        let found = keys.iter().filter(|key| memo.get(**key).is_some()).count();
        assert!((1_000..=1_024).contains(&found), "{found}");
    }

    proptest! {
        /// It may forget, and never says anything wrong.
        #[test]
        fn what_it_says_is_what_was_said_last(
            sets in prop::collection::vec((0..40_u64, 0..1_000_u64), 0..400)
        ) {
            let memo = Memo::new(16);
            let mut said = std::collections::HashMap::new();
            for (n, value) in sets {
                let key = hash(&memo, &[&n.to_string()]);
                if said.get(&n) != Some(&value) && memo.get(key).is_some() {
                    // The count of a text never changes, so nobody sets what is known.
                    continue;
                }
                said.insert(n, value);
                memo.set(key, value);
                prop_assert_eq!(memo.get(key), Some(value));
            }
            for (n, value) in said {
                let found = memo.get(hash(&memo, &[&n.to_string()]));
                prop_assert!(found.is_none_or(|found| found == value));
            }
        }
    }
}
