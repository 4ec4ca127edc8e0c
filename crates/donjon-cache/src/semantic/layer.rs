//! The layer and its builder.

use std::{
    fmt,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use donjon_core::{BoxError, Counts, Events, LlmRequest};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    SemanticConfigError, SemanticHandle, SemanticService,
    embed::{Embedder, embedder},
    handle::check_threshold,
    index::Index,
    shared::{Rules, Shared},
    text::Compared,
};
use crate::{
    key::Scope,
    layer::CacheBuilder,
    replay::Replay,
    strategy::{Policy, Strategy, offers_tools},
};

/// Answers what was asked before in other words; see the [module](super).
///
/// All services that one layer and its clones make share what is kept.
#[derive(Clone)]
pub struct SemanticLayer {
    shared: Arc<Shared>,
}

impl SemanticLayer {
    /// Builds a layer that compares texts by what `embedding` makes of them: a service from a text to
    /// a vector, whose direction is what the text means. It is cloned and readied for each text.
    pub fn builder<E>(embedding: E) -> SemanticBuilder
    where
        E: Service<Arc<str>, Response = Vec<f32>> + Clone + Send + Sync + 'static,
        E::Error: Into<BoxError>,
        E::Future: Send,
    {
        let kept = crate::CacheLayer::builder()
            .single_flight(None)
            .max_bytes(64 * 1024 * 1024);
        SemanticBuilder {
            embedder: embedder(embedding),
            kept,
            ttl: Duration::from_secs(3_600),
            tools: false,
            threshold: 0.95,
            shadow: false,
            max_entries: 10_000,
            rules: Rules {
                compared: Compared::default(),
                scope: Scope::Tenant,
                max_text_bytes: 8 * 1024,
                max_dimensions: 4_096,
                embed_timeout: Duration::from_millis(250),
            },
        }
    }

    /// Reads and controls what this layer and its services share.
    pub fn handle(&self) -> SemanticHandle {
        SemanticHandle::new(self.shared.clone())
    }
}

impl<S> Layer<S> for SemanticLayer {
    type Service = SemanticService<S>;

    fn layer(&self, inner: S) -> SemanticService<S> {
        SemanticService::new(inner, self.shared.clone())
    }
}

impl fmt::Debug for SemanticLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemanticLayer")
            .field("rules", &self.shared.rules)
            .field("handle", &self.handle())
            .finish()
    }
}

/// Builds a [`SemanticLayer`].
#[derive(Clone)]
#[must_use]
pub struct SemanticBuilder {
    embedder: Embedder,
    kept: CacheBuilder,
    ttl: Duration,
    tools: bool,
    threshold: f32,
    shadow: bool,
    max_entries: usize,
    rules: Rules,
}

impl SemanticBuilder {
    /// Sets how near a question must be, as the cosine of the angle between the two vectors; default
    /// 0.95. Below that, small models put a sentence and its opposite together.
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// Only reports what it would answer, in figures and events, and lets every call through; default
    /// not.
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }

    /// Sets which messages are compared by their meaning; default the last one of the user.
    pub fn compared(mut self, compared: Compared) -> Self {
        self.rules.compared = compared;
        self
    }

    /// Sets whose answers a caller may be given; default those of the same tenant.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.rules.scope = scope;
        self.kept = self.kept.scope(scope);
        self
    }

    /// Sets whether calls that offer tools are answered; default not: what a tool does, or told the
    /// last time, is seldom what it would tell now. With this, answers that call tools are kept too.
    pub fn answer_with_tools(mut self, answer: bool) -> Self {
        self.tools = answer;
        self
    }

    /// Sets how long an answer is given; default an hour.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how many questions are kept, all partitions together; default 10 000. When there is no
    /// room, the one goes that was used least recently. As many are looked at for each call at most:
    /// about 0.1 µs for each 384 numbers.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets how many bytes the answers take; default 64 MiB. The vectors come on top: their numbers
    /// are 4 bytes each.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.kept = self.kept.max_bytes(bytes);
        self
    }

    /// Sets how many bytes an answer may take to be kept; default 1 MiB, at most an eighth of
    /// [`max_bytes`](Self::max_bytes).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.kept = self.kept.max_entry_bytes(bytes);
        self
    }

    /// Sets how many bytes of text are compared; default 8 KiB. A call with more of it goes on.
    pub fn max_text_bytes(mut self, bytes: usize) -> Self {
        self.rules.max_text_bytes = bytes;
        self
    }

    /// Sets how many numbers a vector may have; default 4 096. A longer one is a failure.
    pub fn max_dimensions(mut self, dimensions: usize) -> Self {
        self.rules.max_dimensions = dimensions;
        self
    }

    /// Sets how long the embedding may take, its readiness included, after which the call goes on;
    /// default 250 ms. It is never given more than the call's own deadline.
    pub fn embed_timeout(mut self, timeout: Duration) -> Self {
        self.rules.embed_timeout = timeout;
        self
    }

    /// Sets how fast streams are given again; default as fast as they are read.
    pub fn replay(mut self, replay: Replay) -> Self {
        self.kept = self.kept.replay(replay);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A value that is zero, or out of its bounds.
    pub fn build(self) -> Result<SemanticLayer, SemanticConfigError> {
        check_threshold(self.threshold)?;
        let rules = self.rules;
        if self.max_entries == 0 {
            return Err(SemanticConfigError::ZeroMaxEntries);
        }
        if rules.max_dimensions == 0 {
            return Err(SemanticConfigError::ZeroMaxDimensions);
        }
        if rules.max_text_bytes == 0 {
            return Err(SemanticConfigError::ZeroMaxTextBytes);
        }
        if rules.embed_timeout.is_zero() {
            return Err(SemanticConfigError::ZeroEmbedTimeout);
        }
        if rules.embed_timeout > Duration::from_secs(3_600) {
            return Err(SemanticConfigError::EmbedTimeoutTooLong(
                rules.embed_timeout,
            ));
        }
        let (ttl, tools) = (self.ttl, self.tools);
        let decide = move |request: &LlmRequest| policy(request, ttl, tools);
        // Both are checked as the builder of the exact tier does.
        let kept = self.kept.ttl(ttl).strategy(Strategy::custom(decide));
        let shared = Shared {
            answers: kept.build()?.into_state(),
            rules,
            embedder: self.embedder,
            index: RwLock::new(Index::new(self.max_entries)),
            counts: Counts::new(),
            events: Events::new(256),
            threshold: AtomicU32::new(self.threshold.to_bits()),
            shadow: AtomicBool::new(self.shadow),
        };
        Ok(SemanticLayer {
            shared: Arc::new(shared),
        })
    }
}

/// How long an answer is kept: one answer to a chat, without tools unless they are allowed.
fn policy(request: &LlmRequest, ttl: Duration, tools: bool) -> Option<Policy> {
    let chat = request.as_chat()?;
    if chat.choices() > 1 || (!tools && offers_tools(chat)) {
        return None;
    }
    let mut policy = Policy::new(ttl);
    policy.tool_calls = tools;
    Some(policy)
}

impl fmt::Debug for SemanticBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemanticBuilder")
            .field("rules", &self.rules)
            .field("threshold", &self.threshold)
            .field("shadow", &self.shadow)
            .field("ttl", &self.ttl)
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}
