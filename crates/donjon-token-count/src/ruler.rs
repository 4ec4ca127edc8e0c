//! Counting prompts by one tokenizer and one provider's rules.

use std::sync::{Arc, OnceLock};

use donjon_core::{Chat, Content, EmbedInput, Message, Part, Prompt};
use serde_json::value::RawValue;

use crate::{
    calibration::Calibration,
    count::Count,
    memo::Memo,
    picture,
    rules::Rules,
    sample::{self, Sampling, Work},
    tokenizer::Tokenizer,
    tools,
};

/// What a part of a kind that nobody knows (a file, a sound) may cost, more or less.
const UNKNOWN_PART: u64 = 1_000;

/// A tokenizer with the rules of a provider; models that have both in common share it, and with it
/// what is remembered of messages.
#[derive(Debug)]
pub(crate) struct Ruler {
    pub(crate) tokenizer: Arc<dyn Tokenizer>,
    pub(crate) rules: Rules,
    pub(crate) number: u32,
    pub(crate) calibration: Arc<Calibration>,
    memo: OnceLock<Memo>,
    capacity: usize,
    sampling: Option<Sampling>,
}

impl Ruler {
    pub(crate) fn new(
        tokenizer: Arc<dyn Tokenizer>,
        rules: Rules,
        number: u32,
        calibration: Arc<Calibration>,
        capacity: usize,
        sampling: Option<Sampling>,
    ) -> Self {
        Self {
            tokenizer,
            rules,
            number,
            calibration,
            memo: OnceLock::new(),
            capacity,
            sampling,
        }
    }

    pub(crate) fn text(&self, text: &str) -> Count {
        sample::count(&*self.tokenizer, text, self.sampling)
    }

    /// The tokens of `prompt`, not corrected.
    pub(crate) fn prompt(&self, prompt: &Prompt) -> Count {
        let mut work = Work::new(self.sampling);
        let sum = match prompt {
            Prompt::Chat(chat) => {
                let frame = self.frame(chat, &mut work);
                let messages = chat.messages.iter();
                messages.fold(frame, |sum, message| {
                    sum.plus(self.message(message, &mut work))
                })
            }
            Prompt::Embed(embed) => match &embed.input {
                EmbedInput::Texts(texts) => texts.iter().fold(Count::ZERO, |sum, text| {
                    sum.plus(self.embedded(text, &mut work))
                }),
                EmbedInput::Tokens(lists) => {
                    Count::Exact(lists.iter().map(|tokens| tokens.len() as u64).sum())
                }
                _ => Count::ZERO,
            },
            _ => Count::ZERO,
        };
        sum.plus(work.rest(&*self.tokenizer))
    }

