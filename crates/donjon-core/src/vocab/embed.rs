//! Embeddings: what is asked and what is answered.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

use super::{
    json::{Extra, json_object},
    usage::Usage,
};

json_object! {
    /// A request for embeddings
    /// (<https://platform.openai.com/docs/api-reference/embeddings/create>).
    pub struct Embed {
        /// What to embed.
        pub input: EmbedInput = "input" => required,
        /// How long each vector is to be.
        pub dimensions: Option<u32> = "dimensions",
        /// `float` or `base64`.
        pub encoding_format: Option<Box<str>> = "encoding_format",
    }
}

impl Embed {
    /// Asks for an embedding of each of `texts`.
    pub fn new<T: Into<Box<str>>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self {
            input: EmbedInput::Texts(texts.into_iter().map(Into::into).collect()),
            dimensions: None,
            encoding_format: None,
            extra: Extra::new(),
        }
    }
}

/// What to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmbedInput {
    /// Texts; a single string is a list of one.
    Texts(Vec<Box<str>>),
    /// Texts that are already tokens; a single list is a list of one.
    Tokens(Vec<Vec<u32>>),
}

impl Serialize for EmbedInput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Texts(texts) => texts.serialize(serializer),
            Self::Tokens(tokens) => tokens.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EmbedInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Element {
            Text(Box<str>),
            Token(u32),
            Tokens(Vec<u32>),
        }
        struct Input;
        impl<'de> Visitor<'de> for Input {
            type Value = EmbedInput;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of strings, or arrays of tokens")
            }
            fn visit_str<E>(self, text: &str) -> Result<EmbedInput, E> {
                Ok(EmbedInput::Texts(vec![text.into()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EmbedInput, A::Error> {
                let (mut texts, mut tokens, mut flat) = (Vec::new(), Vec::new(), Vec::new());
                while let Some(element) = seq.next_element()? {
                    match element {
                        Element::Text(text) => texts.push(text),
                        Element::Token(token) => flat.push(token),
                        Element::Tokens(list) => tokens.push(list),
                    }
                }
                if !flat.is_empty() {
                    if !tokens.is_empty() {
                        return Err(serde::de::Error::custom(
                            "tokens and lists of tokens cannot be mixed in one request",
                        ));
                    }
                    tokens.push(flat);
                }
                match (texts.is_empty(), tokens.is_empty()) {
                    (_, true) => Ok(EmbedInput::Texts(texts)),
                    (true, false) => Ok(EmbedInput::Tokens(tokens)),
                    (false, false) => Err(serde::de::Error::custom(
                        "texts and tokens cannot be mixed in one request",
                    )),
                }
            }
        }
        deserializer.deserialize_any(Input)
    }
}

/// The answer to a request for embeddings.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Embeddings {
    /// One for each input, in its order.
    pub data: Vec<Embedding>,
    /// The model that served.
    pub model: Option<Arc<str>>,
    /// What the call used, if the provider said so.
    pub usage: Option<Usage>,
}

/// One vector.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// Which input it belongs to.
    pub index: u32,
    /// The vector.
    pub vector: Arc<[f32]>,
}

impl Embedding {
    /// The vector of the input at `index`.
    pub fn new(index: u32, vector: impl Into<Arc<[f32]>>) -> Self {
        Self {
            index,
            vector: vector.into(),
        }
    }
}
