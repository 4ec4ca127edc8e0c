//! What a scripted model does with one call.

use std::{sync::Arc, time::Duration};

use donjon_core::{Chunk, Delta, ErrorKind, FinishReason, LimitHint, LlmError, Usage};

use super::reply::{Answer, Finish, Interrupt, Reply, Token, Told};

/// What a [`ScriptedLlm`](super::ScriptedLlm) does with one call: a value put together in builder
/// style, played whole or chunk by chunk as the request asks.
///
/// A *token* is one step of the answer that carries something: a word of reasoning, text or
/// refusal, a tool call's name, a piece of its arguments; with several choices, the same word for
/// each of them. A method that takes a position `n` acts after `n` tokens; a position past the last
/// token means after the last token. What is scripted for the same position happens in the order in
/// which it was written.
///
/// Where the answer comes whole, all waits (first token, gaps, stalls) pass before it, an error in
/// the stream is the answer's error, a cut is [`ErrorKind::Transport`], and keep-alives do not show.
///
/// A text, an [`ErrorKind`] or an [`LlmError`] is a script by itself.
///
/// ```
/// use donjon_core::ErrorKind;
/// use donjon_testkit::Script;
/// use std::time::Duration;
///
/// // Three words, then a minute of silence, then the other two.
/// let slow = Script::words(5).stall_after(3, Duration::from_secs(60));
/// // A refusal that says when to come back.
/// let refused = Script::fail(ErrorKind::RateLimited)
///     .status(429)
///     .retry_after(Duration::from_secs(2));
/// # let _ = (slow, refused);
/// ```
///
/// # Panics
///
/// The methods that shape an answer panic when the script is not an answer, and those that shape an
/// error when it is none: such a test would not test what it says.
#[derive(Clone, Debug)]
#[must_use]
pub struct Script {
    pub(super) reply: Reply,
    pub(super) head_after: Duration,
    pub(super) limits: Vec<LimitHint>,
    pub(super) yields: u32,
}

/// `Script::answer("Hello from the scripted model.")`.
impl Default for Script {
    fn default() -> Self {
        Self::answer("Hello from the scripted model.")
    }
}

impl From<&str> for Script {
    fn from(text: &str) -> Self {
        Self::answer(text)
    }
}

impl From<LlmError> for Script {
    fn from(error: LlmError) -> Self {
        Self::of(Reply::Fail(error))
    }
}

impl From<ErrorKind> for Script {
    fn from(kind: ErrorKind) -> Self {
        LlmError::new(kind, "scripted").into()
    }
}

/// Answers.
impl Script {
    fn of(reply: Reply) -> Self {
        Self {
            reply,
            head_after: Duration::ZERO,
            limits: Vec::new(),
            yields: 0,
        }
    }

    /// An answer with this text, one token a word.
    pub fn answer(text: impl AsRef<str>) -> Self {
        Self::tokens(text.as_ref().split_inclusive(' '))
    }

