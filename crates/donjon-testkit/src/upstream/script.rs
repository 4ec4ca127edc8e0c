//! What the upstream does with one call.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{Answer, Cut, Finish, Interrupt, KeepAlive, Usage, UsageWhen};
use super::failure::Failure;
use super::framing::Framing;

/// What the upstream does with one call: a value put together in builder style, played in whichever dialect the call was
/// made and unary or streamed as it was asked for.
///
/// A *token* is one delta that carries something: a piece of reasoning, text or refusal, a tool call's name, a piece of its
/// arguments, an unknown delta; with several choices, one for each. A method that takes a position `n` acts after `n`
/// tokens; a position past the last token means after the last token. What is scripted for the same position happens in
/// the order in which it was written.
///
/// Gemini and Ollama tell a tool call whole, as one token, and open a stream with nothing; their streams end with the
/// finish reason, so that [`no_done`](Self::no_done) changes nothing there. Ollama has no comments: keep-alives of any kind
/// are deltas that carry nothing.
///
/// In a unary answer all waits (first token, gaps, stalls) pass before the headers, an error event is the response itself,
/// a cut leaves half the promised body, a malformed event makes the body malformed, and keep-alives do not show.
///
/// # Panics
///
/// The methods that shape an answer panic when the script is not an answer: such a test would not test what it says.
#[derive(Debug, Clone)]
#[must_use]
pub struct Script {
    pub(super) reply: Reply,
    pub(super) delay: Duration,
    pub(super) headers: HeaderMap,
    pub(super) trickle: Option<(usize, Duration)>,
    pub(super) framing: Framing,
}

#[derive(Debug, Clone)]
pub(super) enum Reply {
    Answer(Box<Answer>),
    Failure(Failure),
    /// The head of an answer, and then nothing.
    HeadersOnly,
    /// Not a byte, until the peer leaves.
    Hang,
    /// The connection is closed without a byte: in order, or by a TCP reset.
    Close {
        reset: bool,
    },
    Garbage(Bytes),
}

/// `Script::answer("Hello from the upstream.")`.
impl Default for Script {
    fn default() -> Self {
        Self::answer("Hello from the upstream.")
    }
}

impl From<Failure> for Script {
    fn from(failure: Failure) -> Self {
        Self::of(Reply::Failure(failure))
    }
}

/// Answers.
impl Script {
    fn of(reply: Reply) -> Self {
        Self {
            reply,
            delay: Duration::ZERO,
            headers: HeaderMap::new(),
            trickle: None,
            framing: Framing::default(),
        }
    }

    /// An answer with this text, one token a word.
    pub fn answer(text: impl AsRef<str>) -> Self {
        Self::tokens(text.as_ref().split_inclusive(' '))
    }

