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
///
/// * 1: lengths and numbers in eight bytes each.
/// * 2: in as few as they need; of a short question that is half of what is hashed.
const VERSION: u8 = 2;

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
///
/// What is small is collected in a buffer that each thread keeps, so that most forms are handed over
/// in one piece and nothing is allocated.
pub(crate) struct Writer<'a> {
    /// As long as it ever gets; `at` says how much of it is written.
    buffer: Vec<u8>,
    at: usize,
    sink: &'a mut dyn FnMut(CanonicalPiece<'_>),
}

/// A piece of a canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonicalPiece<'a> {
    /// What it says.
    pub bytes: &'a [u8],
    /// Whether it is the last; where it is the first too, it is all there is.
    pub last: bool,
}

thread_local! {
    static BUFFERS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<'a> Writer<'a> {
    pub(super) fn new(sink: &'a mut dyn FnMut(CanonicalPiece<'_>)) -> Self {
        let mut buffer = BUFFERS.take();
        if buffer.is_empty() {
            buffer.resize(BUFFER, 0);
        }
        let mut to = Self {
            buffer,
            at: 0,
            sink,
        };
        to.tag(VERSION);
        to
    }

    pub(super) fn finish(mut self) {
        self.hand_over(true);
        BUFFERS.set(self.buffer);
    }

    #[inline(never)]
    fn hand_over(&mut self, last: bool) {
        let bytes = &self.buffer[..self.at];
        self.at = 0;
        (self.sink)(CanonicalPiece { bytes, last });
    }

    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() >= LARGE {
            if self.at > 0 {
                self.hand_over(false);
            }
            let last = false;
            (self.sink)(CanonicalPiece { bytes, last });
        } else {
            self.put_small(bytes);
        }
    }

    /// Puts what is smaller than [`LARGE`]. Where its length is known beforehand, as it is of most,
    /// that is a store or two.
    #[inline]
    fn put_small(&mut self, bytes: &[u8]) {
        if bytes.len() > BUFFER - self.at {
            self.hand_over(false);
        }
        self.buffer[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline]
    pub(super) fn tag(&mut self, tag: u8) {
        self.put_small(&[tag]);
    }

    /// A tag, and a number in groups of seven bits, the lowest first, all but the last marked.
    #[inline]
    fn number(&mut self, tag: u8, number: u64) {
        match u8::try_from(number) {
            Ok(small @ ..0x80) => self.put_small(&[tag, small]),
            _ => self.large_number(tag, number),
        }
    }

    #[inline(never)]
    fn large_number(&mut self, tag: u8, number: u64) {
        self.tag(tag);
        let mut rest = number;
        while rest >= 0x80 {
            self.tag(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.tag(rest.to_le_bytes()[0]);
    }

    /// A tag, and a number that may be negative: the sign is its lowest bit.
    fn signed(&mut self, tag: u8, number: i64) {
        self.number(tag, ((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// A tag, a length, and so many bytes.
    #[inline]
    fn framed(&mut self, tag: u8, bytes: &[u8]) {
        self.number(tag, bytes.len() as u64);
        self.put(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.framed(b's', text.as_bytes());
    }

    /// A member of an object, which ends with [`end`](Self::end). Its name is known beforehand.
    #[inline]
    pub(super) fn member(&mut self, name: &'static str, value: &(impl Canonical + ?Sized)) {
        self.number(b'm', name.len() as u64);
        self.put_small(name.as_bytes());
        value.write(self);
    }

    #[inline]
    fn optional(&mut self, name: &'static str, value: Option<&(impl Canonical + ?Sized)>) {
        if let Some(value) = value {
            self.member(name, value);
        }
    }

    pub(super) fn end(&mut self) {
        self.tag(b'.');
    }

    /// The members that have no field, in the order of their names. What is `null` is as if it were
    /// not there.
    #[inline]
    pub(super) fn extra(&mut self, extra: &Extra, but: &[&str]) {
        if !extra.is_empty() {
            self.members(extra, but);
        }
    }

    #[inline(never)]
    fn members(&mut self, extra: &Extra, but: &[&str]) {
        let kept = |(name, value): &(&str, &RawValue)| !but.contains(name) && value.get() != "null";
        let mut members: smallvec::SmallVec<[_; 8]> = extra.iter().filter(kept).collect();
        members.sort_by_key(|(name, _)| *name);
        for (name, value) in members {
            self.framed(b'm', name.as_bytes());
            value.write(self);
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
        to.signed(b'j', *self);
    }
}

impl Canonical for f64 {
    fn write(&self, to: &mut Writer<'_>) {
        // Both zeros are one number.
        let bits = if *self == 0.0 { 0 } else { self.to_bits() };
        to.tag(b'f');
        to.put_small(&bits.to_le_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LlmRequest, Message};

    fn pieces(request: &LlmRequest) -> Vec<(Vec<u8>, bool)> {
        let mut pieces = Vec::new();
        request.canonical(Whose::Tenant, |piece| {
            pieces.push((piece.bytes.to_vec(), piece.last));
        });
        pieces
    }

    #[test]
    fn what_is_short_comes_in_one_piece_and_what_is_long_as_the_same_bytes() {
        for length in [
            0,
            1,
            127,
            128,
            LARGE - 1,
            LARGE,
            BUFFER - 100,
            BUFFER,
            100_000,
        ] {
            let ask = |text: String| LlmRequest::chat("m", [Message::user(text)]);
            let pieces = pieces(&ask("w".repeat(length)));
            assert_eq!(pieces.len() == 1, length < LARGE, "{length}");
            let (last, others) = pieces.split_last().expect("at least one");
            assert!(last.1 && others.iter().all(|(_, last)| !last));
            let form: Vec<u8> = pieces.into_iter().flat_map(|(bytes, _)| bytes).collect();
            let texts = form.iter().filter(|byte| **byte == b'w').count();
            assert_eq!(texts, length);
        }
    }

    #[test]
    fn numbers_of_all_sizes_are_told_apart_and_none_begins_another() {
        let near = (0..64).map(|bit| 1_u64 << bit);
        let numbers = near
            .flat_map(|one| [one - 1, one, one + 1])
            .chain([u64::MAX]);
        let mut forms: Vec<Vec<u8>> = Vec::new();
        for number in numbers.collect::<std::collections::BTreeSet<_>>() {
            let mut form = Vec::new();
            let mut sink = |piece: CanonicalPiece<'_>| form.extend_from_slice(piece.bytes);
            let mut to = Writer::new(&mut sink);
            number.write(&mut to);
            to.finish();
            assert!(
                !forms
                    .iter()
                    .any(|other| form.starts_with(other) || other.starts_with(&form))
            );
            forms.push(form);
        }
    }

    #[test]
    fn a_question_is_written_as_its_request_is() {
        let request = LlmRequest::chat("m", [Message::user("Hi")]).with_model("other");
        let mut form = Vec::new();
        let question = request.question();
        question.canonical(Whose::Tenant, |piece| form.extend_from_slice(piece.bytes));
        assert_eq!(vec![(form, true)], pieces(&request));
    }
}
