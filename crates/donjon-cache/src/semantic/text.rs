//! What of a request is compared by its meaning, and what must be the same.

use std::{fmt, ops::Range, sync::Arc};

use donjon_core::{Chat, Content, Dialect, LlmRequest, Message, Role};

use crate::key::{CacheKey, Scope};

/// The places of the messages that are compared.
type Choose = dyn Fn(&Chat) -> Option<Range<usize>> + Send + Sync;

/// Which messages are compared by their meaning. All others must be the same, as must be the model,
/// the tools and every parameter.
#[derive(Clone)]
#[non_exhaustive]
pub enum Compared {
    /// The last message of the user, and so many messages before it that are of the user or the
    /// assistant; the default is none before it.
    LastUser {
        /// How many messages before it.
        before: usize,
    },
    /// Those that a closure names by their places; `None` for a conversation that is not to be
    /// answered from here.
    Custom(Arc<Choose>),
}

impl Compared {
    /// Compares the messages whose places `choose` names.
    pub fn custom(choose: impl Fn(&Chat) -> Option<Range<usize>> + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(choose))
    }

    fn range(&self, chat: &Chat) -> Option<Range<usize>> {
        match self {
            Self::LastUser { before } => {
                let of = |message: &Arc<Message>, role| message.role == role;
                let last = { chat.messages.iter() }.rposition(|one| of(one, Role::User))?;
                let earlier = chat.messages[..last].iter().rev();
                let spoken = earlier
                    .take(*before)
                    .take_while(|one| of(one, Role::User) || of(one, Role::Assistant));
                Some(last - spoken.count()..last + 1)
            }
            Self::Custom(choose) => choose(chat),
        }
    }
}

impl Default for Compared {
    fn default() -> Self {
        Self::LastUser { before: 0 }
    }
}

impl fmt::Debug for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastUser { before } => {
                f.debug_struct("LastUser").field("before", before).finish()
            }
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// A question taken apart.
pub(super) struct Question {
    /// What is compared.
    pub(super) text: Arc<str>,
    /// The name of all the rest.
    pub(super) rest: CacheKey,
}

impl Question {
    /// Takes `request` apart; `None` where there is nothing to compare, or more than `max_bytes` of
    /// it, or where it says things that are not known here.
    pub(super) fn of(
        request: &LlmRequest,
        compared: &Compared,
        scope: Scope,
        max_bytes: usize,
    ) -> Option<Self> {
        let chat = request.as_chat()?;
        // In other words it may say more, the compared text among it.
        let wire = chat.wire.as_ref();
        if wire.is_some_and(|wire| wire.dialect != Dialect::OpenAi) {
            return None;
        }
        let range = compared.range(chat)?;
        let messages = chat.messages.get(range.clone())?;
        let text = match messages {
            [one] => one.text().into(),
            several => {
                let lines = several.iter();
                let lines = lines.map(|one| format!("{}: {}\n", one.role.as_str(), one.text()));
                Arc::<str>::from(lines.collect::<String>())
            }
        };
        let empty = messages.iter().all(|one| one.text().trim().is_empty());
        if empty || text.len() > max_bytes {
            return None;
        }
        let mut rest = request.clone();
        let chat = rest.edit_chat()?;
        let all = chat.messages.iter().enumerate();
        let without = all.map(|(at, message)| match range.contains(&at) {
            true => Arc::new(without_text(message)),
            false => message.clone(),
        });
        chat.messages = without.collect();
        // Two choices of messages that leave the same are told apart.
        let mut hash = blake3::Hasher::new();
        rest.canonical(scope.whose(), |piece| {
            hash.update(piece.bytes);
        });
        for end in [range.start, range.end] {
            hash.update(&(end as u64).to_le_bytes());
        }
        let rest = CacheKey::from(*hash.finalize().as_bytes());
        Some(Self { text, rest })
    }
}

/// Whatever else it has, an image or a call of a tool, must be the same.
fn without_text(message: &Message) -> Message {
    let mut message = message.clone();
    match &mut message.content {
        None => {}
        Some(Content::Text(text)) => *text = "".into(),
        Some(Content::Parts(parts)) => {
            for part in parts {
                if part.text.is_some() {
                    part.text = Some("".into());
                }
            }
        }
    }
    message
}