    /// An answer of these tokens.
    pub fn tokens<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let text = tokens.into_iter().map(Into::into).collect();
        Self::of(Reply::Answer(Box::new(Answer {
            text,
            ..Answer::default()
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

    /// Calls a tool after the text. Repeat it for parallel calls. The arguments are sent as they are given, in pieces of
    /// eight characters.
    #[track_caller]
    pub fn tool_call(self, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        self.shape(|answer| answer.tools.push((name.into(), arguments.into())))
    }

    /// Puts reasoning before the text, one token a word.
    #[track_caller]
    pub fn reasoning(self, text: impl AsRef<str>) -> Self {
        self.shape(|answer| {
            answer.reasoning = text.as_ref().split_inclusive(' ').map(Into::into).collect()
        })
    }

    /// Refuses in words: OpenAI's `refusal` field; in Anthropic's dialect text with stop reason `refusal`.
    #[track_caller]
    pub fn refusal(self, text: impl AsRef<str>) -> Self {
        self.shape(|answer| {
            answer.refusal = text.as_ref().split_inclusive(' ').map(Into::into).collect()
        })
    }

    /// Sends a delta of a kind nobody knows before the text.
    #[track_caller]
    pub fn unknown_delta(self) -> Self {
        self.shape(|answer| answer.unknown = true)
    }

    /// Gives the answer this many times, interleaved (`n` in OpenAI's API; Gemini's too, the other APIs have no such thing and give one).
    #[track_caller]
    pub fn choices(self, n: u32) -> Self {
        self.shape(|answer| answer.choices = n)
    }

    /// The model named in the response. Default: the one asked for.
    #[track_caller]
    pub fn model(self, name: impl Into<String>) -> Self {
        self.shape(|answer| answer.model = Some(name.into()))
    }

    /// The finish reason, in OpenAI's words; the others get their own word for it. Default: `stop`, or `tool_calls`.
    #[track_caller]
    pub fn finish(self, reason: impl Into<String>) -> Self {
        self.shape(|answer| answer.finish = Finish::Because(reason.into()))
    }

    /// Finishes with `content_filter` (Anthropic: `refusal`, Gemini: `SAFETY`).
    #[track_caller]
    pub fn content_filter(self) -> Self {
        self.finish("content_filter")
    }

    /// Sends no finish reason: the stream just ends.
    #[track_caller]
    pub fn no_finish_reason(self) -> Self {
        self.shape(|answer| answer.finish = Finish::Never)
    }

    /// Sends no `[DONE]` (Anthropic: no `message_stop`).
    #[track_caller]
    pub fn no_done(self) -> Self {
        self.shape(|answer| answer.done = false)
    }

    /// Sends no role chunk first (Anthropic: no `message_start`).
    #[track_caller]
    pub fn no_role(self) -> Self {
        self.shape(|answer| answer.role = false)
    }

    /// The usage reported. Default: 12 tokens in, as many out as the answer has.
    #[track_caller]
    pub fn usage(self, usage: Usage) -> Self {
        self.shape(|answer| answer.usage = Some(usage))
    }

    /// Never reports usage, even when asked to.
    #[track_caller]
    pub fn no_usage(self) -> Self {
        self.shape(|answer| answer.usage_when = UsageWhen::Never)
    }

    /// Reports usage in an OpenAI stream even when it was not asked for.
    #[track_caller]
    pub fn forced_usage(self) -> Self {
        self.shape(|answer| answer.usage_when = UsageWhen::Always)
    }

    /// Reports usage in the chunk that has the finish reason, asked for or not, as Mistral and others do.
    #[track_caller]
    pub fn usage_with_finish(self) -> Self {
        self.shape(|answer| answer.usage_when = UsageWhen::WithFinish)
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
    /// Waits so long before every token but the first.
    #[track_caller]
    pub fn gap(self, gap: Duration) -> Self {
        self.shape(|answer| answer.gap = gap)
    }

    /// Waits so long between the role chunk and the first token.
    #[track_caller]
    pub fn first_token_after(self, wait: Duration) -> Self {
        self.shape(|answer| answer.first_after = wait)
    }

    /// Falls silent after `n` tokens: for so long, or (`None`) until the peer leaves.
    #[track_caller]
    pub fn stall_after(self, n: usize, wait: impl Into<Option<Duration>>) -> Self {
        self.interrupt(n, Interrupt::Stall(wait.into()))
    }

    /// Sends the role chunk, then nothing until the peer leaves.
    #[track_caller]
    pub fn role_then_silence(self) -> Self {
        self.stall_after(0, None)
    }

    /// Closes the connection after `n` tokens, between two events.
    #[track_caller]
    pub fn cut_after(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::Cut(Cut::BetweenEvents))
    }

    /// Closes the connection after `n` tokens and half of the event that comes next.
    #[track_caller]
    pub fn cut_inside_event(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::Cut(Cut::InsideEvent))
    }

    /// Closes the connection after `n` tokens and half of the next *HTTP chunk*, whose size line promised the whole.
    /// Over HTTP/2, which has no such chunks, the whole connection breaks.
    #[track_caller]
    pub fn cut_inside_chunk(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::Cut(Cut::InsideChunk))
    }

    /// Resets the connection (TCP `RST`) after `n` tokens. In memory there is no reset: it closes.
    #[track_caller]
    pub fn reset_after(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::Cut(Cut::Reset))
    }

    /// Sends an event whose JSON is malformed after `n` tokens; the stream goes on.
    #[track_caller]
    pub fn bad_event_at(self, n: usize) -> Self {
        self.interrupt(n, Interrupt::BadEvent)
    }

    /// Tells of an error in the stream after `n` tokens and ends the body in order, without `[DONE]`.
    #[track_caller]
    pub fn error_event_at(self, n: usize, failure: Failure) -> Self {
        self.interrupt(n, Interrupt::Error(failure))
    }

    /// Sends `count` keep-alives of the dialect before the first token, each after a wait of `every`: Anthropic's `ping`
    /// event, a comment in OpenAI's dialect. `usize::MAX` means until the peer leaves.
    #[track_caller]
    pub fn pings(self, count: usize, every: Duration) -> Self {
        self.pings_at(0, count, every)
    }

    /// As [`pings`](Self::pings), after `n` tokens.
    #[track_caller]
    pub fn pings_at(self, n: usize, count: usize, every: Duration) -> Self {
        self.interrupt(
            n,
            Interrupt::KeepAlive {
                kind: KeepAlive::Ping,
                count,
                every,
            },
        )
    }

    /// Sends SSE comments after `n` tokens, in every dialect.
    #[track_caller]
    pub fn comments_at(self, n: usize, count: usize, every: Duration) -> Self {
        self.interrupt(
            n,
            Interrupt::KeepAlive {
                kind: KeepAlive::Comment,
                count,
                every,
            },
        )
    }

    /// Sends deltas that carry nothing after `n` tokens.
    #[track_caller]
    pub fn empty_deltas_at(self, n: usize, count: usize, every: Duration) -> Self {
        self.interrupt(
            n,
            Interrupt::KeepAlive {
                kind: KeepAlive::EmptyDelta,
                count,
                every,
            },
        )
    }

    #[track_caller]
    fn interrupt(self, n: usize, interrupt: Interrupt) -> Self {
        self.shape(|answer| answer.interrupts.push((n, interrupt)))
    }
}

/// Failures and faults.
impl Script {
    /// An error with this status and body (`application/json`), in every dialect. See [`Failure`] for what providers
    /// really send.
    ///
    /// # Panics
    ///
    /// On a status outside 100–999.
    #[track_caller]
    pub fn error(status: u16, body: impl Into<Bytes>) -> Self {
        Self::raw(status, "application/json", body)
    }

