//! Tokenizers from a user's own `tokenizer.json`.

use std::{error::Error, fmt, path::Path};

use crate::{count::Count, tokenizer::Tokenizer};

/// A tokenizer of the Hugging Face library, from the `tokenizer.json` that comes with a model. Its
/// counts are those of that library, without the special tokens that it adds around a text.
pub struct HuggingFace {
    name: String,
    tokenizer: tokenizers::Tokenizer,
}

/// A `tokenizer.json` that cannot be read.
#[derive(Debug)]
pub struct TokenizerFileError {
    name: String,
    source: Box<dyn Error + Send + Sync>,
}

impl HuggingFace {
    /// Reads the content of a `tokenizer.json`, and calls it `name`.
    ///
    /// # Errors
    ///
    /// The file makes no sense to the library.
    pub fn from_bytes(
        name: impl Into<String>,
        file: impl AsRef<[u8]>,
    ) -> Result<Self, TokenizerFileError> {
        Self::read(name.into(), || tokenizers::Tokenizer::from_bytes(file))
    }

    /// Reads a `tokenizer.json`, and calls it `name`.
    ///
    /// # Errors
    ///
    /// The file is not there, or makes no sense to the library.
    pub fn from_file(
        name: impl Into<String>,
        path: impl AsRef<Path>,
    ) -> Result<Self, TokenizerFileError> {
        Self::read(name.into(), || tokenizers::Tokenizer::from_file(path))
    }

    fn read(
        name: String,
        read: impl FnOnce() -> tokenizers::Result<tokenizers::Tokenizer>,
    ) -> Result<Self, TokenizerFileError> {
        match read() {
            Ok(mut tokenizer) => {
                // A file may ask for texts to be cut or filled up, which is for models and not for counts.
                let uncut = tokenizer.with_truncation(None).map(|_| ());
                tokenizer.with_padding(None);
                match uncut {
                    Ok(()) => Ok(Self { name, tokenizer }),
                    Err(source) => Err(TokenizerFileError { name, source }),
                }
            }
            Err(source) => Err(TokenizerFileError { name, source }),
        }
    }
}

impl Tokenizer for HuggingFace {
    fn name(&self) -> &str {
        &self.name
    }

    /// Where the library fails on a text, the count is the bytes' and says so: no vocabulary needs more.
    fn count(&self, text: &str) -> Count {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Count::Exact(encoding.len() as u64),
            Err(_) => Count::within(text.len() as u64, text.len() as u64),
        }
    }
}

impl fmt::Debug for HuggingFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HuggingFace")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TokenizerFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tokenizer `{}` cannot be read", self.name)
    }
}

impl Error for TokenizerFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
