//! An answer worked out into steps: the timetable of one response body.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;

use super::answer::{Answer, Cut, Delta, Interrupt, Speak};
use super::anthropic::Anthropic;
use super::failure::Failure;
use super::framing::{Event, Framing};
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai::OpenAi;
use super::record::{Dialect, Request};

/// One step of a response body.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Hands over bytes, the last of so many tokens among them.
    Send { bytes: Bytes, tokens: usize },
    /// Lets the connection write what it was given before going on.
    Flush,
    /// Lets time pass.
    Wait(Duration),
    /// Hands over the same bytes so many times, each after a wait.
    Repeat {
        bytes: Bytes,
        every: Duration,
        left: usize,
    },
    /// Nothing more until the peer leaves.
    Hang,
    /// Breaks the body off.
    Cut { reset: bool },
    /// Hands over bytes, of which the connection passes on no more than the given number.
    Tear { bytes: Bytes, pass: usize },
}

/// A unary answer.
#[derive(Debug)]
pub(super) struct Unary {
    /// What passes before the headers; `None` means that they never come.
    pub(super) wait: Option<Duration>,
    pub(super) outcome: Result<Whole, Failure>,
}

/// The body of a unary answer.
#[derive(Debug)]
pub(super) struct Whole {
    /// The length that is promised.
    pub(super) length: usize,
    pub(super) steps: VecDeque<Step>,
}

/// Who puts the answer into the words of the dialect in which it was asked for.
fn speaker<'a>(answer: &'a Answer, request: &Request) -> Box<dyn Speak + 'a> {
    match request.dialect {
        Dialect::OpenAi => Box::new(OpenAi::new(answer, request)),
        Dialect::Anthropic => Box::new(Anthropic::new(answer, request)),
        Dialect::Gemini => Box::new(Gemini::new(answer, request)),
        Dialect::Ollama => Box::new(Ollama::new(answer, request)),
    }
}

/// Works out a stream.
pub(super) fn stream(answer: &Answer, framing: &Framing, request: &Request) -> VecDeque<Step> {
    let mut speaker = speaker(answer, request);
    // The speaker keeps count of what it has said, so the tokens are those of another.
    let counted = self::speaker(answer, request);
    let mut plan = Plan {
        framing,
        steps: VecDeque::new(),
    };
    if framing.byte_order_mark && request.dialect != Dialect::Ollama {
        plan.steps.push_back(Step::Send {
            bytes: Bytes::from_static(b"\xef\xbb\xbf"),
            tokens: 0,
        });
    }
    if answer.role {
        plan.events(&speaker.open(), 0);
    }
    let deltas = counted.deltas();
    for at in 0..=deltas.len() {
        let delta = deltas.get(at);
        for interrupt in due(answer, at, delta.is_none()) {
            if plan.interrupt(interrupt, &mut *speaker, delta).is_break() {
                return plan.steps;
            }
        }
        if let Some(delta) = delta {
            plan.wait(if at == 0 {
                answer.first_after
            } else {
                answer.gap
            });
            plan.events(&speaker.delta(delta), 1);
        }
    }
    plan.events(&speaker.close(), 0);
    plan.steps
}

/// The stream whose only event tells this.
pub(super) fn told(body: Bytes, framing: &Framing) -> VecDeque<Step> {
    let mut plan = Plan {
        framing,
        steps: VecDeque::new(),
    };
    plan.events(&[Event::nameless(String::from_utf8_lossy(&body))], 0);
    plan.steps
}