    /// What a prompt has beside its messages, and each message by itself, so that together they are not less
    /// than `whole`, which was counted of the prompt. Nothing is counted for it that was left to samples then.
    pub(crate) fn apart(&self, chat: &Chat, whole: Count) -> (Count, Vec<Count>) {
        let sampling = self.sampling.map(|_| Sampling::above(0));
        let mut work = Work::new(sampling);
        let part = |counted: Count, work: &Work<'_>, before: usize| {
            let bytes = work.left_to_samples() - before;
            (counted, bytes as u64)
        };
        let frame = self.frame(chat, &mut work);
        let frame = part(frame, &work, 0);
        let messages = chat.messages.iter().map(|message| {
            let before = work.left_to_samples();
            let counted = self.message(message, &mut work);
            part(counted, &work, before)
        });
        let messages: Vec<_> = messages.collect();
        let counted: u64 = messages.iter().map(|(count, _)| count.tokens()).sum();
        let rest = whole.tokens().saturating_sub(frame.0.tokens() + counted);
        let bytes = work.left_to_samples().max(1) as u64;
        let with_rest = |(count, of_it): (Count, u64)| {
            let share = u128::from(rest) * u128::from(of_it);
            let share = share.div_ceil(u128::from(bytes));
            count.plus(Count::Exact(u64::try_from(share).unwrap_or(u64::MAX)))
        };
        let messages = messages.into_iter().map(with_rest);
        (with_rest(frame), messages.collect())
    }

    /// Tools, the form of the answer, its beginning.
    fn frame<'a>(&self, chat: &'a Chat, work: &mut Work<'a>) -> Count {
        let mut sum = Count::Exact(self.rules.reply.into());
        if !chat.tools.is_empty() {
            sum = sum.plus(self.tools(chat, work));
        }
        if let Some(form) = chat.response_format.as_deref() {
            sum = sum.plus(self.form(form, work));
        }
        sum
    }

    fn tools<'a>(&self, chat: &'a Chat, work: &mut Work<'a>) -> Count {
        let forced = chat.tool_choice.as_deref().is_some_and(is_forced);
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(if forced { b"tools, forced" } else { b"tools" });
            for tool in chat.tools.iter() {
                tell(tool.kind.as_bytes());
                tell(&[u8::from(tool.function.is_some())]);
                tools::texts(tool, &mut |text| tell(text.as_bytes()));
            }
        };
        let mut bytes = 0;
        let each = |tell: &mut dyn FnMut(&'a str)| {
            chat.tools.iter().for_each(|tool| tools::texts(tool, tell));
        };
        each(&mut |text| bytes += text.len());
        self.remembered(feed, bytes, work, |work| match work {
            Left::Full(work) => tools::tokens(self.rules.tools, &chat.tools, forced, &|text| {
                work.whole(&*self.tokenizer, text)
            }),
            Left::Rest(work) => {
                each(&mut |text| work.later(text));
                // As texts, of which a rule may make a third less or more; four bytes are a token.
                Count::within(0, bytes as u64 / 12)
            }
        })
    }

    fn form<'a>(&self, form: &'a RawValue, work: &mut Work<'a>) -> Count {
        if !form.get().contains("json_schema") {
            return Count::ZERO;
        }
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(b"form");
            tell(form.get().as_bytes());
        };
        let bytes = form.get().len();
        self.remembered(feed, bytes, work, |work| match work {
            Left::Full(work) => tools::form(form.get(), &|text| work.whole(&*self.tokenizer, text)),
            Left::Rest(work) => {
                work.later(form.get());
                Count::within(10, 10 + bytes as u64 / 8)
            }
        })
    }

    fn embedded<'a>(&self, text: &'a str, work: &mut Work<'a>) -> Count {
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(b"text");
            tell(text.as_bytes());
        };
        self.remembered(feed, text.len(), work, |work| match work {
            Left::Full(work) => work.whole(&*self.tokenizer, text),
            Left::Rest(work) => {
                work.later(text);
                Count::ZERO
            }
        })
    }

    /// The tokens of one message and of what it adds, not corrected and without what is left to samples.
    fn message<'a>(&self, message: &'a Message, work: &mut Work<'a>) -> Count {
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(message.role.as_str().as_bytes());
            pieces(message, &mut |piece| {
                let (kind, text, more) = match piece {
                    Piece::Text(text) => (0, text, ""),
                    Piece::Name(name) => (1, name, ""),
                    Piece::Call(name, arguments) => (2, name, arguments),
                    Piece::Unknown => (3, "", ""),
                    // Images are counted each time: their size stands in the first bytes of what may be
                    // megabytes, which would all have to be hashed.
                    Piece::Image => return,
                };
                tell(&[kind]);
                tell(text.as_bytes());
                tell(more.as_bytes());
            });
        };
        let mut bytes = 0;
        pieces(message, &mut |piece| {
            bytes += match piece {
                Piece::Text(text) | Piece::Name(text) => text.len(),
                Piece::Call(name, arguments) => name.len() + arguments.len(),
                Piece::Unknown | Piece::Image => 0,
            };
        });
        let mut sum = self.remembered(feed, bytes, work, |work| match work {
            Left::Full(work) => {
                self.message_texts(message, &mut |text| work.whole(&*self.tokenizer, text))
            }
            Left::Rest(work) => self.message_texts(message, &mut |text| {
                work.later(text);
                Count::ZERO
            }),
        });
        if let Some(Content::Parts(parts)) = &message.content {
            for image in parts.iter().filter_map(|part| part.image_url.as_ref()) {
                sum = sum.plus(picture::tokens(self.rules.images, image));
            }
        }
        sum
    }

    fn message_texts<'a>(
        &self,
        message: &'a Message,
        count: &mut dyn FnMut(&'a str) -> Count,
    ) -> Count {
        let Rules {
            per_message,
            per_name,
            per_tool_call,
            doubt,
            ..
        } = self.rules;
        let mut sum = Count::within(per_message.into(), doubt.into());
        let mut texts = 0;
        pieces(message, &mut |piece| {
            sum = sum.plus(match piece {
                Piece::Text(text) => {
                    texts += 1;
                    count(text)
                }
                Piece::Name(name) => count(name).plus(Count::Exact(per_name.into())),
                Piece::Call(name, arguments) => {
                    let texts = count(name).plus(count(arguments));
                    // What surrounds a call is published by nobody.
                    texts.plus(Count::within(per_tool_call.into(), per_tool_call.into()))
                }
                Piece::Unknown => Count::within(UNKNOWN_PART, UNKNOWN_PART),
                Piece::Image => Count::ZERO,
            });
        });
        // Where two texts meet, tokens may become one, or a mark may stand between.
        sum.plus(Count::within(0, u64::max(texts, 1) - 1))
    }

    /// What is remembered of what `feed` tells, else what is counted now, of which so much as fits into
    /// what may be counted in full is remembered.
    fn remembered<'a>(
        &self,
        feed: impl Fn(&mut dyn FnMut(&[u8])),
        bytes: usize,
        work: &mut Work<'a>,
        count: impl FnOnce(Left<'_, 'a>) -> Count,
    ) -> Count {
        let memo = self.memo.get_or_init(|| Memo::new(self.capacity));
        let hash = memo.hash(feed);
        if let Some(word) = memo.get(hash) {
            return unpack(word);
        }
        if !work.may(bytes) {
            return count(Left::Rest(work));
        }
        let count = count(Left::Full(work));
        if let Some(word) = pack(count) {
            memo.set(hash, word);
        }
        count
    }
}

