//! Giving a kept answer again, whole or chunk by chunk.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{
    ChatCompletion, Choice, ChoiceDelta, Chunk, Content, Delivery, Delta, Head, LlmError,
    LlmResponse, ResponseStream,
};
use futures_core::Stream;
use tokio::time::{Sleep, sleep};

use crate::entry::{Entry, Kept, Recording, Timed};

/// How fast a stream is given again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Replay {
    /// As fast as it is read; the default.
    #[default]
    AtOnce,
    /// With the pauses between chunks that it had, divided by `speed`; 1 is as it came.
    Paced {
        /// How much faster.
        speed: f64,
    },
}

impl Entry {
    /// The answer, as it is asked for, so many seconds after it came.
    #[inline]
    pub(crate) fn answer(
        &self,
        delivery: Delivery,
        age: u32,
        replay: Replay,
    ) -> Result<LlmResponse, LlmError> {
        let mut head = self.head.clone();
        head.age = age;
        match (&self.kept, delivery) {
            (Kept::Whole(completion), Delivery::Unary) => {
                Ok(LlmResponse::complete(head, completion.clone()))
            }
            (kept, _) => give(head, kept, delivery, replay),
        }
    }
}

fn give(
    head: Head,
    kept: &Kept,
    delivery: Delivery,
    replay: Replay,
) -> Result<LlmResponse, LlmError> {
    Ok(match (kept, delivery) {
        (Kept::Refusal(error), _) => return Err(error.clone()),
        (Kept::Whole(completion), Delivery::Stream { usage }) => match completion.as_chat() {
            Some(chat) => {
                let choices = u32::try_from(chat.choices.len()).unwrap_or(u32::MAX);
                stream(head, choices, chunks_of(chat).into(), usage, replay)
            }
            None => LlmResponse::complete(head, completion.clone()),
        },
        (Kept::Whole(completion), _) => LlmResponse::complete(head, completion.clone()),
        (Kept::Stream(recording), Delivery::Stream { usage }) => {
            let Recording {
                choices, chunks, ..
            } = recording;
            stream(head, *choices, chunks.clone(), usage, replay)
        }
        (Kept::Stream(recording), _) => LlmResponse::complete(head, recording.folded().clone()),
        #[cfg(feature = "zstd")]
        (Kept::Packed(packed, size), _) => {
            let kept = crate::pack::unpack(packed, *size)?;
            return give(head, &kept, delivery, replay);
        }
    })
}

fn stream(
    head: Head,
    choices: u32,
    chunks: Arc<[Timed]>,
    usage: bool,
    replay: Replay,
) -> LlmResponse {
    let replayed = Replayed {
        chunks,
        at: 0,
        usage,
        speed: match replay {
            Replay::AtOnce => None,
            Replay::Paced { speed } => Some(speed),
        },
        pause: None,
    };
    LlmResponse::stream(head, ResponseStream::new(choices, replayed))
}

/// A recording that is played.
struct Replayed {
    chunks: Arc<[Timed]>,
    at: usize,
    /// Whether the caller asked to be told the usage.
    usage: bool,
    speed: Option<f64>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Replayed {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(Timed { chunk, after }) = this.chunks.get(this.at) else {
                return Poll::Ready(None);
            };
            let told = chunk.usage.is_some() && !this.usage;
            if told && chunk.choices.is_empty() {
                this.at += 1;
                continue;
            }
            if let (Some(speed), 1..) = (this.speed, *after) {
                let wait = Duration::from_micros(u64::from(*after)).div_f64(speed);
                let pause = this.pause.get_or_insert_with(|| Box::pin(sleep(wait)));
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            this.at += 1;
            let mut chunk = chunk.clone();
            if told {
                chunk.edit().usage = None;
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.chunks.len() - self.at))
    }
}

/// The chunks that add up to `chat`, which came whole.
pub(crate) fn chunks_of(chat: &ChatCompletion) -> Vec<Timed> {
    let delta = |choices| {
        let mut delta = Delta::default();
        delta.id.clone_from(&chat.id);
        delta.model.clone_from(&chat.model);
        delta.created = chat.created;
        delta.choices = choices;
        delta
    };
    let said = delta(chat.choices.iter().map(said).collect());
    let ended = delta(chat.choices.iter().map(ended).collect());
    let usage = chat.usage.map(|usage| {
        let mut told = delta(Default::default());
        told.usage = Some(usage);
        told
    });
    let all = [Some(said), Some(ended), usage].into_iter().flatten();
    let timed = |delta: Delta| Timed {
        chunk: delta.into(),
        after: 0,
    };
    all.map(timed).collect()
}

fn said(choice: &Choice) -> ChoiceDelta {
    let message = &choice.message;
    let mut delta = ChoiceDelta::default();
    delta.index = choice.index;
    delta.role = Some(message.role.clone());
    delta.content = message.content.as_ref().map(|content| match content {
        Content::Text(text) => text.clone(),
        Content::Parts(_) => message.text().into(),
    });
    delta.reasoning.clone_from(&message.reasoning);
    delta.refusal.clone_from(&message.refusal);
    delta.tool_calls.clone_from(&message.tool_calls);
    for (index, call) in (0..).zip(&mut delta.tool_calls) {
        call.index = Some(index);
    }
    delta.extra = message.extra.clone();
    delta
}

fn ended(choice: &Choice) -> ChoiceDelta {
    let mut delta = ChoiceDelta::default();
    delta.index = choice.index;
    delta.finish_reason.clone_from(&choice.finish_reason);
    delta.logprobs.clone_from(&choice.logprobs);
    delta.beside = choice.extra.clone();
    delta
}
