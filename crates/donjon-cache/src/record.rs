//! Hearing an answer, to keep it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{
    ChatCompletion, Chunk, Completion, End, ErrorKind, FinishReason, Head, Identity, LlmError,
    LlmRequest, LlmResponse, Observer, Origin, Outcome, Watch, watch,
};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    entry::{Entry, Kept, Recording, Timed, Times, chunk},
    handle::Refused,
    key::CacheKey,
    replay::Replay,
    state::State,
    strategy::Policy,
};

/// What is known of a question whose answer may be kept.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) key: CacheKey,
    pub(crate) policy: Policy,
    /// How many invalidations there were before it was asked.
    pub(crate) since: u64,
}

/// A service whose answers are kept.
#[derive(Clone)]
pub(crate) struct Recorded<S> {
    pub(crate) inner: S,
    pub(crate) state: Arc<State>,
    /// `None` where the answer is nobody's but the asker's.
    pub(crate) asked: Option<Asked>,
    /// Whether the answer may have been kept since it was looked for: another's call, which this one
    /// did not find any more, may have ended between.
    pub(crate) again: bool,
}

impl<S> Service<LlmRequest> for Recorded<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = RecordedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        if self.again
            && let Some(asked) = &self.asked
            && let Some(answer) = self.state.kept_since(&request, asked)
        {
            let answer = Some(answer);
            return RecordedFuture::Kept { answer };
        }
        let asked = self.asked.clone();
        let recorder = asked.map(|asked| Recorder::new(self.state.clone(), asked, &request));
        let call = request.call.clone();
        let call = watch(&call, self.inner.call(request), recorder);
        RecordedFuture::Calls { call }
    }
}

pin_project! {
    /// The future of [`Recorded`].
    #[project = RecordedProj]
    pub(crate) enum RecordedFuture<F> {
        /// Somebody else's call has been answered between.
        Kept { answer: Option<Result<LlmResponse, LlmError>> },
        Calls {
            #[pin]
            call: Watch<F, Option<Recorder>>,
        },
    }
}

impl<F, E> Future for RecordedFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            RecordedProj::Kept { answer } => {
                Poll::Ready(answer.take().expect("polled after completion"))
            }
            RecordedProj::Calls { call } => call.poll(cx),
        }
    }
}

/// Hears one answer.
pub(crate) struct Recorder {
    state: Arc<State>,
    asked: Asked,
    model: Arc<str>,
    identity: Arc<Identity>,
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
            Err(why) => self.state.refuse(why),
        }
    }
}

impl Recorder {
    pub(crate) fn new(state: Arc<State>, asked: Asked, request: &LlmRequest) -> Self {
        Self {
            state,
            asked,
            model: request.model().clone(),
            identity: request.identity().clone(),
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
                self.head = Some(Head::new(self.model.clone()));
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
        let times = Times::new(self.state.now(), &self.asked.policy);
        let (model, identity) = (self.model.clone(), self.identity.clone());
        let entry = Entry::new(head, model, identity, kept, times);
        self.state.keep(self.asked.key, entry, self.asked.since);
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
