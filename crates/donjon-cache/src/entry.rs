//! What is kept of an answer.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{ChatCompletion, Chunk, Completion, Fold, Head, Identity, LlmError, Wire};

use crate::strategy::Policy;

/// Nanoseconds since the cache was made.
pub(crate) type Moment = u64;

/// What an entry costs beyond what it holds: its place in the table and in the calendar of expiry.
const PLACE: usize = 256;

/// Something that can be answered again; shared by all who are given it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) head: Head,
    /// The model that was asked.
    pub(crate) asked: Arc<str>,
    /// On whose behalf.
    pub(crate) identity: Arc<Identity>,
    pub(crate) kept: Kept,
    pub(crate) times: Times,
    pub(crate) weight: u64,
    /// When it may be renewed next: one call at a time does.
    refresh_at: AtomicU64,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Kept {
    /// It came whole.
    Whole(Completion),
    /// It came chunk by chunk.
    Stream(Recording),
    /// Either, compressed: the bytes, and how many they were.
    #[cfg(feature = "zstd")]
    Packed(Box<[u8]>, usize),
    /// An error that is the caller's own.
    Refusal(LlmError),
}

/// A stream as it came.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) choices: u32,
    pub(crate) chunks: Arc<[Timed]>,
    folded: OnceLock<Completion>,
}

/// A chunk, and how many microseconds it came after the one before.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) chunk: Chunk,
    pub(crate) after: u32,
}

impl Recording {
    pub(crate) fn new(choices: u32, chunks: impl Into<Arc<[Timed]>>) -> Self {
        Self {
            choices,
            chunks: chunks.into(),
            folded: OnceLock::new(),
        }
    }

    /// The answer that its chunks add up to.
    pub(crate) fn folded(&self) -> &Completion {
        self.folded.get_or_init(|| {
            let mut fold = Fold::new();
            self.chunks.iter().for_each(|timed| fold.push(&timed.chunk));
            fold.finish().into()
        })
    }
}

/// When an entry is good for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// When the answer came.
    pub(crate) made: Moment,
    /// Until when it is given.
    pub(crate) fresh: Moment,
    /// Until when it is given while it is renewed.
    pub(crate) stale: Moment,
    /// Until when it is given in the place of an error.
    pub(crate) on_error: Moment,
}

impl Times {
    pub(crate) fn new(made: Moment, policy: &Policy) -> Self {
        let fresh = after(made, policy.ttl);
        Self {
            made,
            fresh,
            stale: after(fresh, policy.stale_while_revalidate),
            on_error: after(fresh, policy.stale_if_error),
        }
    }

    /// When it is good for nothing.
    pub(crate) fn dead(&self) -> Moment {
        self.stale.max(self.on_error)
    }

    pub(crate) fn state(&self, now: Moment) -> State {
        if now < self.fresh {
            State::Fresh
        } else if now < self.stale {
            State::Stale
        } else if now < self.on_error {
            State::OnError
        } else {
            State::Dead
        }
    }

    pub(crate) fn age(&self, now: Moment) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.made))
    }

    /// The age, in whole seconds.
    pub(crate) fn seconds(&self, now: Moment) -> u32 {
        let nanos = now.saturating_sub(self.made);
        u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX)
    }
}

/// What an entry is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Fresh,
    Stale,
    OnError,
    Dead,
}

pub(crate) fn after(at: Moment, wait: Duration) -> Moment {
    at.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}

impl Entry {
    #[inline]
    pub(crate) fn new(
        mut head: Head,
        asked: Arc<str>,
        identity: Arc<Identity>,
        kept: Kept,
        times: Times,
    ) -> Self {
        head.origin = donjon_core::Origin::Cache;
        // What a server said of its limits then says nothing now.
        head.hints = None;
        let weight = PLACE + size_of::<Self>() + text(&head.id) + kept.weight();
        Self {
            head,
            asked,
            identity,
            kept,
            times,
            weight: weight as u64,
            refresh_at: AtomicU64::new(0),
        }
    }

