//! The most that a request can use.

use donjon_core::{Content, EmbedInput, LlmRequest, Message, Part, Prompt};

use crate::prices::Price;

/// What is taken where neither the request nor the price says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) max_output: u64,
    pub(crate) image_tokens: u64,
}

/// The most that a request can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) images: u32,
    pub(crate) audio: bool,
    /// What its prompt is likely to use.
    pub(crate) likely: u64,
}

/// Each message, tool and reply is put between a few tokens.
const FRAME: u64 = 16;

/// The counted figure if somebody counted; else a token for each byte, since a token is at least one,
/// with so many for each message and each image.
pub(crate) fn of(request: &LlmRequest, price: Option<&Price>, defaults: Defaults) -> Bound {
    let counted = request.call.estimate;
    let limit = request.as_chat().and_then(donjon_core::Chat::output_limit);
    let choices = u64::from(request.choices());
    let output = match (limit, counted) {
        _ if matches!(request.prompt(), Prompt::Embed(_)) => 0,
        (Some(limit), counted) => {
            let all = limit.saturating_mul(choices);
            counted.map_or(all, |counted| counted.output.max(all))
        }
        (None, Some(counted)) if counted.output > 0 => counted.output,
        _ => {
            let most = price.and_then(|price| price.max_output);
            most.unwrap_or(defaults.max_output).saturating_mul(choices)
        }
    };
    // Somebody counted, and neither images nor audio have a price of their own: nobody needs to look.
    let plain = price.is_some_and(|p| p.image.nanos() == 0 && p.input_audio.is_none());
    if let Some(counted) = counted
        && counted.input > 0
        && plain
    {
        return Bound {
            input: counted.input,
            output,
            images: 0,
            audio: false,
            likely: counted.input,
        };
    }
    let seen = Seen::of(request);
    let image_tokens = price.and_then(|price| price.image_tokens);
    let images = u64::from(seen.images) * image_tokens.unwrap_or(defaults.image_tokens);
    let input = match counted.map_or(0, |counted| counted.input) {
        0 => seen
            .bytes
            .saturating_add(images)
            .saturating_add(seen.frames * FRAME),
        counted => counted,
    };
    let likely = match counted.map_or(0, |counted| counted.input) {
        0 => (seen.bytes / 4)
            .saturating_add(images)
            .saturating_add(seen.frames * 4),
        counted => counted,
    };
    Bound {
        input,
        output,
        images: seen.images,
        audio: seen.audio,
        likely,
    }
}

/// What stands in a prompt.
#[derive(Default)]
struct Seen {
    bytes: u64,
    frames: u64,
    images: u32,
    audio: bool,
}

impl Seen {
    fn of(request: &LlmRequest) -> Self {
        let mut seen = Self {
            frames: 1,
            ..Self::default()
        };
        match request.prompt() {
            Prompt::Chat(chat) => {
                chat.messages
                    .iter()
                    .for_each(|message| seen.message(message));
                for tool in chat.tools.iter() {
                    seen.frames += 1;
                    if let Some(function) = &tool.function {
                        seen.text(Some(&function.name));
                        seen.text(function.description.as_deref());
                        seen.text(function.parameters.as_deref().map(|json| json.get()));
                    }
                    seen.extra(&tool.extra);
                }
                seen.text(chat.response_format.as_deref().map(|json| json.get()));
            }
            Prompt::Embed(embed) => match &embed.input {
                EmbedInput::Texts(texts) => texts.iter().for_each(|text| seen.text(Some(text))),
                EmbedInput::Tokens(tokens) => {
                    seen.bytes += tokens.iter().map(|tokens| tokens.len() as u64).sum::<u64>();
                }
                _ => {}
            },
            _ => {}
        }
        seen
    }

    fn text(&mut self, text: Option<&str>) {
        self.bytes += text.map_or(0, |text| text.len() as u64);
    }

    fn extra(&mut self, extra: &donjon_core::Extra) {
        for (name, value) in extra.iter() {
            self.bytes += (name.len() + value.get().len()) as u64;
        }
    }

    fn message(&mut self, message: &Message) {
        self.frames += 1;
        match &message.content {
            Some(Content::Text(text)) => self.text(Some(text)),
            Some(Content::Parts(parts)) => parts.iter().for_each(|part| self.part(part)),
            None => {}
        }
        self.text(message.name.as_deref());
        self.text(message.reasoning.as_deref());
        self.text(message.refusal.as_deref());
        self.text(message.tool_call_id.as_deref());
        for call in &message.tool_calls {
            self.frames += 1;
            self.text(call.id.as_deref());
            self.text(call.name());
            self.text(Some(call.arguments()));
        }
        self.extra(&message.extra);
    }

    fn part(&mut self, part: &Part) {
        self.frames += 1;
        self.text(part.text.as_deref());
        if part.image_url.is_some() || &*part.kind == "image" {
            // Its bytes say nothing of its tokens.
            self.images += 1;
            return;
        }
        self.audio |= part.kind.contains("audio");
        self.extra(&part.extra);
    }
}