/// Whether something is counted in full.
enum Left<'w, 'a> {
    Full(&'w Work<'a>),
    Rest(&'w mut Work<'a>),
}

/// A count in one word, if it fits: four billion tokens, and as much slack.
pub(crate) fn pack(count: Count) -> Option<u64> {
    let tokens = u32::try_from(count.tokens()).ok()?;
    let slack = u32::try_from(count.slack()).ok()?;
    Some(u64::from(tokens) << 32 | u64::from(slack))
}

pub(crate) fn unpack(word: u64) -> Count {
    Count::within(word >> 32, word & u64::from(u32::MAX))
}

/// What is counted of a message.
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
    Call(&'a str, &'a str),
    Image,
    Unknown,
}

fn pieces<'a>(message: &'a Message, tell: &mut dyn FnMut(Piece<'a>)) {
    match &message.content {
        None => {}
        Some(Content::Text(text)) => tell(Piece::Text(text)),
        Some(Content::Parts(parts)) => parts.iter().for_each(|part| tell(of_part(part))),
    }
    if let Some(refusal) = message.refusal.as_deref() {
        tell(Piece::Text(refusal));
    }
    if let Some(name) = message.name.as_deref() {
        tell(Piece::Name(name));
    }
    for call in &message.tool_calls {
        tell(Piece::Call(
            call.name().unwrap_or_default(),
            call.arguments(),
        ));
    }
}

fn of_part(part: &Part) -> Piece<'_> {
    match (&part.text, &part.image_url) {
        (Some(text), _) => Piece::Text(text),
        (None, Some(_)) => Piece::Image,
        (None, None) => match part.extra.read::<&str>("refusal") {
            Some(refusal) => Piece::Text(refusal),
            None => Piece::Unknown,
        },
    }
}

/// Whether a tool has to be called, in the words of OpenAI.
fn is_forced(choice: &RawValue) -> bool {
    !matches!(choice.get(), "\"auto\"" | "\"none\"" | "null")
}
