//! The encodings of OpenAI, whose vocabularies are public.

use std::sync::LazyLock;

use tiktoken::{CoreBpe, encoding};

use crate::{count::Count, tokenizer::Tokenizer, windows::Windows};

static O200K: LazyLock<CoreBpe> = LazyLock::new(encoding::o200k_base);
static CL100K: LazyLock<CoreBpe> = LazyLock::new(encoding::cl100k_base);

/// How much of a text without white space is looked at as one, where it is counted quickly.
const LONGEST: usize = 512;
/// How many tokens more or less there may be for a word that is cut.
const OF_A_CUT: u64 = 3;

/// An encoding of OpenAI; its counts are exact, and the same as those of OpenAI's `tiktoken`.
///
/// A vocabulary is read when it is first needed, or by [`warm`](Tokenizer::warm): some 70 ms, once in
/// a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenAi {
    /// `o200k_base`: GPT-4o, GPT-4.1, GPT-5, the o series, gpt-oss.
    O200k,
    /// `cl100k_base`: GPT-4, GPT-3.5, the embedding models.
    Cl100k,
}

impl OpenAi {
    fn bpe(self) -> &'static CoreBpe {
        match self {
            Self::O200k => &O200K,
            Self::Cl100k => &CL100K,
        }
    }
}

impl Tokenizer for OpenAi {
    fn name(&self) -> &str {
        match self {
            Self::O200k => "o200k_base",
            Self::Cl100k => "cl100k_base",
        }
    }

    fn count(&self, text: &str) -> Count {
        let bpe = self.bpe();
        let tokens: usize = Windows::of(text).map(|window| bpe.count(window)).sum();
        Count::Exact(tokens as u64)
    }

    /// What is cut for it has 512 bytes without white space, a digit or a mark between.
    fn count_quickly(&self, text: &str) -> Count {
        let bpe = self.bpe();
        let mut windows = Windows::of(text).of_at_most(LONGEST);
        let tokens: usize = windows.by_ref().map(|window| bpe.count(window)).sum();
        Count::within(tokens as u64, OF_A_CUT * windows.forced())
    }

    fn warm(&self) {
        self.bpe();
    }
}
