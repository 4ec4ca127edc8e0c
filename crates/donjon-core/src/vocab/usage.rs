//! What a call used.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

use super::json::Lenient;

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

/// A count that may be missing, or written as `12.0`, and never makes an answer unreadable.
#[derive(Clone, Copy, Default)]
struct Count(Option<u64>);

impl Count {
    fn of(count: u64) -> Self {
        Self(Some(count))
    }

    fn unless_zero(count: u64) -> Self {
        Self((count > 0).then_some(count))
    }

    fn known(self) -> u64 {
        self.0.unwrap_or(0)
    }

    fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0))
    }

    fn is_unknown(&self) -> bool {
        self.0.is_none()
    }
}

impl<'de> Deserialize<'de> for Count {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates; less than nothing is nothing"
    )]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Lenient(number) = Lenient::<serde_json::Number>::deserialize(deserializer)?;
        Ok(Self(number.and_then(|number| {
            number
                .as_u64()
                .or_else(|| number.as_f64().map(|n| n as u64))
        })))
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[derive(Serialize, Deserialize, Default)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default, skip_serializing_if = "Count::is_unknown")]
    cache_write_tokens: Count,
    #[serde(default)]
    audio_tokens: Count,
}

#[derive(Serialize, Deserialize, Default)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
    #[serde(default)]
    audio_tokens: Count,
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            prompt_tokens: Count,
            #[serde(default)]
            completion_tokens: Count,
            #[serde(default)]
            prompt_tokens_details: Lenient<InputDetails>,
            #[serde(default)]
            completion_tokens_details: Lenient<OutputDetails>,
            // DeepSeek's name for cached tokens.
            #[serde(default)]
            prompt_cache_hit_tokens: Count,
        }
        let wire = Wire::deserialize(deserializer)?;
        let input = wire.prompt_tokens_details.0.unwrap_or_default();
        let output = wire.completion_tokens_details.0.unwrap_or_default();
        Ok(Self {
            input: wire.prompt_tokens.known(),
            output: wire.completion_tokens.known(),
            cache_read: input.cached_tokens.or(wire.prompt_cache_hit_tokens).known(),
            cache_write: input.cache_write_tokens.known(),
            reasoning: output.reasoning_tokens.known(),
            input_audio: input.audio_tokens.known(),
            output_audio: output.audio_tokens.known(),
        })
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let input = InputDetails {
            cached_tokens: Count::of(self.cache_read),
            cache_write_tokens: Count::unless_zero(self.cache_write),
            audio_tokens: Count::of(self.input_audio),
        };
        let output = OutputDetails {
            reasoning_tokens: Count::of(self.reasoning),
            audio_tokens: Count::of(self.output_audio),
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
