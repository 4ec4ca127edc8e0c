//! Hearing an answer, to keep it.

use std::sync::Arc;

use donjon_core::{
    ChatCompletion, Chunk, Completion, End, ErrorKind, FinishReason, Head, LlmError, LlmRequest,
    Observer, Origin, Outcome, Question,
};
use tokio::time::Instant;

use crate::{
    entry::{Entry, Kept, Recording, Timed, Times, chunk},
    handle::Refused,
    key::CacheKey,
    replay::Replay,
    state::State,
    strategy::Policy,
};

/// What is known of a question whose answer may be kept.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) key: CacheKey,
    pub(crate) policy: Policy,
    /// How many invalidations there were before it was asked.
    pub(crate) since: u64,
}

/// Hears one answer.
pub(crate) struct Recorder {
    state: Arc<State>,
    asked: Asked,
    question: Question,
    choices: u32,
    head: Option<Head>,
    stream: Option<Box<Heard>>,
}

/// What was heard of a stream.
struct Heard {
    chunks: Vec<Timed>,
    bytes: u64,
    last: Option<Instant>,
    too_long: bool,
}

impl Observer for Recorder {
    fn committed(&mut self, head: &Head) {
        self.head = Some(head.clone());
    }

    fn chunk(&mut self, heard: &Chunk) {
        if heard.is_ping() {
            return;
        }
        let config = &self.state.config;
        let stream = self.stream.get_or_insert_with(|| {
            Box::new(Heard {
                chunks: Vec::new(),
                bytes: 0,
                last: None,
                too_long: false,
            })
        });
        if stream.too_long {
            return;
        }
        stream.bytes += chunk(heard) as u64;
        if stream.bytes > config.max_entry_bytes {
            stream.too_long = true;
            stream.chunks = Vec::new();
            return;
        }
        let mut after = 0;
        if let Replay::Paced { .. } = config.replay {
            let now = Instant::now();
            let gap = stream.last.replace(now).map(|last| now - last);
            after = gap.map_or(0, |gap| u32::try_from(gap.as_micros()).unwrap_or(u32::MAX));
        }
        let chunk = heard.clone();
        stream.chunks.push(Timed { chunk, after });
    }

    fn end(&mut self, end: &End<'_>) {
        let kept = match end.outcome {
            Outcome::Success => match end.completion {
                Some(completion) => self.whole(completion),
                None => self.streamed(),
            },
            Outcome::Failure(error) => self.refusal(error),
            Outcome::Cancelled { .. } => Err(Refused::Cancelled),
        };
        match kept {
            Ok(kept) => self.keep(kept),
            Err(why) => {
                self.state.refuse(why);
                self.state.sweep(self.state.now());
            }
        }
    }
}

impl Recorder {
    pub(crate) fn new(state: Arc<State>, asked: Asked, request: &LlmRequest) -> Self {
        Self {
            state,
            asked,
            question: request.question(),
            choices: request.choices(),
            head: None,
            stream: None,
        }
    }

    fn whole(&self, completion: &Completion) -> Result<Kept, Refused> {
        match completion {
            Completion::Chat(chat) => self.chat(chat)?,
            Completion::Embed(embeddings) if embeddings.data.is_empty() => {
                return Err(Refused::Unfinished);
            }
            _ => {}
        }
        Ok(Kept::Whole(completion.clone()))
    }

    fn chat(&self, chat: &ChatCompletion) -> Result<(), Refused> {
        if !chat.is_finished() || chat.choices.len() < self.choices as usize {
            return Err(Refused::Unfinished);
        }
        self.reasons(chat.choices.iter().filter_map(|c| c.finish_reason.as_ref()))
    }

    fn reasons<'a>(
        &self,
        mut reasons: impl Iterator<Item = &'a FinishReason>,
    ) -> Result<(), Refused> {
        match reasons.find(|reason| !self.asked.policy.keeps(reason)) {
            None => Ok(()),
            Some(FinishReason::Length) => Err(Refused::Truncated),
            Some(FinishReason::ContentFilter) => Err(Refused::Filtered),
            Some(_) => Err(Refused::ToolCalls),
        }
    }

    fn streamed(&mut self) -> Result<Kept, Refused> {
        let heard = self.stream.take().ok_or(Refused::Unfinished)?;
        if heard.too_long {
            return Err(Refused::TooLong);
        }
        let choices = heard.chunks.iter().flat_map(|timed| &timed.chunk.choices);
        self.reasons(choices.filter_map(|choice| choice.finish_reason.as_ref()))?;
        Ok(Kept::Stream(Recording::new(self.choices, heard.chunks)))
    }

    /// An error is kept where it is the caller's own, and that was asked for.
    fn refusal(&mut self, error: &LlmError) -> Result<Kept, Refused> {
        let config = &self.state.config;
        match config.negative_ttl {
            Some(ttl) if self.head.is_none() && is_the_callers(error.kind()) => {
                self.asked.policy = Policy::new(ttl);
                self.head = Some(Head::new(self.question.model().clone()));
                Ok(Kept::Refusal(error.clone()))
            }
            _ => Err(Refused::Error),
        }
    }

    fn keep(&mut self, kept: Kept) {
        let Some(head) = self.head.take() else { return };
        // Given again, it would be as young as on the first day.
        if head.origin == Origin::Cache {
            self.state.refuse(Refused::Cached);
            return;
        }
        let now = self.state.now();
        self.state.sweep(now);
        let times = Times::new(now, &self.asked.policy);
        let question = &self.question;
        let (model, identity) = (question.model().clone(), question.identity().clone());
        let entry = Entry::new(head, model, identity, kept, times);
        self.state
            .keep(self.asked.key, Arc::new(entry), self.asked.since);
    }
}

/// Whether asking again brings the same error: what is wrong is the question.
pub(crate) fn is_the_callers(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidRequest
            | ErrorKind::ContentPolicy
            | ErrorKind::ContextLength
            | ErrorKind::RequestTooLarge
            | ErrorKind::Unsupported
    )
}