    /// A response with this status, content type and body, in every dialect.
    ///
    /// # Panics
    ///
    /// On a status outside 100–999.
    #[track_caller]
    pub fn raw(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let Ok(status) = StatusCode::from_u16(status) else {
            panic!("{status} is no HTTP status")
        };
        Failure::plain(status, content_type, body.into()).into()
    }

    /// A failure as a provider sends it.
    pub fn fail(failure: Failure) -> Self {
        failure.into()
    }

    /// Status 200 and a stream whose only event is this error. A unary call gets the failure itself.
    pub fn error_event(failure: Failure) -> Self {
        Self::empty_answer().no_role().error_event_at(0, failure)
    }

    /// Never answers, until the peer leaves.
    pub fn hang() -> Self {
        Self::of(Reply::Hang)
    }

    /// Sends the head of an answer, then nothing until the peer leaves.
    pub fn headers_then_hang() -> Self {
        Self::of(Reply::HeadersOnly)
    }

    /// Resets the connection (TCP `RST`) before the headers. In memory there is no reset: it closes. Over HTTP/2 the
    /// stream is reset and its neighbours live on.
    pub fn reset() -> Self {
        Self::of(Reply::Close { reset: true })
    }

    /// Closes the connection in order, without a byte. Over HTTP/2 the stream is reset and its neighbours live on.
    pub fn close() -> Self {
        Self::of(Reply::Close { reset: false })
    }

    /// Writes bytes that are not HTTP, and closes.
    pub fn garbage() -> Self {
        Self::garbage_bytes(&b"\x16\x03\x01\x00\x05this is not HTTP\r\n\r\n"[..])
    }

    /// Writes these bytes instead of a response, and closes.
    pub fn garbage_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::of(Reply::Garbage(bytes.into()))
    }

    /// Waits so long before anything else, the headers included.
    pub fn headers_after(mut self, wait: Duration) -> Self {
        self.delay = wait;
        self
    }

    /// Lets the head pass `bytes` at a time, `every` so long (HTTP/1 only).
    pub fn head_trickled(mut self, bytes: usize, every: Duration) -> Self {
        self.trickle = Some((bytes, every));
        self
    }
}
