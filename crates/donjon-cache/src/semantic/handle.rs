//! What the layer shows of itself.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use donjon_core::{Events, Figure, Snapshot};

use super::{SemanticConfigError, shared::Shared};
use crate::{handle::Refused, key::CacheKey, store::Invalidate};

/// What the semantic tier tells of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SemanticEvent {
    /// A call was answered with the answer to a question that is near.
    Answered {
        /// The exact key of that question.
        of: CacheKey,
        /// The cosine of the angle between the two.
        similarity: f32,
    },
    /// A call would have been answered so, but for the shadow mode.
    WouldAnswer {
        /// The exact key of that question.
        of: CacheKey,
        /// The cosine of the angle between the two.
        similarity: f32,
    },
    /// A text could not be embedded.
    EmbeddingFailed {
        /// Why.
        error: Arc<str>,
    },
    /// The embedding took too long.
    EmbeddingTimedOut {
        /// How long it was given.
        within: Duration,
    },
}

/// The places of what is counted.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Hits,
    Exact,
    Shadow,
    Misses,
    Bypassed,
    EmbedFailures,
    EmbedTimeouts,
    Stored,
    Evicted,
}

impl Count {
    pub(super) const ALL: usize = Self::Evicted as usize + 1;
}

/// Reads and controls the state that all services of one [`SemanticLayer`](super::SemanticLayer)
/// share.
#[derive(Clone)]
pub struct SemanticHandle {
    shared: Arc<Shared>,
}

impl SemanticHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn get(&self, what: Count) -> u64 {
        self.shared.counts.get(what as usize)
    }

    /// What happens from now on; a listener that falls more than 256 events behind misses some.
    pub fn events(&self) -> &Events<SemanticEvent> {
        &self.shared.events
    }

    /// How many calls were answered with the answer to a question that is near.
    pub fn hits(&self) -> u64 {
        self.get(Count::Hits)
    }

    /// How many calls were answered with the answer to the very same question.
    pub fn exact_hits(&self) -> u64 {
        self.get(Count::Exact)
    }

    /// How many calls would have been answered, but for the shadow mode.
    pub fn shadow_hits(&self) -> u64 {
        self.get(Count::Shadow)
    }

    /// How many calls were compared and went on, those in shadow mode included.
    pub fn misses(&self) -> u64 {
        self.get(Count::Misses)
    }

    /// How many calls were not compared: not chats, with tools, or with nothing to compare.
    pub fn bypassed(&self) -> u64 {
        self.get(Count::Bypassed)
    }

    /// How many texts could not be embedded.
    pub fn embedding_failures(&self) -> u64 {
        self.get(Count::EmbedFailures)
    }

    /// How many embeddings took too long.
    pub fn embedding_timeouts(&self) -> u64 {
        self.get(Count::EmbedTimeouts)
    }

    /// How many answers were kept.
    pub fn stored(&self) -> u64 {
        self.get(Count::Stored)
    }

    /// How many answers were not kept for this reason.
    pub fn refused(&self, why: Refused) -> u64 {
        self.shared.answers.counts.get(why.place())
    }

    /// How many vectors went for want of room.
    pub fn evicted(&self) -> u64 {
        self.get(Count::Evicted)
    }

    /// How many vectors there are. One whose answer went stays until it is found or pushed out.
    pub fn entries(&self) -> usize {
        self.shared.read().len()
    }

    /// About how many bytes vectors and answers take.
    pub fn bytes(&self) -> u64 {
        self.shared.read().bytes() as u64 + self.shared.answers.memory.bytes()
    }

    /// How near a question must be.
    pub fn threshold(&self) -> f32 {
        self.shared.threshold()
    }

    /// Sets how near a question must be, from now on.
    ///
    /// # Errors
    ///
    /// It is not a number above 0 and up to 1.
    pub fn set_threshold(&self, threshold: f32) -> Result<(), SemanticConfigError> {
        check_threshold(threshold)?;
        self.shared.threshold.store(threshold.to_bits(), Relaxed);
        Ok(())
    }

    /// Whether it only reports what it would answer.
    pub fn is_shadow(&self) -> bool {
        self.shared.shadow.load(Relaxed)
    }

    /// Sets whether it only reports what it would answer, from now on.
    pub fn set_shadow(&self, shadow: bool) {
        self.shared.shadow.store(shadow, Relaxed);
    }

    /// Whether it looks at calls at all.
    pub fn is_enabled(&self) -> bool {
        self.shared.is_enabled()
    }

    /// Sets whether it looks at calls at all; what is kept stays.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.answers.enabled.store(enabled, SeqCst);
    }

    /// Forgets answers, and tells how many.
    pub fn invalidate(&self, which: impl Into<Invalidate>) -> usize {
        let which = which.into();
        let gone = self.shared.answers.invalidate(&which);
        if matches!(which, Invalidate::All) {
            self.shared.write().clear();
        }
        gone
    }
}

pub(super) fn check_threshold(threshold: f32) -> Result<(), SemanticConfigError> {
    if threshold > 0.0 && threshold <= 1.0 {
        Ok(())
    } else {
        Err(SemanticConfigError::Threshold(threshold))
    }
}

impl Snapshot for SemanticHandle {
    fn layer(&self) -> &'static str {
        "semantic_cache"
    }

    fn figures(&self) -> Vec<Figure> {
        #[expect(clippy::cast_precision_loss, reason = "as exporters have it")]
        let (entries, bytes) = (self.entries() as f64, self.bytes() as f64);
        let refused = Refused::ALL.iter().map(|why| {
            Figure::counter("refused", self.refused(*why)).label("reason", why.as_str())
        });
        let mut figures = vec![
            Figure::counter("hits", self.hits()),
            Figure::counter("exact_hits", self.exact_hits()),
            Figure::counter("shadow_hits", self.shadow_hits()),
            Figure::counter("misses", self.misses()),
            Figure::counter("bypassed", self.bypassed()),
            Figure::counter("embedding_failures", self.embedding_failures()),
            Figure::counter("embedding_timeouts", self.embedding_timeouts()),
            Figure::counter("stored", self.stored()),
            Figure::counter("evicted", self.evicted()),
            Figure::gauge("entries", entries),
            Figure::gauge("bytes", bytes),
            Figure::gauge("threshold", f64::from(self.threshold())),
        ];
        figures.extend(refused);
        figures
    }
}

impl fmt::Debug for SemanticHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemanticHandle")
            .field("entries", &self.entries())
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}