    /// An answer of these tokens.
    pub fn tokens<T: Into<Box<str>>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let tokens = tokens.into_iter().map(|text| Token::Text(text.into()));
        Self::of(Reply::Answer(Box::new(Answer {
            tokens: tokens.collect(),
            choices: None,
            model: None,
            role: true,
            finish: Finish::Natural,
            usage: Told::Natural,
            first_after: Duration::ZERO,
            gap: Duration::ZERO,
            interrupts: Vec::new(),
        })))
    }

    /// An answer of `n` tokens: `w0 w1 w2 …`.
    pub fn words(n: usize) -> Self {
        Self::tokens((0..n).map(|i| format!("w{i} ")))
    }

    /// An answer without text, tool call or refusal: legal, and finished.
    pub fn empty_answer() -> Self {
        Self::words(0)
    }

    /// Calls a tool after the text. Repeat it for parallel calls. The arguments are sent as they are
    /// given, in pieces of eight characters.
    #[track_caller]
    pub fn tool_call(self, name: impl Into<Box<str>>, arguments: impl AsRef<str>) -> Self {
        self.shape(|answer| {
            let calls = answer.tokens.iter();
            let calls = calls.filter(|token| matches!(token, Token::ToolName { .. }));
            let index = u32::try_from(calls.count()).unwrap_or(u32::MAX);
            let name = name.into();
            answer.tokens.push(Token::ToolName { index, name });
            let letters: Vec<char> = arguments.as_ref().chars().collect();
            for piece in letters.chunks(8) {
                let arguments = piece.iter().collect();
                answer.tokens.push(Token::ToolPiece { index, arguments });
            }
        })
    }

    /// Puts reasoning before the text, one token a word.
    #[track_caller]
    pub fn reasoning(self, text: impl AsRef<str>) -> Self {
        self.shape(|answer| {
            let words = text.as_ref().split_inclusive(' ');
            let words = words.map(|word| Token::Reasoning(word.into()));
            answer.tokens.splice(0..0, words);
        })
    }

    /// Refuses in words, after the text.
    #[track_caller]
    pub fn refusal(self, text: impl AsRef<str>) -> Self {
        self.shape(|answer| {
            let words = text.as_ref().split_inclusive(' ');
            let words = words.map(|word| Token::Refusal(word.into()));
            answer.tokens.extend(words);
        })
    }

    /// Gives the answer this many times, interleaved. Default: as often as was asked for.
    #[track_caller]
    pub fn choices(self, n: u32) -> Self {
        self.shape(|answer| answer.choices = Some(n))
    }

    /// The model that serves. Default: the one asked for.
    #[track_caller]
    pub fn model(self, name: impl Into<Arc<str>>) -> Self {
        self.shape(|answer| answer.model = Some(name.into()))
    }

    /// The finish reason. Default: `stop`, or `tool_calls` where there are any.
    #[track_caller]
    pub fn finish(self, reason: FinishReason) -> Self {
        self.shape(|answer| answer.finish = Finish::Because(reason))
    }

    /// Finishes with `content_filter`.
    #[track_caller]
    pub fn content_filter(self) -> Self {
        self.finish(FinishReason::ContentFilter)
    }

    /// Sends no finish reason: the stream just ends, which is no whole answer.
    #[track_caller]
    pub fn no_finish_reason(self) -> Self {
        self.shape(|answer| answer.finish = Finish::Never)
    }

    /// Sends no role chunk first.
    #[track_caller]
    pub fn no_role(self) -> Self {
        self.shape(|answer| answer.role = false)
    }

    /// The usage that is told. Default: 12 tokens in, and as many out as the answer has. In a
    /// stream it comes last, in a chunk of its own.
    #[track_caller]
    pub fn usage(self, usage: Usage) -> Self {
        self.shape(|answer| answer.usage = Told::This(usage))
    }

    /// Never tells the usage.
    #[track_caller]
    pub fn no_usage(self) -> Self {
        self.shape(|answer| answer.usage = Told::Never)
    }

    #[track_caller]
    fn shape(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        match &mut self.reply {
            Reply::Answer(answer) => change(answer),
            other => panic!("only an answer can be shaped so, this script is {other:?}"),
        }
        self
    }
}

/// The pace of an answer, and what goes wrong in it.
impl Script {
    /// Waits so long before anything else: a stream's head, a whole answer, an error.
    pub fn head_after(mut self, wait: Duration) -> Self {
        self.head_after = wait;
        self
    }

    /// Waits so long between the role chunk and the first token.
    #[track_caller]
    pub fn first_token_after(self, wait: Duration) -> Self {
        self.shape(|answer| answer.first_after = wait)
    }

    /// Waits so long before every token but the first.
    #[track_caller]
    pub fn gap(self, gap: Duration) -> Self {
        self.shape(|answer| answer.gap = gap)
    }

    /// Is pending `times` times, woken at once, before its head and before each chunk. It shows
    /// what happens at every await point without any time passing.
    pub fn yields(mut self, times: u32) -> Self {
        self.yields = times;
        self
    }

    /// Falls silent after `n` tokens: for so long, or (`None`) for ever.
    #[track_caller]
    pub fn stall_after(self, n: usize, wait: impl Into<Option<Duration>>) -> Self {
        self.interrupt(n, Interrupt::Stall(wait.into()))
    }

