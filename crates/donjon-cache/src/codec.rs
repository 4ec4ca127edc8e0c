//! An entry as bytes, the same on every platform: for a store, and to be compressed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use donjon_core::{
    ChatCompletion, Chunk, Completion, Delta, Dialect, Embedding, Embeddings, Head, Identity, Name,
    Usage, Wire,
};

use crate::entry::{Entry, Kept, Moment, Recording, Timed, Times};

/// Grows with each change of the form; what is of another version is not read.
const MAGIC: &[u8] = b"DJC\x01";

/// `entry` as bytes; `None` where it is not for others. `moment` and `now` are the same time.
pub(crate) fn write_entry(entry: &Entry, moment: Moment, now: SystemTime) -> Option<Bytes> {
    let mut to = Writer(Vec::with_capacity(1_024));
    to.0.extend_from_slice(MAGIC);
    let Times {
        made,
        fresh,
        stale,
        on_error,
    } = entry.times;
    let age = Duration::from_nanos(moment.saturating_sub(made));
    let made_at = now.checked_sub(age)?.duration_since(UNIX_EPOCH).ok()?;
    to.number(u64::try_from(made_at.as_millis()).ok()?);
    for until in [fresh, stale, on_error] {
        to.number(until.saturating_sub(made));
    }
    let head = &entry.head;
    to.text(&head.model);
    to.optional(head.provider.as_deref());
    to.optional(head.target.as_deref());
    to.optional(head.id.as_deref());
    to.text(&entry.asked);
    let identity = &entry.identity;
    to.optional(identity.tenant.as_deref());
    to.optional(identity.user.as_deref());
    to.optional(identity.project.as_deref());
    to.length(identity.tags.len());
    for (name, value) in &identity.tags {
        to.text(name);
        to.text(value);
    }
    write_kept(&entry.kept, &mut to)?;
    Some(to.0.into())
}

/// The entry that was written, if it can be read.
pub(crate) fn read_entry(bytes: &Bytes, moment: Moment, now: SystemTime) -> Option<Entry> {
    let mut from = Reader(bytes.slice(bytes.starts_with(MAGIC).then_some(MAGIC.len())?..));
    let made_at = UNIX_EPOCH.checked_add(Duration::from_millis(from.number()?))?;
    // Clocks differ: what was made in the future is new.
    let age = now.duration_since(made_at).unwrap_or_default();
    let age = u64::try_from(age.as_nanos()).ok()?;
    let (fresh, stale, on_error) = (from.number()?, from.number()?, from.number()?);
    // It may be older than this process: what is left counts, and how old it is.
    let made = moment.saturating_sub(age);
    let until = |lives: u64| moment.saturating_add(lives.saturating_sub(age));
    let times = Times {
        made,
        fresh: until(fresh),
        stale: until(stale),
        on_error: until(on_error),
    };
    let mut head = Head::new(from.text()?);
    head.provider = from.optional()?.map(|name| Name::new(&name));
    head.target = from.optional()?.map(|name| Name::new(&name));
    head.id = from.optional()?;
    let asked = from.text()?;
    let mut identity = Identity::default();
    identity.tenant = from.optional()?;
    identity.user = from.optional()?;
    identity.project = from.optional()?;
    for _ in 0..from.length()? {
        identity.tags.push((from.text()?, from.text()?));
    }
    let kept = read_kept(&mut from)?;
    from.0.is_empty().then_some(())?;
    Some(Entry::new(head, asked, Arc::new(identity), kept, times))
}

const CHAT: u8 = 0;
const EMBED: u8 = 1;
const STREAM: u8 = 2;
const PACKED: u8 = 3;

pub(crate) fn write_kept(kept: &Kept, to: &mut Writer) -> Option<()> {
    match kept {
        Kept::Whole(Completion::Chat(chat)) => {
            to.0.push(CHAT);
            to.0.push(flags(&chat.id, &chat.model, chat.created, false));
            to.bytes(&serde_json::to_vec(&**chat).ok()?);
            to.wire(chat.wire.as_ref())?;
        }
        Kept::Whole(Completion::Embed(embeddings)) => {
            to.0.push(EMBED);
            to.embeddings(embeddings);
        }
        // Of what is not known here nothing is written.
        Kept::Whole(_) => return None,
        Kept::Stream(recording) => {
            to.0.push(STREAM);
            to.number(u64::from(recording.choices));
            to.length(recording.chunks.len());
            for Timed { chunk, after } in &*recording.chunks {
                to.number(u64::from(*after));
                to.chunk(chunk)?;
            }
        }
        #[cfg(feature = "zstd")]
        Kept::Packed(bytes, size) => {
            to.0.push(PACKED);
            to.length(*size);
            to.bytes(bytes);
        }
        // It may be right in a moment, elsewhere: what is wrong is told by who was asked.
        Kept::Refusal(_) => return None,
    }
    Some(())
}

pub(crate) fn read_kept(from: &mut Reader) -> Option<Kept> {
    Some(match from.byte()? {
        CHAT => {
            let flags = from.byte()?;
            let mut chat: ChatCompletion = serde_json::from_slice(&from.bytes()?).ok()?;
            unset(flags, &mut chat.id, &mut chat.model, &mut chat.created);
            chat.wire = from.wire()?;
            Kept::Whole(chat.into())
        }
        EMBED => Kept::Whole(from.embeddings()?.into()),
        STREAM => {
            let choices = u32::try_from(from.number()?).ok()?;
            let length = from.length()?;
            let mut chunks = Vec::new();
            for _ in 0..length {
                let after = u32::try_from(from.number()?).ok()?;
                let chunk = from.chunk()?;
                chunks.push(Timed { chunk, after });
            }
            Kept::Stream(Recording::new(choices, chunks))
        }
        #[cfg(feature = "zstd")]
        PACKED => {
            let size = from.length()?;
            Kept::Packed(from.bytes()?.to_vec().into(), size)
        }
        #[cfg(not(feature = "zstd"))]
        PACKED => return None,
        _ => return None,
    })
}

