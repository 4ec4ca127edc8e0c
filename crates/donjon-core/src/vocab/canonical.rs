//! What decides an answer, written in one canonical form.

mod raw;

use std::{cell::Cell, sync::Arc};

use serde_json::value::RawValue;

use super::{
    chat::{Chat, Stop},
    embed::EmbedInput,
    identity::Identity,
    json::{Extra, Lenient},
    message::Content,
    request::{Prompt, STREAM_OPTIONS},
    wire::{Dialect, Wire},
};

/// Grows when the same question is written in another way than before.
const VERSION: u8 = 1;

/// Pieces from this size on are handed over where they lie.
const LARGE: usize = 4 * 1024;
/// So much of what is smaller is collected before it is handed over.
const BUFFER: usize = 16 * 1024;

/// Among whom two who ask the same are taken for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Whose {
    /// Everybody.
    Anybody,
    /// The users of one tenant.
    Tenant,
    /// One user of one tenant.
    User,
}

/// Something whose canonical form is known. Every field of a request is one, or does not compile.
pub(crate) trait Canonical {
    /// Writes it, so that no two different values are written alike, and none as the beginning of
    /// another.
    fn write(&self, to: &mut Writer<'_>);
}

/// Takes the canonical form of a request.
pub(crate) struct Writer<'a> {
    buffer: Vec<u8>,
    sink: &'a mut dyn FnMut(&[u8]),
}

thread_local! {
    static BUFFERS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<'a> Writer<'a> {
    pub(super) fn new(sink: &'a mut dyn FnMut(&[u8])) -> Self {
        let mut to = Self {
            buffer: BUFFERS.take(),
            sink,
        };
        to.buffer.clear();
        to.tag(VERSION);
        to
    }

    pub(super) fn finish(mut self) {
        self.flush();
        BUFFERS.set(self.buffer);
    }

    fn flush(&mut self) {
        (self.sink)(&self.buffer);
        self.buffer.clear();
    }

    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() >= LARGE {
            self.flush();
            (self.sink)(bytes);
        } else {
            if self.buffer.len() + bytes.len() > BUFFER {
                self.flush();
            }
            self.buffer.extend_from_slice(bytes);
        }
    }

    pub(super) fn tag(&mut self, tag: u8) {
        self.put(&[tag]);
    }

    fn number(&mut self, tag: u8, number: u64) {
        let mut framed = [tag; 9];
        framed[1..].copy_from_slice(&number.to_le_bytes());
        self.put(&framed);
    }

    /// A tag, a length, and so many bytes.
    fn framed(&mut self, tag: u8, bytes: &[u8]) {
        self.number(tag, bytes.len() as u64);
        self.put(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.framed(b's', text.as_bytes());
    }

    /// A member of an object, which ends with [`end`](Self::end).
    pub(super) fn member(&mut self, name: &str, value: &(impl Canonical + ?Sized)) {
        self.framed(b'm', name.as_bytes());
        value.write(self);
    }

    fn optional(&mut self, name: &str, value: Option<&(impl Canonical + ?Sized)>) {
        if let Some(value) = value {
            self.member(name, value);
        }
    }

    pub(super) fn end(&mut self) {
        self.tag(b'.');
    }

    /// The members that have no field, in the order of their names. What is `null` is as if it were
    /// not there.
    pub(super) fn extra(&mut self, extra: &Extra, but: &[&str]) {
        let kept = |(name, value): &(&str, &RawValue)| !but.contains(name) && value.get() != "null";
        let mut members: smallvec::SmallVec<[_; 8]> = extra.iter().filter(kept).collect();
        members.sort_by_key(|(name, _)| *name);
        for (name, value) in members {
            self.member(name, value);
        }
    }

    fn list<T: Canonical>(&mut self, list: &[T]) {
        self.number(b'[', list.len() as u64);
        for value in list {
            value.write(self);
        }
    }
}

impl Identity {
    /// Writes what of it decides whose answers may be given.
    pub(super) fn canonical(&self, whose: Whose, to: &mut Writer<'_>) {
        // Taken apart whole, so that a new field does not compile until it is decided on.
        let Self {
            tenant,
            user,
            // These are for reports.
            project: _,
            tags: _,
        } = self;
        match whose {
            Whose::Anybody => to.tag(b'a'),
            Whose::Tenant => {
                to.tag(b't');
                tenant.write(to);
            }
            Whose::User => {
                to.tag(b'u');
                tenant.write(to);
                user.write(to);
            }
        }
    }
}

impl Canonical for Prompt {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Chat(chat) => {
                to.tag(b'c');
                chat.write(to);
            }
            Self::Embed(embed) => {
                to.tag(b'e');
                embed.write(to);
            }
        }
    }
}

