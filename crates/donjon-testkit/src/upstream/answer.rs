//! An answer before it is put into a dialect.

use std::time::Duration;

use serde_json::Value;

use super::failure::Failure;
use super::framing::Event;

/// The counts an answer reports, in OpenAI's reckoning: `input` includes what was read from or written to a cache, `output`
/// includes reasoning. Anthropic's dialect is told `input` without the cache's share and Gemini's `output` without
/// reasoning, as their APIs do; Ollama's knows `input` and `output` alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Prompt tokens in all.
    pub input: u64,
    /// Answer tokens in all.
    pub output: u64,
    /// Prompt tokens read from a cache.
    pub cache_read: u64,
    /// Prompt tokens written to a cache (Anthropic only).
    pub cache_write: u64,
    /// Answer tokens spent on reasoning (OpenAI and Gemini only).
    pub reasoning: u64,
}

impl Usage {
    /// Nothing cached, nothing reasoned.
    pub fn new(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            ..Self::default()
        }
    }

    /// Of the input, so many were read from and so many written to a cache.
    #[must_use]
    pub fn cached(mut self, read: u64, written: u64) -> Self {
        (self.cache_read, self.cache_write) = (read, written);
        self
    }

    /// Of the output, so many went into reasoning.
    #[must_use]
    pub fn reasoned(mut self, tokens: u64) -> Self {
        self.reasoning = tokens;
        self
    }
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) reasoning: Vec<String>,
    pub(super) text: Vec<String>,
    pub(super) refusal: Vec<String>,
    pub(super) tools: Vec<(String, String)>,
    pub(super) unknown: bool,
    pub(super) choices: u32,
    pub(super) model: Option<String>,
    pub(super) finish: Finish,
    pub(super) usage: Option<Usage>,
    pub(super) usage_when: UsageWhen,
    pub(super) role: bool,
    pub(super) done: bool,
    pub(super) first_after: Duration,
    pub(super) gap: Duration,
    pub(super) interrupts: Vec<(usize, Interrupt)>,
}

#[derive(Debug, Clone)]
pub(super) enum Finish {
    Naturally,
    Because(String),
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageWhen {
    Asked,
    Always,
    WithFinish,
    Never,
}

/// What happens between two tokens.
#[derive(Debug, Clone)]
pub(super) enum Interrupt {
    Stall(Option<Duration>),
    KeepAlive {
        kind: KeepAlive,
        count: usize,
        every: Duration,
    },
    BadEvent,
    Error(Failure),
    Cut(Cut),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum KeepAlive {
    Ping,
    Comment,
    EmptyDelta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    BetweenEvents,
    InsideEvent,
    InsideChunk,
    Reset,
}

/// One token of one choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delta<'a> {
    pub(super) choice: u32,
    pub(super) part: Part<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Reasoning(&'a str),
    Unknown,
    Text(&'a str),
    Refusal(&'a str),
    /// A call's name, with all its arguments for a dialect that tells a call whole.
    ToolName {
        index: usize,
        name: &'a str,
        arguments: &'a str,
    },
    ToolArguments {
        index: usize,
        piece: &'a str,
    },
}

/// A dialect: puts an answer into the words of one API.
pub(super) trait Speak {
    /// The tokens that it tells one by one.
    fn deltas(&self) -> Vec<Delta<'_>>;
    /// What a stream opens with.
    fn open(&mut self) -> Vec<Event>;
    /// The events of one token.
    fn delta(&mut self, delta: &Delta<'_>) -> Vec<Event>;
    /// What a stream ends with.
    fn close(&mut self) -> Vec<Event>;
    /// The whole answer of a unary call.
    fn whole(&self) -> Value;
    /// A keep-alive.
    fn keep_alive(&self, kind: KeepAlive) -> Event;
    /// An event cut off inside its JSON.
    fn malformed(&self) -> Event;
    /// An error told in the stream.
    fn error(&self, failure: &Failure) -> Event;
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            reasoning: Vec::new(),
            text: Vec::new(),
            refusal: Vec::new(),
            tools: Vec::new(),
            unknown: false,
            choices: 1,
            model: None,
            finish: Finish::Naturally,
            usage: None,
            usage_when: UsageWhen::Asked,
            role: true,
            done: true,
            first_after: Duration::ZERO,
            gap: Duration::ZERO,
            interrupts: Vec::new(),
        }
    }
}

impl Answer {
    /// The tokens in the order in which they are sent; a call is several of them, or where it is told whole one.
    pub(super) fn deltas(&self, choices: u32, calls: Calls) -> Vec<Delta<'_>> {
        let mut parts: Vec<Part<'_>> = self
            .reasoning
            .iter()
            .map(|token| Part::Reasoning(token))
            .collect();
        if self.unknown {
            parts.push(Part::Unknown);
        }
        parts.extend(self.text.iter().map(|token| Part::Text(token)));
        parts.extend(self.refusal.iter().map(|token| Part::Refusal(token)));
        for (index, (name, arguments)) in self.tools.iter().enumerate() {
            parts.push(Part::ToolName {
                index,
                name,
                arguments,
            });
            if calls == Calls::InPieces {
                parts.extend(pieces(arguments).map(|piece| Part::ToolArguments { index, piece }));
            }
        }
        let mut deltas = Vec::with_capacity(parts.len() * choices as usize);
        for part in parts {
            deltas.extend((0..choices).map(|choice| Delta {
                choice,
                part: part.clone(),
            }));
        }
        deltas
    }

    /// The usage to report.
    pub(super) fn counts(&self) -> Usage {
        self.usage.unwrap_or_else(|| {
            let tokens = self.deltas(self.choices, Calls::InPieces).len();
            Usage::new(12, tokens as u64)
        })
    }

    /// The finish reason in OpenAI's words.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        match &self.finish {
            Finish::Never => None,
            Finish::Because(reason) => Some(reason),
            Finish::Naturally if self.tools.is_empty() => Some("stop"),
            Finish::Naturally => Some("tool_calls"),
        }
    }
}

/// How a dialect tells the call of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    InPieces,
    Whole,
}

/// The arguments of a call as the object that most APIs promise; text that is no JSON stays text.
pub(super) fn arguments_object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// The arguments of a tool call in the pieces in which they are streamed.
fn pieces(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let cut = rest.char_indices().nth(8).map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(cut);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_in_the_order_of_a_real_answer_for_each_choice() {
        let answer = Answer {
            text: vec!["hi".into()],
            reasoning: vec!["hm".into()],
            tools: vec![("now".into(), r#"{"zone":"UTC"}"#.into())],
            ..Answer::default()
        };
        let of = |choice| move |part| Delta { choice, part };
        let expected: Vec<_> = [
            Part::Reasoning("hm"),
            Part::Text("hi"),
            Part::ToolName {
                index: 0,
                name: "now",
                arguments: r#"{"zone":"UTC"}"#,
            },
            Part::ToolArguments {
                index: 0,
                piece: r#"{"zone":"#,
            },
            Part::ToolArguments {
                index: 0,
                piece: r#""UTC"}"#,
            },
        ]
        .into_iter()
        .flat_map(|part| [of(0)(part.clone()), of(1)(part)])
        .collect();
        assert_eq!(answer.deltas(2, Calls::InPieces), expected);
        assert_eq!(answer.deltas(2, Calls::Whole), expected[..6]);
        assert_eq!(answer.finish_reason(), Some("tool_calls"));
    }
}