const ID: u8 = 1;
const MODEL: u8 = 2;
const CREATED: u8 = 4;
const UNKNOWN: u8 = 8;

/// What is there: in JSON an absent name is an empty one.
fn flags(
    id: &Option<Arc<str>>,
    model: &Option<Arc<str>>,
    created: Option<u64>,
    unknown: bool,
) -> u8 {
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    flag(id.is_some(), ID)
        | flag(model.is_some(), MODEL)
        | flag(created.is_some(), CREATED)
        | flag(unknown, UNKNOWN)
}

fn unset(
    flags: u8,
    id: &mut Option<Arc<str>>,
    model: &mut Option<Arc<str>>,
    created: &mut Option<u64>,
) {
    if flags & ID == 0 {
        *id = None;
    }
    if flags & MODEL == 0 {
        *model = None;
    }
    if flags & CREATED == 0 {
        *created = None;
    }
}

pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.0.push(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn wire(&mut self, wire: Option<&Wire>) -> Option<()> {
        let Some(Wire { dialect, json }) = wire else {
            self.0.push(0);
            return Some(());
        };
        self.0.push(dialect_byte(*dialect)?);
        self.bytes(json);
        Some(())
    }

    fn chunk(&mut self, chunk: &Chunk) -> Option<()> {
        self.0
            .push(flags(&chunk.id, &chunk.model, chunk.created, chunk.unknown));
        // Whoever read it from the wire may have put right what stood there, so both are written.
        self.bytes(&serde_json::to_vec(chunk).ok()?);
        let wire = [Dialect::OpenAi, Dialect::Anthropic].into_iter();
        let mut wire = wire.filter_map(|dialect| Some((dialect, chunk.wire(dialect)?)));
        match wire.next() {
            None => self.0.push(0),
            Some((dialect, json)) => {
                self.0.push(dialect_byte(dialect)?);
                self.bytes(json);
            }
        }
        Some(())
    }

    fn embeddings(&mut self, embeddings: &Embeddings) {
        self.optional(embeddings.model.as_deref());
        let usage = embeddings.usage.map(|usage| (usage.input, usage.output));
        self.0.push(u8::from(usage.is_some()));
        if let Some((input, output)) = usage {
            self.number(input);
            self.number(output);
        }
        self.length(embeddings.data.len());
        for Embedding { index, vector, .. } in &embeddings.data {
            self.number(u64::from(*index));
            self.length(vector.len());
            for number in &**vector {
                self.0.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

fn dialect_byte(dialect: Dialect) -> Option<u8> {
    match dialect {
        Dialect::OpenAi => Some(1),
        Dialect::Anthropic => Some(2),
        _ => None,
    }
}

/// Reads what may be anything: nothing here panics, or takes more memory than there are bytes.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|one| one[0])
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = self.take(8)?;
        Some(u64::from_le_bytes(bytes[..].try_into().ok()?))
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).ok().map(Arc::from)
    }

    fn optional(&mut self) -> Option<Option<Arc<str>>> {
        match self.byte()? {
            0 => Some(None),
            _ => self.text().map(Some),
        }
    }

    fn wire(&mut self) -> Option<Option<Wire>> {
        let dialect = match self.byte()? {
            0 => return Some(None),
            1 => Dialect::OpenAi,
            _ => Dialect::Anthropic,
        };
        Some(Some(Wire::new(dialect, self.json()?)))
    }

    /// A JSON text, of its own: a part of a whole would keep all of it in memory.
    fn json(&mut self) -> Option<Bytes> {
        let bytes = Bytes::copy_from_slice(&self.bytes()?);
        serde_json::from_slice::<&serde_json::value::RawValue>(&bytes).ok()?;
        Some(bytes)
    }

    fn chunk(&mut self) -> Option<Chunk> {
        let flags = self.byte()?;
        let mut delta: Delta = serde_json::from_slice(&self.bytes()?).ok()?;
        let Delta {
            id, model, created, ..
        } = &mut delta;
        unset(flags, id, model, created);
        delta.unknown = flags & UNKNOWN != 0;
        Some(match self.wire()? {
            Some(wire) => Chunk::from_wire(delta, wire),
            None => delta.into(),
        })
    }

    fn embeddings(&mut self) -> Option<Embeddings> {
        let mut embeddings = Embeddings::default();
        embeddings.model = self.optional()?;
        if self.byte()? != 0 {
            embeddings.usage = Some(Usage::new(self.number()?, self.number()?));
        }
        for _ in 0..self.length()? {
            let index = u32::try_from(self.number()?).ok()?;
            let length = self.length()?.checked_mul(4)?;
            let vector = self.take(length)?;
            let (numbers, _) = vector.as_chunks::<4>();
            let vector = numbers.iter().map(|number| f32::from_le_bytes(*number));
            embeddings
                .data
                .push(Embedding::new(index, vector.collect::<Arc<[f32]>>()));
        }
        Some(embeddings)
    }
}

#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
