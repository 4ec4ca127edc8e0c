//! Playing the steps of a call.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use donjon_core::{
    Chunk, Completion, EmbedInput, Embedding, Embeddings, ErrorKind, Fold, Head, LlmError,
    LlmRequest, LlmResponse, Name, Prompt, ResponseStream,
};
use futures_core::Stream;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

use super::{
    Shared,
    plan::{Plan, Step},
    record::CallEnd,
    ticket::Ticket,
};

/// Plays steps one after the other.
#[derive(Debug, Default)]
struct Player {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What a player comes to.
enum Said {
    Chunk(Box<Chunk>),
    Fail(LlmError),
    Panic(String),
    End,
}

impl Player {
    /// The next thing that is said.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Said> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            // Silence lasts, so it stays at the front.
            if let Some(Step::Silence) = self.steps.front() {
                return Poll::Pending;
            }
            return Poll::Ready(match self.steps.pop_front() {
                Some(Step::Wait(wait)) => {
                    if !wait.is_zero() {
                        self.sleep = Some(Box::pin(sleep(wait)));
                    }
                    continue;
                }
                Some(Step::Yield) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Chunk(chunk)) => Said::Chunk(chunk),
                Some(Step::Fail(error)) => Said::Fail(error),
                Some(Step::Panic(message)) => Said::Panic(message),
                Some(Step::Cut | Step::Silence) | None => {
                    self.steps.clear();
                    Said::End
                }
            });
        }
    }
}

/// A call until its head.
pub(super) struct Play {
    ticket: Option<Ticket>,
    plan: Plan,
    provider: Name,
    /// What is embedded; `None` for a chat.
    inputs: Option<u32>,
    streamed: bool,
    sent: bool,
    at_head: bool,
    player: Player,
    fold: Fold,
}

impl Play {
    pub(super) fn new(
        shared: Arc<Shared>,
        permit: Option<OwnedSemaphorePermit>,
        provider: Name,
        mut request: LlmRequest,
    ) -> Self {
        let attempt = request.call.dispatch().clone();
        attempt.leaf_stamps_sent();
        attempt.set_model(request.model());
        let script = shared.next(&request);
        let inputs = inputs(&request);
        let streamed = request.is_stream() && inputs.is_none();
        let number = shared.record().open(request.clone());
        let mut plan = Plan::new(script, &request, number);
        let player = Player {
            steps: std::mem::take(&mut plan.head),
            sleep: None,
        };
        let ticket = Ticket::new(shared, number, attempt, permit, plan.choices);
        Self {
            ticket: Some(ticket),
            plan,
            provider,
            inputs,
            streamed,
            sent: false,
            at_head: false,
            player,
            fold: Fold::new(),
        }
    }

    fn head(&self) -> Head {
        let mut head = Head::new(self.plan.model.clone());
        head.id = Some(self.plan.id.clone());
        head.provider = Some(self.provider);
        head.hints.clone_from(&self.plan.hints);
        head
    }

    fn fail(&mut self, mut ticket: Ticket, error: LlmError) -> LlmError {
        let error = match error.provider() {
            Some(_) => error,
            None => error.with_provider(self.provider),
        };
        if error.status().is_some() {
            ticket.attempt.stamp_first_byte();
        }
        ticket.attempt.fail(&error);
        ticket.head();
        ticket.end(CallEnd::Failed(error.kind()));
        error
    }

    fn whole(&mut self, mut ticket: Ticket) -> Result<LlmResponse, LlmError> {
        if !ticket.is_complete() {
            let error = LlmError::new(ErrorKind::Transport, "the scripted answer was cut");
            return Err(self.fail(ticket, error));
        }
        ticket.attempt.stamp_first_byte();
        ticket.head();
        let chat = std::mem::take(&mut self.fold).finish();
        let completion: Completion = match self.inputs {
            None => chat.into(),
            Some(inputs) => {
                let mut embeddings = Embeddings::default();
                let vector: Arc<[f32]> = Arc::from([0.6, 0.8]);
                embeddings.data = (0..inputs)
                    .map(|index| Embedding::new(index, vector.clone()))
                    .collect();
                embeddings.model = chat.model;
                embeddings.usage = chat.usage;
                embeddings.into()
            }
        };
        ticket.end(CallEnd::Answered);
        Ok(LlmResponse::complete(self.head(), completion))
    }
}

fn inputs(request: &LlmRequest) -> Option<u32> {
    let count = match request.prompt() {
        Prompt::Embed(embed) => match &embed.input {
            EmbedInput::Texts(texts) => texts.len(),
            EmbedInput::Tokens(tokens) => tokens.len(),
            _ => 0,
        },
        _ => return None,
    };
    Some(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Future for Play {
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(ticket) = &mut this.ticket else {
            panic!("a scripted call was polled after it resolved");
        };
        ticket.polled();
        if !this.sent && !this.plan.unsent {
            // The bytes leave when the call is polled first, as a transport's do.
            ticket.attempt.stamp_sent();
            this.sent = true;
        }
        loop {
            let said = ready!(this.player.poll(cx));
            let Some(mut ticket) = this.ticket.take() else {
                return Poll::Pending;
            };
            match said {
                Said::Panic(message) => ticket.panic(&message),
                Said::Chunk(chunk) => {
                    // The parts of a whole answer; the caller gets them together.
                    ticket.chunk(&chunk);
                    if !chunk.is_ping() {
                        this.fold.push(&chunk);
                    }
                    this.ticket = Some(ticket);
                }
                Said::Fail(error) => return Poll::Ready(Err(this.fail(ticket, error))),
                Said::End if this.at_head => return Poll::Ready(this.whole(ticket)),
                Said::End => {
                    this.at_head = true;
                    this.player.steps = std::mem::take(&mut this.plan.body);
                    if !this.streamed {
                        this.ticket = Some(ticket);
                        continue;
                    }
                    ticket.attempt.stamp_first_byte();
                    ticket.head();
                    ticket.streams();
                    let stream = Playback {
                        ticket,
                        player: std::mem::take(&mut this.player),
                        provider: this.provider,
                    };
                    let stream = ResponseStream::new(this.plan.choices, stream);
                    return Poll::Ready(Ok(LlmResponse::stream(this.head(), stream)));
                }
            }
        }
    }
}

impl fmt::Debug for Play {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Play")
            .field("number", &self.ticket.as_ref().map(|ticket| ticket.number))
            .field("left", &self.player.steps)
            .finish_non_exhaustive()
    }
}

/// A stream being played.
struct Playback {
    ticket: Ticket,
    player: Player,
    provider: Name,
}

impl Stream for Playback {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.ticket.polled();
        let item = match ready!(this.player.poll(cx)) {
            Said::Panic(message) => this.ticket.panic(&message),
            Said::Chunk(chunk) => {
                this.ticket.chunk(&chunk);
                Some(Ok(*chunk))
            }
            Said::Fail(error) => {
                let error = match error.provider() {
                    Some(_) => error,
                    None => error.with_provider(this.provider),
                };
                this.ticket.end(CallEnd::Failed(error.kind()));
                Some(Err(error))
            }
            Said::End => {
                let end = if this.ticket.is_complete() {
                    CallEnd::Answered
                } else {
                    CallEnd::Failed(ErrorKind::Incomplete)
                };
                this.ticket.end(end);
                None
            }
        };
        Poll::Ready(item)
    }
}
