//! A message as it stood on the wire.

use std::fmt;

use bytes::Bytes;

/// Whose words a JSON text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI chat completions and whatever is compatible with it; also the vocabulary of this crate.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
}

/// The JSON that a request, an answer or a chunk came as.
///
/// A codec of the same dialect passes it on and changes only what the call asks to be changed, so
/// that every member survives untouched; a codec of another dialect uses the typed fields. Editing
/// the typed fields through the `edit` methods of their owner takes that into account.
#[derive(Clone)]
pub struct Wire {
    /// The words it is written in.
    pub dialect: Dialect,
    /// One JSON text, already known to be well formed.
    pub json: Bytes,
}

impl Wire {
    /// Names `json`, a well-formed JSON text in `dialect`.
    pub fn new(dialect: Dialect, json: impl Into<Bytes>) -> Self {
        Self {
            dialect,
            json: json.into(),
        }
    }

    /// The text, if it is in `dialect`.
    pub fn in_dialect(&self, dialect: Dialect) -> Option<&Bytes> {
        (self.dialect == dialect).then_some(&self.json)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A prompt or an answer is never printed unasked.
        write!(f, "{:?} ({} bytes)", self.dialect, self.json.len())
    }
}