/// Works out a unary answer.
pub(super) fn unary(answer: &Answer, request: &Request) -> Unary {
    let (body, tokens) = match request.dialect {
        Dialect::Ollama if request.embeds() => (super::ollama::embeddings(answer, request), 0),
        _ if request.embeds() => (super::openai::embeddings(answer, request), 0),
        _ => {
            let speaker = speaker(answer, request);
            (speaker.whole(), speaker.deltas().len())
        }
    };
    let body = Bytes::from(body.to_string());
    let gaps = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut wait = answer.first_after + answer.gap.saturating_mul(gaps);
    let whole = |body: Bytes| {
        let steps = VecDeque::from([Step::Send {
            bytes: body.clone(),
            tokens: 0,
        }]);
        Whole {
            length: body.len(),
            steps,
        }
    };
    let half = body.slice(..body.len() / 2);
    let mut outcome = Ok(whole(body.clone()));
    for (_, interrupt) in &answer.interrupts {
        match interrupt {
            Interrupt::Stall(Some(stall)) => wait += *stall,
            Interrupt::Stall(None) => {
                return Unary {
                    wait: None,
                    outcome,
                };
            }
            Interrupt::KeepAlive { .. } => {}
            Interrupt::BadEvent => outcome = Ok(whole(half.clone())),
            Interrupt::Error(failure) => {
                return Unary {
                    wait: Some(wait),
                    outcome: Err(failure.clone()),
                };
            }
            Interrupt::Cut(cut) => {
                let reset = *cut == Cut::Reset;
                let steps = [
                    Step::Send {
                        bytes: half,
                        tokens: 0,
                    },
                    Step::Flush,
                    Step::Cut { reset },
                ];
                outcome = Ok(Whole {
                    length: body.len(),
                    steps: steps.into(),
                });
                break;
            }
        }
    }
    Unary {
        wait: Some(wait),
        outcome,
    }
}

/// What is to happen before token `at`; before the end, everything that is left.
fn due(answer: &Answer, at: usize, last: bool) -> impl Iterator<Item = &Interrupt> {
    answer
        .interrupts
        .iter()
        .filter(move |(n, _)| *n == at || last && *n > at)
        .map(|(_, interrupt)| interrupt)
}

struct Plan<'a> {
    framing: &'a Framing,
    steps: VecDeque<Step>,
}

impl Plan<'_> {
    fn wait(&mut self, wait: Duration) {
        if !wait.is_zero() {
            self.steps.push_back(Step::Wait(wait));
        }
    }

    fn events(&mut self, events: &[Event], tokens: usize) {
        for (left, event) in events
            .iter()
            .enumerate()
            .map(|(i, event)| (events.len() - 1 - i, event))
        {
            let packets = self.framing.packets(self.framing.encode(event));
            let last = packets.len() - 1;
            for (i, bytes) in packets.into_iter().enumerate() {
                if i > 0 {
                    self.steps.push_back(Step::Flush);
                }
                self.steps.push_back(Step::Send {
                    bytes,
                    tokens: if left == 0 && i == last { tokens } else { 0 },
                });
            }
        }
    }

    /// Puts in what happens before `next`; breaks when nothing can follow.
    fn interrupt(
        &mut self,
        interrupt: &Interrupt,
        speaker: &mut dyn Speak,
        next: Option<&Delta<'_>>,
    ) -> ControlFlow<()> {
        match interrupt {
            Interrupt::Stall(Some(wait)) => self.wait(*wait),
            Interrupt::Stall(None) => {
                self.steps.push_back(Step::Hang);
                return ControlFlow::Break(());
            }
            Interrupt::KeepAlive { kind, count, every } => {
                let bytes = self.framing.encode(&speaker.keep_alive(*kind));
                self.steps.push_back(Step::Repeat {
                    bytes,
                    every: *every,
                    left: *count,
                });
            }
            Interrupt::BadEvent => self.events(&[speaker.malformed()], 0),
            Interrupt::Error(failure) => {
                self.events(&[speaker.error(failure)], 0);
                return ControlFlow::Break(());
            }
            Interrupt::Cut(cut) => {
                let events = match next {
                    Some(delta) => speaker.delta(delta),
                    None => speaker.close(),
                };
                let torn = events
                    .last()
                    .map(|event| self.framing.encode(event))
                    .unwrap_or_default();
                self.cut(*cut, torn);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Breaks off, before or inside of an event.
    fn cut(&mut self, cut: Cut, torn: Bytes) {
        let half = torn.len() / 2;
        match cut {
            Cut::InsideEvent if half > 0 => {
                self.steps.push_back(Step::Send {
                    bytes: torn.slice(..half),
                    tokens: 0,
                });
            }
            Cut::InsideChunk if half > 0 => {
                self.steps.push_back(Step::Flush);
                // The size line is at least three bytes long: a hexadecimal digit, CR, LF.
                self.steps.push_back(Step::Tear {
                    bytes: torn,
                    pass: half + 3,
                });
            }
            _ => {}
        }
        self.steps.push_back(Step::Flush);
        self.steps.push_back(Step::Cut {
            reset: cut == Cut::Reset,
        });
    }
}