impl Canonical for Chat {
    fn write(&self, to: &mut Writer<'_>) {
        // Taken apart whole, so that a new field does not compile until it is decided on.
        let Self {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            max_tokens,
            max_completion_tokens,
            temperature,
            top_p,
            n,
            stop,
            seed,
            response_format,
            reasoning_effort,
            extra,
            wire,
        } = self;
        to.member("messages", messages);
        if !tools.is_empty() {
            to.member("tools", tools);
        }
        to.optional("tool_choice", tool_choice.as_ref());
        to.optional("parallel_tool_calls", parallel_tool_calls.as_ref());
        to.optional("max_tokens", max_tokens.as_ref());
        to.optional("max_completion_tokens", max_completion_tokens.as_ref());
        to.optional("temperature", temperature.as_ref());
        to.optional("top_p", top_p.as_ref());
        to.optional("n", n.as_ref());
        to.optional("stop", stop.as_ref());
        to.optional("seed", seed.as_ref());
        to.optional("response_format", response_format.as_ref());
        to.optional("reasoning_effort", reasoning_effort.as_ref());
        // How the answer is delivered does not change it.
        to.extra(extra, &[STREAM_OPTIONS]);
        // In the words of OpenAI it says what the fields say; a message in other words may say more,
        // and is passed on as it came.
        if let Some(wire) = wire.as_ref().filter(|wire| wire.dialect != Dialect::OpenAi) {
            let Wire { dialect, json } = wire;
            to.framed(b'w', format!("{dialect:?}").as_bytes());
            raw::object_but(json, &["model", "stream"], to);
        }
        to.end();
    }
}

impl Canonical for Stop {
    fn write(&self, to: &mut Writer<'_>) {
        to.list(self.as_slice());
    }
}

impl Canonical for Content {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Text(text) => text.write(to),
            Self::Parts(parts) => parts.write(to),
        }
    }
}

impl Canonical for EmbedInput {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Texts(texts) => texts.write(to),
            Self::Tokens(lists) => {
                to.tag(b'k');
                lists.write(to);
            }
        }
    }
}

impl Canonical for RawValue {
    fn write(&self, to: &mut Writer<'_>) {
        raw::write(self.get(), to);
    }
}

impl Canonical for str {
    fn write(&self, to: &mut Writer<'_>) {
        to.text(self);
    }
}

impl Canonical for String {
    fn write(&self, to: &mut Writer<'_>) {
        to.text(self);
    }
}

impl Canonical for bool {
    fn write(&self, to: &mut Writer<'_>) {
        to.tag(if *self { b'y' } else { b'n' });
    }
}

impl Canonical for u32 {
    fn write(&self, to: &mut Writer<'_>) {
        to.number(b'i', u64::from(*self));
    }
}

impl Canonical for u64 {
    fn write(&self, to: &mut Writer<'_>) {
        to.number(b'i', *self);
    }
}

impl Canonical for i64 {
    fn write(&self, to: &mut Writer<'_>) {
        to.number(b'j', self.cast_unsigned());
    }
}

impl Canonical for f64 {
    fn write(&self, to: &mut Writer<'_>) {
        // Both zeros are one number.
        to.number(b'f', if *self == 0.0 { 0 } else { self.to_bits() });
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Some(value) => value.write(to),
            None => to.tag(b'0'),
        }
    }
}

impl<T: Canonical> Canonical for Lenient<T> {
    fn write(&self, to: &mut Writer<'_>) {
        self.0.write(to);
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, to: &mut Writer<'_>) {
        to.list(self);
    }
}

impl<T: Canonical> Canonical for [T] {
    fn write(&self, to: &mut Writer<'_>) {
        to.list(self);
    }
}

impl<T: Canonical + ?Sized> Canonical for Box<T> {
    fn write(&self, to: &mut Writer<'_>) {
        (**self).write(to);
    }
}

impl<T: Canonical + ?Sized> Canonical for Arc<T> {
    fn write(&self, to: &mut Writer<'_>) {
        (**self).write(to);
    }
}
