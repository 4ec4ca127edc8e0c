//! Whoever counts the tokens of a text.

use std::fmt;

use crate::count::Count;

/// Counts the tokens of a text. Implement it for a tokenizer of your own.
///
/// It is asked for the texts of a message, one after the other, and what it says of a message is
/// remembered: it must say the same of the same text each time.
pub trait Tokenizer: fmt::Debug + Send + Sync + 'static {
    /// What it is called, in figures. Tokenizers of one name in one layer share what is remembered of
    /// messages, and so must count alike.
    fn name(&self) -> &str;

    /// The tokens of `text`, as a piece of ordinary text: no special token is looked for.
    fn count(&self, text: &str) -> Count;

    /// The same, but in a time that grows no faster than the text whatever it says, even if a word of
    /// thousands of letters has to be cut for it and the count becomes an estimate. This is asked unless
    /// [`sampling`](crate::TokenCountBuilder::sampling) is `None`; by default it is [`count`](Self::count).
    fn count_quickly(&self, text: &str) -> Count {
        self.count(text)
    }

    /// Reads what it needs before it can count, where that takes long.
    fn warm(&self) {}
}