    /// Sends the role chunk, then nothing for ever.
    #[track_caller]
    pub fn role_then_silence(self) -> Self {
        self.stall_after(0, None)
    }

    /// Ends the stream after `n` tokens, without a finish reason.
    #[track_caller]
    pub fn cut_after(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::Cut)
    }

    /// Ends the stream with this error after `n` tokens.
    #[track_caller]
    pub fn fail_after(self, n: usize, error: impl Into<Failure>) -> Self {
        self.interrupt(n, Interrupt::Fail(error.into().0))
    }

    /// Ends the stream after `n` tokens with something that cannot be understood
    /// ([`ErrorKind::InvalidResponse`]).
    #[track_caller]
    pub fn malformed_after(self, n: usize) -> Self {
        self.fail_after(n, ErrorKind::InvalidResponse)
    }

    /// Panics after `n` tokens.
    #[track_caller]
    pub fn panic_after(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::Panic)
    }

    /// Sends `count` keep-alives after `n` tokens, each after a wait of `every`.
    #[track_caller]
    pub fn pings_at(self, n: usize, count: usize, every: Duration) -> Self {
        self.chunks_at(n, Chunk::ping(), count, every)
    }

    /// Sends `count` deltas that carry nothing after `n` tokens, each after a wait of `every`.
    #[track_caller]
    pub fn empty_deltas_at(self, n: usize, count: usize, every: Duration) -> Self {
        self.chunks_at(n, Chunk::text(""), count, every)
    }

    /// Sends an event of a kind that nobody knows after `n` tokens.
    #[track_caller]
    pub fn unknown_at(self, n: usize) -> Self {
        let mut delta = Delta::default();
        delta.unknown = true;
        self.chunk_at(n, delta)
    }

    /// Sends this chunk, as it is, after `n` tokens.
    #[track_caller]
    pub fn chunk_at(self, n: usize, chunk: impl Into<Chunk>) -> Self {
        self.chunks_at(n, chunk.into(), 1, Duration::ZERO)
    }

    #[track_caller]
    fn chunks_at(self, n: usize, chunk: Chunk, count: usize, every: Duration) -> Self {
        let again = Interrupt::Chunk {
            chunk: Box::new(chunk),
            count,
            every,
        };
        self.interrupt(n, again)
    }

    #[track_caller]
    fn interrupt(self, n: usize, interrupt: Interrupt) -> Self {
        self.shape(|answer| answer.interrupts.push((n, interrupt)))
    }
}

/// Failures.
impl Script {
    /// Fails with this error; a bare kind is an error that says `scripted`.
    pub fn fail(error: impl Into<Failure>) -> Self {
        error.into().0.into()
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self::of(Reply::Hang)
    }

    /// Panics when the answer is polled.
    pub fn panics(message: impl Into<String>) -> Self {
        Self::of(Reply::Panic(message.into()))
    }

    /// The HTTP status of the error.
    #[track_caller]
    pub fn status(self, status: u16) -> Self {
        self.edit(|error| error.with_status(status))
    }

    /// How long to wait before the next attempt, as the error says.
    #[track_caller]
    pub fn retry_after(self, after: Duration) -> Self {
        self.edit(|error| error.with_retry_after(after))
    }

    /// What the error says of retrying (`x-should-retry`).
    #[track_caller]
    pub fn should_retry(self, should: bool) -> Self {
        self.edit(|error| error.with_should_retry(should))
    }

    /// What the server says of a limit, with an answer or with an error. Repeat it for several.
    pub fn limit(mut self, hint: LimitHint) -> Self {
        self.limits.push(hint);
        self
    }

    #[track_caller]
    fn edit(mut self, change: impl FnOnce(LlmError) -> LlmError) -> Self {
        match &mut self.reply {
            Reply::Fail(error) => *error = change(error.clone()),
            other => panic!("only an error can be shaped so, this script is {other:?}"),
        }
        self
    }
}

/// An error, or its bare kind.
#[derive(Clone, Debug)]
pub struct Failure(LlmError);

impl From<LlmError> for Failure {
    fn from(error: LlmError) -> Self {
        Self(error)
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        Self(LlmError::new(kind, "scripted"))
    }
}
