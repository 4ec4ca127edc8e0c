//! What all services of one layer share.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use donjon_core::{BoxError, Counts, End, Events, Head, LlmRequest, Observer, Outcome};

use super::{
    embed::Embedder,
    handle::{Count, SemanticEvent},
    index::Index,
    text::{Compared, Question},
    vector::normalised,
};
use crate::{
    key::{CacheKey, Scope},
    record::Asked,
    state::{Found, Given, State},
};

pub(super) struct Shared {
    /// Keeps the answers, under the exact key of their question.
    pub(super) answers: Arc<State>,
    pub(super) rules: Rules,
    pub(super) embedder: Embedder,
    pub(super) index: RwLock<Index>,
    pub(super) counts: Counts<{ Count::ALL }>,
    pub(super) events: Events<SemanticEvent>,
    /// The bits of an `f32`.
    pub(super) threshold: AtomicU32,
    pub(super) shadow: AtomicBool,
}

/// What a builder decided.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) compared: Compared,
    pub(super) scope: Scope,
    pub(super) max_text_bytes: usize,
    pub(super) max_dimensions: usize,
    pub(super) embed_timeout: Duration,
}

/// A question whose vector is known.
pub(super) struct Placed {
    pub(super) partition: CacheKey,
    pub(super) vector: Vec<f32>,
}

/// What is known of a question before its vector is.
pub(super) struct Open {
    pub(super) question: Question,
    /// `None` where the answer is not to be kept.
    pub(super) asked: Option<Asked>,
}

/// What becomes of a call at first.
pub(super) enum First {
    /// It is none for this layer.
    Pass,
    Answer(Given),
    Compare(Open),
}

impl Shared {
    pub(super) fn count(&self, what: Count) {
        self.counts.add(what as usize, 1);
    }

    pub(super) fn threshold(&self) -> f32 {
        f32::from_bits(self.threshold.load(Relaxed))
    }

    /// Looks for an answer to the very same question, and takes it apart where there is none.
    pub(super) fn begin(&self, request: &LlmRequest) -> First {
        let rules = &self.rules;
        let found = self.answers.find(request);
        let asked = match found {
            Found::Bypass => {
                self.count(Count::Bypassed);
                return First::Pass;
            }
            // Its own key is as near as can be. In the shadow it is found by its vector.
            Found::Answer(answer) | Found::Renew(answer, _) if !self.shadow.load(Relaxed) => {
                self.count(Count::Exact);
                return First::Answer(answer);
            }
            Found::Nothing(asked, _) => Some(asked),
            Found::Answer(_) | Found::Renew(..) | Found::Alone(_) => None,
        };
        let question = Question::of(request, &rules.compared, rules.scope, rules.max_text_bytes);
        match question {
            Some(question) => First::Compare(Open { question, asked }),
            None => {
                self.count(Count::Bypassed);
                First::Pass
            }
        }
    }

    /// What the embedding said; `None` where that is no vector, or came to nothing.
    pub(super) fn embedded(&self, result: Result<Vec<f32>, BoxError>) -> Option<Vec<f32>> {
        let vector = result.and_then(|vector| {
            let (length, most) = (vector.len(), self.rules.max_dimensions);
            if length > most {
                return Err(format!("a vector of {length} numbers, more than {most}").into());
            }
            normalised(vector).ok_or_else(|| "a vector without a direction".into())
        });
        match vector {
            Ok(vector) => Some(vector),
            Err(error) => {
                self.count(Count::EmbedFailures);
                let error = || Arc::from(error.to_string());
                self.events
                    .tell(|| SemanticEvent::EmbeddingFailed { error: error() });
                None
            }
        }
    }

    pub(super) fn embedding_timed_out(&self, within: Duration) {
        self.count(Count::EmbedTimeouts);
        self.events
            .tell(|| SemanticEvent::EmbeddingTimedOut { within });
    }

    /// The answer to the nearest question, if it is near enough, and was not asked away.
    pub(super) fn nearest(&self, request: &LlmRequest, placed: &Placed) -> Option<Given> {
        if request.cache().no_cache {
            self.count(Count::Misses);
            return None;
        }
        let answers = &self.answers;
        let (vector, partition) = (&placed.vector[..], placed.partition);
        let place = (partition, vector.len());
        let now = answers.now();
        loop {
            let near = self.read().nearest(partition, vector, now);
            let near = near.filter(|near| near.similarity >= self.threshold());
            let Some(near) = near else { break };
            let Some(entry) = answers.memory.get(&near.key) else {
                // It went where there was no room, or was forgotten by request.
                self.write().remove(place, &near.key);
                continue;
            };
            let too_old =
                { request.cache().max_age }.is_some_and(|most| entry.times.age(now) > most);
            if too_old {
                break;
            }
            let (of, similarity) = (near.key, near.similarity);
            if self.shadow.load(Relaxed) {
                self.count(Count::Shadow);
                self.events
                    .tell(|| SemanticEvent::WouldAnswer { of, similarity });
                break;
            }
            let Some(answer) = answers.give(&entry, request.delivery, now) else {
                break;
            };
            self.write().touch(place, &near.key);
            self.count(Count::Hits);
            self.events
                .tell(|| SemanticEvent::Answered { of, similarity });
            return Some(answer);
        }
        self.count(Count::Misses);
        None
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.answers.enabled.load(SeqCst)
    }
}

/// Puts the vector of a question in once its answer was kept.
pub(crate) struct Placer {
    pub(super) shared: Arc<Shared>,
    pub(super) placed: Placed,
    pub(super) key: CacheKey,
}

impl Observer for Placer {
    fn committed(&mut self, _: &Head) {}

    fn end(&mut self, end: &End<'_>) {
        if !matches!(end.outcome, Outcome::Success) {
            return;
        }
        // Whoever keeps it heard the end before.
        let Some(entry) = self.shared.answers.memory.get(&self.key) else {
            return;
        };
        let (Placed { partition, vector }, key) = (&self.placed, self.key);
        let fresh = entry.times.fresh;
        let evicted = self.shared.write().insert(*partition, vector, key, fresh);
        self.shared.count(Count::Stored);
        self.shared
            .counts
            .add(Count::Evicted as usize, evicted as u64);
    }
}
