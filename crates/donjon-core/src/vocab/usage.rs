//! What a call used.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

/// Tokens that a call used, as its provider counts them.
///
/// Serialised in the words of OpenAI (`prompt_tokens`, `completion_tokens`, `total_tokens` and
/// their details).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt, those read from or written to a prompt cache included.
    pub input: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
    /// Those of `input` that were read from the provider's prompt cache.
    pub cache_read: u64,
    /// Those of `input` that were written to the provider's prompt cache.
    pub cache_write: u64,
    /// Those of `output` that were spent on reasoning.
    pub reasoning: u64,
    /// Those of `input` that were audio.
    pub input_audio: u64,
    /// Those of `output` that were audio.
    pub output_audio: u64,
}

impl Usage {
    /// `input` tokens of prompt and `output` tokens of answer.
    pub const fn new(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            cache_read: 0,
            cache_write: 0,
            reasoning: 0,
            input_audio: 0,
            output_audio: 0,
        }
    }

    /// Input and output together.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Each count added to that of `other`.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            input_audio: self.input_audio.saturating_add(other.input_audio),
            output_audio: self.output_audio.saturating_add(other.output_audio),
        }
    }
}

#[derive(Serialize, Deserialize, Default)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

#[derive(Serialize, Deserialize, Default)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            prompt_tokens: Option<u64>,
            #[serde(default)]
            completion_tokens: Option<u64>,
            #[serde(default)]
            prompt_tokens_details: Option<InputDetails>,
            #[serde(default)]
            completion_tokens_details: Option<OutputDetails>,
            // DeepSeek's name for cached tokens.
            #[serde(default)]
            prompt_cache_hit_tokens: Option<u64>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let input = wire.prompt_tokens_details.unwrap_or_default();
        let output = wire.completion_tokens_details.unwrap_or_default();
        Ok(Self {
            input: wire.prompt_tokens.unwrap_or(0),
            output: wire.completion_tokens.unwrap_or(0),
            cache_read: input
                .cached_tokens
                .or(wire.prompt_cache_hit_tokens)
                .unwrap_or(0),
            cache_write: input.cache_write_tokens.unwrap_or(0),
            reasoning: output.reasoning_tokens.unwrap_or(0),
            input_audio: input.audio_tokens.unwrap_or(0),
            output_audio: output.audio_tokens.unwrap_or(0),
        })
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let some = |count: u64| (count > 0).then_some(count);
        let input = InputDetails {
            cached_tokens: Some(self.cache_read),
            cache_write_tokens: some(self.cache_write),
            audio_tokens: Some(self.input_audio),
        };
        let output = OutputDetails {
            reasoning_tokens: Some(self.reasoning),
            audio_tokens: Some(self.output_audio),
        };
        let mut wire = serializer.serialize_struct("Usage", 5)?;
        wire.serialize_field("prompt_tokens", &self.input)?;
        wire.serialize_field("completion_tokens", &self.output)?;
        wire.serialize_field("total_tokens", &self.total())?;
        wire.serialize_field("prompt_tokens_details", &input)?;
        wire.serialize_field("completion_tokens_details", &output)?;
        wire.end()
    }
}
