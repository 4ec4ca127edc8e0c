//! What repeats itself among prompts, seen on a sample of them.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use donjon_core::{Content, LlmRequest, Message, Role};
use foldhash::fast::FixedState;

/// The hashes of prompts that were seen lately: 4,096 of them, a newer one in the place of an older.
pub(crate) struct Repeats {
    seen: Box<[AtomicU64]>,
    /// One prompt in so many is looked at.
    one_in: u64,
    hasher: FixedState,
}

/// What a prompt of the sample repeats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repeat {
    /// Whether it was looked at.
    pub(crate) sampled: bool,
    /// The whole of it was asked before, with the same parameters.
    pub(crate) whole: bool,
    /// About so many tokens at its beginning were sent before, for the provider's cache.
    pub(crate) prefix_tokens: u32,
}

const PLACES: usize = 4_096;
/// Providers cache prefixes from 1,024 tokens on, which is some 4 KB.
const LEAST_PREFIX: usize = 4_096;

impl Repeats {
    pub(crate) fn new(one_in: u64) -> Self {
        Self {
            seen: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            one_in: one_in.clamp(1, u64::from(u32::MAX)),
            hasher: FixedState::with_seed(0x646f_6e6a_6f6e),
        }
    }

    /// Looks at a prompt, if it is of the sample: whether it is depends on the prompt alone, so that
    /// whatever repeats it is looked at too.
    pub(crate) fn look(&self, request: &LlmRequest) -> Repeat {
        let Some(chat) = request.as_chat() else {
            return Repeat::default();
        };
        if !of_sample(chat.messages.last().map(|last| &**last), self.one_in) {
            return Repeat::default();
        }
        let mut hash = self.hasher.build_hasher();
        hash.write(request.model().as_bytes());
        let tenant = request.identity().tenant.as_deref();
        hash.write(tenant.unwrap_or_default().as_bytes());
        let mut bytes = 0;
        let mut prefix = None;
        let turns = chat.messages.len();
        for (at, message) in chat.messages.iter().enumerate() {
            // All before the last turn is what a conversation or a shared instruction repeats.
            if at + 1 == turns || (message.role == Role::User && at == 1) {
                prefix.get_or_insert((hash.finish(), bytes));
            }
            bytes += write(&mut hash, message);
        }
        hash.write_u64(chat.temperature.map_or(u64::MAX, f64::to_bits));
        hash.write_u64(chat.output_limit().unwrap_or(u64::MAX));
        hash.write_usize(chat.tools.len());
        let long = prefix.filter(|(_, bytes)| *bytes >= LEAST_PREFIX);
        Repeat {
            sampled: true,
            whole: self.again(hash.finish()),
            prefix_tokens: long
                .filter(|(prefix, _)| self.again(*prefix))
                .map_or(0, |(_, bytes)| u32::try_from(bytes / 4).unwrap_or(u32::MAX)),
        }
    }

    fn again(&self, hash: u64) -> bool {
        // Zero stands for an empty place.
        let hash = hash | 1;
        let at = (hash >> 1) as usize % PLACES;
        self.seen[at].swap(hash, Relaxed) == hash
    }
}

/// Whether a prompt that ends with this message is looked at. It costs every call some nanoseconds, so it is no
/// more than a mixture of how long it is and how it ends.
#[inline]
fn of_sample(last: Option<&Message>, one_in: u64) -> bool {
    let text = match last.map(|message| &message.content) {
        Some(Some(Content::Text(text))) => text.as_bytes(),
        Some(Some(Content::Parts(parts))) => {
            let texts = parts.iter().rev().find_map(|part| part.text.as_deref());
            texts.unwrap_or_default().as_bytes()
        }
        _ => &[],
    };
    let end = match text.last_chunk() {
        Some(end) => u64::from_le_bytes(*end),
        None => text.iter().fold(0, |end, byte| end << 8 | u64::from(*byte)),
    };
    let length = (text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = end ^ length;
    // The high half of the product depends on all bits; it is scaled and not divided.
    let spread = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    spread.wrapping_mul(one_in) >> 32 == 0
}

fn write(hash: &mut impl Hasher, message: &Message) -> usize {
    let text = message.text();
    hash.write(message.role.as_str().as_bytes());
    hash.write(text.as_bytes());
    for call in &message.tool_calls {
        hash.write(call.arguments().as_bytes());
    }
    text.len()
}

impl fmt::Debug for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeats")
            .field("one_in", &self.one_in)
            .finish_non_exhaustive()
    }
}
