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
    sample::{self, Sampling},
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
        match prompt {
            Prompt::Chat(chat) => {
                let messages = chat.messages.iter().map(|message| self.message(message));
                messages.fold(self.frame(chat), Count::plus)
            }
            Prompt::Embed(embed) => match &embed.input {
                EmbedInput::Texts(texts) => {
                    let texts = texts.iter().map(|text| self.embedded(text));
                    texts.fold(Count::ZERO, Count::plus)
                }
                EmbedInput::Tokens(lists) => {
                    Count::Exact(lists.iter().map(|tokens| tokens.len() as u64).sum())
                }
                _ => Count::ZERO,
            },
            _ => Count::ZERO,
        }
    }

    /// What a prompt has beside its messages: tools, the form of the answer, its beginning.
    pub(crate) fn frame(&self, chat: &Chat) -> Count {
        let mut sum = Count::Exact(self.rules.reply.into());
        if !chat.tools.is_empty() {
            sum = sum.plus(self.tools(chat));
        }
        if let Some(form) = chat.response_format.as_deref() {
            sum = sum.plus(self.form(form));
        }
        sum
    }

    fn tools(&self, chat: &Chat) -> Count {
        let forced = chat.tool_choice.as_deref().is_some_and(is_forced);
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(if forced { b"tools, forced" } else { b"tools" });
            for tool in chat.tools.iter() {
                tell(tool.kind.as_bytes());
                tell(&[u8::from(tool.function.is_some())]);
                if let Some(function) = &tool.function {
                    tell(function.name.as_bytes());
                    tell(
                        function
                            .description
                            .as_deref()
                            .unwrap_or_default()
                            .as_bytes(),
                    );
                    tell(raw(function.parameters.as_deref()).as_bytes());
                } else {
                    for (name, value) in tool.extra.iter() {
                        tell(name.as_bytes());
                        tell(value.get().as_bytes());
                    }
                }
            }
        };
        self.remembered(feed, || {
            tools::tokens(self.rules.tools, &chat.tools, forced, &|text| {
                self.text(text)
            })
        })
    }

    fn form(&self, form: &RawValue) -> Count {
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(b"form");
            tell(form.get().as_bytes());
        };
        self.remembered(feed, || {
            if form.get().contains("json_schema") {
                tools::form(form.get(), &|text| self.text(text))
            } else {
                Count::ZERO
            }
        })
    }

    fn embedded(&self, text: &str) -> Count {
        let feed = |tell: &mut dyn FnMut(&[u8])| {
            tell(b"text");
            tell(text.as_bytes());
        };
        self.remembered(feed, || self.text(text))
    }

    /// The tokens of one message and of what it adds, not corrected.
    pub(crate) fn message(&self, message: &Message) -> Count {
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
        let mut sum = self.remembered(feed, || self.message_texts(message));
        if let Some(Content::Parts(parts)) = &message.content {
            for image in parts.iter().filter_map(|part| part.image_url.as_ref()) {
                sum = sum.plus(picture::tokens(self.rules.images, image));
            }
        }
        sum
    }

    fn message_texts(&self, message: &Message) -> Count {
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
                    self.text(text)
                }
                Piece::Name(name) => self.text(name).plus(Count::Exact(per_name.into())),
                Piece::Call(name, arguments) => {
                    let texts = self.text(name).plus(self.text(arguments));
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

    fn remembered(
        &self,
        feed: impl Fn(&mut dyn FnMut(&[u8])),
        count: impl FnOnce() -> Count,
    ) -> Count {
        let memo = self.memo.get_or_init(|| Memo::new(self.capacity));
        let hash = memo.hash(feed);
        if let Some(word) = memo.get(hash) {
            return unpack(word);
        }
        let count = count();
        if let Some(word) = pack(count) {
            memo.set(hash, word);
        }
        count
    }
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

fn raw(value: Option<&RawValue>) -> &str {
    value.map(RawValue::get).unwrap_or_default()
}

/// Whether a tool has to be called, in the words of OpenAI.
fn is_forced(choice: &RawValue) -> bool {
    !matches!(choice.get(), "\"auto\"" | "\"none\"" | "null")
}
