//! The prompts that were counted a moment ago.

use std::{
    fmt,
    sync::{Arc, Mutex, TryLockError, Weak},
};

use donjon_core::Prompt;

use crate::slot::Slot;

/// A table from prompts to their counts, by where they are in memory: the attempts of a call, and its
/// targets of one tokenizer, count its prompt once and read none of it again.
///
/// A prompt never changes while it is shared. That its place is not given to another one is sure
/// because the table keeps a weak reference for as long as it remembers it: that holds a few hundred
/// bytes and none of what the prompt says.
pub(crate) struct Seen {
    places: Box<[Place]>,
}

struct Place {
    slot: Slot,
    /// To the prompt of `slot`; who holds the lock may write there.
    held: Mutex<Option<Weak<Prompt>>>,
}

impl Seen {
    /// Remembers up to `capacity` prompts, rounded up to a power of two.
    pub(crate) fn new(capacity: usize) -> Self {
        let place = || Place {
            slot: Slot::new(),
            held: Mutex::new(None),
        };
        let places = capacity.max(1).next_power_of_two();
        Self {
            places: std::iter::repeat_with(place).take(places).collect(),
        }
    }

    /// What `prompt` counts under the rules of this number.
    #[inline]
    pub(crate) fn get(&self, prompt: &Arc<Prompt>, rules: u32) -> Option<u64> {
        let key = key(prompt, rules);
        self.place(key).slot.get(key)
    }

    /// Remembers it. Somebody else may do so at the same moment; then one of them does.
    pub(crate) fn set(&self, prompt: &Arc<Prompt>, rules: u32, count: u64) {
        let key = key(prompt, rules);
        let place = self.place(key);
        let mut held = match place.held.try_lock() {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
        };
        // At any moment at which the slot shows a prompt there is a weak reference to it: the new
        // one before, the old one until after.
        let new = Arc::downgrade(prompt);
        place.slot.set(key, count);
        let old = held.replace(new);
        drop(held);
        drop(old);
    }

    fn place(&self, key: [u64; 2]) -> &Place {
        // Prompts lie at multiples of sixteen bytes, and the high bits of a product are mixed best.
        let mixed = (key[0] ^ key[1].rotate_left(40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let at = (mixed >> 32) as usize & (self.places.len() - 1);
        &self.places[at]
    }
}

fn key(prompt: &Arc<Prompt>, rules: u32) -> [u64; 2] {
    [Arc::as_ptr(prompt).addr() as u64, u64::from(rules) + 1]
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("places", &self.places.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use donjon_core::{Chat, LlmRequest, Message};

    fn prompt(text: &str) -> Arc<Prompt> {
        Arc::new(Prompt::Chat(Chat::new([Message::user(text)])))
    }

    #[test]
    fn a_prompt_is_known_by_its_place_and_its_rules() {
        let seen = Seen::new(64);
        let one = prompt("one");
        seen.set(&one, 0, 7);
        assert_eq!(seen.get(&one, 0), Some(7));
        assert_eq!(seen.get(&one, 1), None);
        assert_eq!(seen.get(&prompt("one"), 0), None);
    }

    /// Without the weak reference the allocator gives the place to one of these soon.
    #[test]
    fn a_new_prompt_is_never_taken_for_one_that_is_gone() {
        let seen = Seen::new(64);
        for n in 0..1_000 {
            let new = prompt("a text");
            assert_eq!(seen.get(&new, 0), None);
            seen.set(&new, 0, n);
        }
    }

    #[test]
    fn a_prompt_that_is_edited_is_a_new_one() {
        let seen = Seen::new(64);
        let mut request = LlmRequest::chat("m", [Message::user("short")]);
        seen.set(request.shared_prompt(), 0, 7);
        request.edit_chat().expect("a chat").messages = [Arc::new(Message::user("long"))].into();
        assert_eq!(seen.get(request.shared_prompt(), 0), None);
    }

    #[test]
    fn threads_find_their_own() {
        let seen = Seen::new(8);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let seen = &seen;
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let (mine, count) = (prompt("mine"), thread * 10_000 + n);
                        assert_eq!(seen.get(&mine, 0), None);
                        seen.set(&mine, 0, count);
                        assert!(seen.get(&mine, 0).is_none_or(|found| found == count));
                    }
                });
            }
        });
    }
}
