//! Which answers are kept, and for how long.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Chat, FinishReason, LlmRequest, Prompt};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long an answer is kept, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How long it is fresh.
    pub ttl: Duration,
    /// How long after that it may still be given, while one call upstream renews it.
    pub stale_while_revalidate: Duration,
    /// How long after its freshness it may be given where the call upstream fails.
    pub stale_if_error: Duration,
    /// Whether an answer is kept that was cut at its limit of tokens (`length`).
    pub truncated: bool,
    /// Whether an answer is kept that calls tools.
    pub tool_calls: bool,
}

impl Policy {
    /// Keeps answers for `ttl`, unless they were cut at their limit of tokens.
    pub const fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            truncated: false,
            tool_calls: true,
        }
    }

    /// Sets how long it may be given while one call upstream renews it.
    #[must_use]
    pub const fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// Sets how long it may be given where the call upstream fails.
    #[must_use]
    pub const fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self
    }
}

/// Which questions are answered from the cache.
///
/// Embeddings are, under every strategy but `Disabled` and `Custom`: the same text gives the same
/// vector.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// All: whoever asks the same again hears the same again. For a day; answers cut at their limit
    /// of tokens too.
    Aggressive,
    /// Those for one answer, without tools: whatever its temperature, the answer had no effect but
    /// itself. For an hour.
    Conservative,
    /// Only those whose answer would be the same anyway: temperature 0 or a seed, and no tools but
    /// harmless ones (see [`harmless_tools`]). For a day. The default.
    ///
    /// [`harmless_tools`]: crate::CacheBuilder::harmless_tools
    #[default]
    Selective,
    /// None.
    Disabled,
    /// As a closure says; `None` is neither answered from the cache nor kept.
    Custom(Decide),
}

/// Says how long the answer to a request is kept, if it is kept at all.
pub type Decide = Arc<dyn Fn(&LlmRequest) -> Option<Policy> + Send + Sync>;

impl Strategy {
    /// Decides by `decide`.
    pub fn custom(decide: impl Fn(&LlmRequest) -> Option<Policy> + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(decide))
    }
}

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aggressive => "Aggressive",
            Self::Conservative => "Conservative",
            Self::Selective => "Selective",
            Self::Disabled => "Disabled",
            Self::Custom(_) => "Custom",
        })
    }
}

/// A strategy, with what a builder changes about its times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) strategy: Strategy,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
    pub(crate) harmless: Vec<Box<str>>,
    /// How long answers to chats are kept, and others; `None` until it is settled.
    chats: Option<Policy>,
    others: Option<Policy>,
}

/// How long an answer is kept: as was decided beforehand, or for this request.
pub(crate) enum Term<'a> {
    Set(&'a Policy),
    Own(Policy),
}

impl Term<'_> {
    pub(crate) const fn policy(&self) -> Policy {
        match self {
            Self::Set(policy) => **policy,
            Self::Own(policy) => *policy,
        }
    }
}

impl Rule {
    /// Decides beforehand what is the same for all requests.
    pub(crate) fn settle(&mut self) {
        let (strategy, own) = (&self.strategy, self.ttl);
        let term = |ttl| {
            let mut policy = Policy::new(own.unwrap_or(ttl))
                .stale_while_revalidate(self.stale_while_revalidate)
                .stale_if_error(self.stale_if_error);
            policy.truncated = matches!(strategy, Strategy::Aggressive);
            policy.tool_calls = !matches!(strategy, Strategy::Conservative);
            policy
        };
        let chats = match strategy {
            Strategy::Conservative => HOUR,
            _ => DAY,
        };
        (self.chats, self.others) = (Some(term(chats)), Some(term(DAY)));
    }

    /// How long the answer to `request` is kept; `None` if it is nobody's but the asker's.
    #[inline]
    pub(crate) fn term(&self, request: &LlmRequest) -> Option<Term<'_>> {
        let kept = match (&self.strategy, request.prompt()) {
            (Strategy::Disabled, _) => false,
            (Strategy::Custom(decide), _) => {
                let policy = decide(request).filter(|policy| !policy.ttl.is_zero());
                return policy.map(Term::Own);
            }
            (Strategy::Conservative, Prompt::Chat(chat)) => {
                chat.choices() <= 1 && !offers_tools(chat)
            }
            (Strategy::Selective, Prompt::Chat(chat)) => {
                let same_again = chat.temperature == Some(0.0) || chat.seed.is_some();
                same_again && self.is_harmless(chat)
            }
            _ => true,
        };
        let policy = match request.prompt() {
            Prompt::Chat(_) => &self.chats,
            _ => &self.others,
        };
        policy.as_ref().filter(|_| kept).map(Term::Set)
    }

    /// Whether no tool that is offered does anything but tell something.
    fn is_harmless(&self, chat: &Chat) -> bool {
        let known = |name: &str| self.harmless.iter().any(|harmless| **harmless == *name);
        let tools = chat.tools.iter();
        // The older way to offer functions, and what providers run by themselves.
        !offers_otherwise(chat)
            && tools
                .map(|tool| tool.function.as_ref().map(|function| &*function.name))
                .all(|name| name.is_some_and(known))
    }
}

pub(crate) fn offers_tools(chat: &Chat) -> bool {
    !chat.tools.is_empty() || offers_otherwise(chat)
}

fn offers_otherwise(chat: &Chat) -> bool {
    ["functions", "web_search_options"].iter().any(|name| {
        chat.extra
            .get(name)
            .is_some_and(|value| value.get() != "null")
    })
}

impl Policy {
    /// Whether an answer that ended so is kept.
    pub(crate) fn keeps(&self, reason: &FinishReason) -> bool {
        match reason {
            FinishReason::Length => self.truncated,
            FinishReason::ContentFilter => false,
            FinishReason::ToolCalls | FinishReason::FunctionCall => self.tool_calls,
            _ => true,
        }
    }
}
