//! What a script holds.

use std::{sync::Arc, time::Duration};

use donjon_core::{Chunk, FinishReason, LlmError, Usage};

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Answer(Box<Answer>),
    Fail(LlmError),
    Hang,
    Panic(String),
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) tokens: Vec<Token>,
    pub(super) choices: Option<u32>,
    pub(super) model: Option<Arc<str>>,
    pub(super) role: bool,
    pub(super) finish: Finish,
    pub(super) usage: Told,
    pub(super) first_after: Duration,
    pub(super) gap: Duration,
    pub(super) interrupts: Vec<(usize, Interrupt)>,
}

#[derive(Clone, Debug)]
pub(super) enum Token {
    Reasoning(Box<str>),
    Text(Box<str>),
    Refusal(Box<str>),
    ToolName { index: u32, name: Box<str> },
    ToolPiece { index: u32, arguments: String },
}

#[derive(Clone, Debug)]
pub(super) enum Finish {
    /// `tool_calls` if there are any, else `stop`.
    Natural,
    Because(FinishReason),
    Never,
}

#[derive(Clone, Debug)]
pub(super) enum Told {
    /// 12 tokens in, and as many out as the answer has.
    Natural,
    This(Usage),
    Never,
}

#[derive(Clone, Debug)]
pub(super) enum Interrupt {
    /// For so long, or for ever.
    Stall(Option<Duration>),
    /// The chunk, each time after a wait.
    Chunk {
        chunk: Box<Chunk>,
        count: usize,
        every: Duration,
    },
    Cut,
    Fail(LlmError),
    Panic,
}