    /// Whether the caller is the one to renew it, and not another.
    pub(crate) fn claim_refresh(&self, now: Moment) -> bool {
        let at = self.refresh_at.load(Relaxed);
        at <= now
            && self
                .refresh_at
                .compare_exchange(at, u64::MAX, Relaxed, Relaxed)
                .is_ok()
    }

    /// It was not renewed; the next may try from `at` on.
    pub(crate) fn release_refresh(&self, at: Moment) {
        self.refresh_at.store(at, Relaxed);
    }
}

impl Kept {
    /// Whether it is an answer that can be given as it stands.
    pub(crate) const fn is_readable(&self) -> bool {
        matches!(self, Self::Whole(_) | Self::Stream(_))
    }

    /// About how many bytes it holds.
    fn weight(&self) -> usize {
        match self {
            Self::Whole(completion) => whole(completion),
            // Once more for the whole answer that it adds up to, which is kept when it was asked for.
            Self::Stream(recording) => recording.chunks.iter().map(timed).sum::<usize>(),
            #[cfg(feature = "zstd")]
            Self::Packed(bytes, _) => bytes.len(),
            Self::Refusal(error) => 256 + error.message().len(),
        }
    }
}

/// About how many bytes a chunk of a recording holds, the text of its fold included.
pub(crate) fn timed(timed: &Timed) -> usize {
    chunk(&timed.chunk)
}

pub(crate) fn chunk(chunk: &Chunk) -> usize {
    let json = json_of(chunk).map_or(0, |json| json.len() + 64);
    let strings = chunk.choices.iter().map(|choice| {
        let calls = choice.tool_calls.iter().map(|call| {
            let name = call.name().map_or(0, str::len);
            size_of_val(call) + call.id.as_deref().map_or(0, str::len) + name + 64
        });
        let extra = [&choice.extra, &choice.beside];
        let extra = extra.into_iter().flat_map(|extra| extra.iter());
        let extra = extra.map(|(name, value)| name.len() + value.get().len() + 64);
        let logprobs = choice.logprobs.as_ref().map_or(0, |raw| raw.get().len());
        calls.sum::<usize>() + extra.sum::<usize>() + logprobs
    });
    let names = text(&chunk.id) + text(&chunk.model);
    size_of::<Timed>() + json + names + 3 * chunk.bytes() + strings.sum::<usize>()
}

fn json_of(chunk: &Chunk) -> Option<&bytes::Bytes> {
    use donjon_core::Dialect::{Anthropic, OpenAi};
    chunk.wire(OpenAi).or_else(|| chunk.wire(Anthropic))
}

fn whole(completion: &Completion) -> usize {
    match completion {
        Completion::Chat(chat) => chat_bytes(chat),
        Completion::Embed(embeddings) => {
            let vectors = embeddings.data.iter();
            vectors.map(|one| 64 + size_of_val(&*one.vector)).sum()
        }
        // Of what is not known here nothing is known.
        _ => 4_096,
    }
}

fn chat_bytes(chat: &ChatCompletion) -> usize {
    let wire = chat
        .wire
        .as_ref()
        .map_or(0, |Wire { json, .. }| json.len() + 64);
    let extra = |extra: &donjon_core::Extra| -> usize {
        let members = extra.iter();
        members
            .map(|(name, value)| name.len() + value.get().len() + 64)
            .sum()
    };
    let choices = chat.choices.iter().map(|choice| {
        let message = &choice.message;
        let texts = [&message.reasoning, &message.refusal, &message.name];
        let texts = texts.into_iter().flatten().map(|text| text.len() + 16);
        let calls = message.tool_calls.iter().map(|call| {
            size_of_val(call) + call.arguments().len() + call.name().map_or(0, str::len) + 64
        });
        let logprobs = choice.logprobs.as_ref().map_or(0, |raw| raw.get().len());
        size_of_val(choice)
            + message.text().len()
            + texts.sum::<usize>()
            + calls.sum::<usize>()
            + extra(&message.extra)
            + extra(&choice.extra)
            + logprobs
    });
    size_of::<ChatCompletion>() + wire + extra(&chat.extra) + choices.sum::<usize>() + 64
}

fn text(text: &Option<Arc<str>>) -> usize {
    text.as_deref().map_or(0, |text| text.len() + 16)
}
