//! By key.

use donjon_core::{Content, Key, KeyBy, LlmRequest};

use super::{Candidates, RoundRobin, Route, TargetView};

/// Asks the same target for the same key, so that what a provider keeps of a prompt is found again.
///
/// Weighted rendezvous hashing: every target has a score for every key, and the best is asked. When a
/// target goes, only its keys move, spread over all others; when it comes back, they do. The hash is the
/// same in every process. Calls without a key go round.
#[derive(Debug)]
pub struct Sticky {
    by: By,
    others: RoundRobin,
}

#[derive(Debug)]
enum By {
    Key(KeyBy),
    FirstMessage,
}

impl Sticky {
    /// By tenant, user, project, or whatever else.
    pub const fn by(key: KeyBy) -> Self {
        Self::new(By::Key(key))
    }

    /// By the model and the text of the first message, which is what calls with a common beginning share.
    pub const fn by_first_message() -> Self {
        Self::new(By::FirstMessage)
    }

    const fn new(by: By) -> Self {
        Self {
            by,
            others: RoundRobin::new(),
        }
    }

    fn key(&self, request: &LlmRequest) -> Option<u64> {
        match &self.by {
            By::Key(by) => match by.key(request) {
                Key::Name(name) => Some(text_hash(&name)),
                Key::Pair(one, other) => Some(mix(text_hash(&one), text_hash(&other))),
                _ => None,
            },
            By::FirstMessage => {
                let first = request.as_chat()?.messages.first()?;
                let mut hash = text_hash(request.model());
                match first.content.as_ref()? {
                    Content::Text(text) => hash = mix(hash, text_hash(text)),
                    Content::Parts(parts) => {
                        for text in parts.iter().filter_map(|part| part.text.as_deref()) {
                            hash = mix(hash, text_hash(text));
                        }
                    }
                }
                Some(hash)
            }
        }
    }
}

impl Route for Sticky {
    fn choose<'a>(
        &self,
        candidates: Candidates<'a>,
        request: &LlmRequest,
    ) -> Option<TargetView<'a>> {
        let Some(key) = self.key(request) else {
            return self.others.choose(candidates, request);
        };
        // Among equals the scores stand in the order of the hashes.
        let weight = candidates.get(0)?.weight();
        if candidates.iter().all(|target| target.weight() == weight) {
            return candidates
                .iter()
                .max_by_key(|target| mix(target.state.hash, key));
        }
        let mut best: Option<(f64, TargetView<'a>)> = None;
        for target in candidates.iter() {
            let score = score(mix(target.state.hash, key), target.weight());
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, target));
            }
        }
        best.map(|(_, target)| target)
    }

    fn uses_load(&self) -> bool {
        false
    }

    fn uses_latency(&self) -> bool {
        false
    }
}

/// The one with the best score is each of them as often as it has weight.
#[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
fn score(hash: u64, weight: u32) -> f64 {
    // Above 0 and below 1.
    let even = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / even.ln()
}

/// FNV-1a, finished by [`mix`]: no better is needed, and it is the same everywhere.
pub(crate) fn text_hash(text: &str) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step), 0)
}

/// The finish of SplitMix64.
const fn mix(one: u64, other: u64) -> u64 {
    let mut hash = one ^ other.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
