//! Words that Anthropic and the vocabulary have each their own for.

use donjon_core::{FinishReason, Usage};
use serde::{Deserialize, Serialize};

/// Why an answer ended, from Anthropic's word
/// (<https://docs.anthropic.com/en/api/handling-stop-reasons>).
pub(super) fn finish_reason(stop_reason: &str) -> FinishReason {
    match stop_reason {
        // A turn that a server tool paused is handed back to the caller like any other.
        "end_turn" | "stop_sequence" | "pause_turn" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        other => FinishReason::Other(other.into()),
    }
}

/// Anthropic's word for why an answer ended. Words that it does not know become `end_turn`: its
/// clients know no others.
pub(super) fn stop_reason(finish_reason: Option<&FinishReason>) -> &'static str {
    match finish_reason {
        Some(FinishReason::Length) => "max_tokens",
        Some(FinishReason::ToolCalls | FinishReason::FunctionCall) => "tool_use",
        Some(FinishReason::ContentFilter) => "refusal",
        _ => "end_turn",
    }
}

/// Tokens as Anthropic counts them: those of the prompt cache apart from the input.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct UsageIn {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

impl UsageIn {
    /// What this says, and what `earlier` said where it says nothing.
    pub(super) fn over(self, earlier: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.or(earlier.input_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .or(earlier.cache_creation_input_tokens),
            cache_read_input_tokens: self
                .cache_read_input_tokens
                .or(earlier.cache_read_input_tokens),
            output_tokens: self.output_tokens.or(earlier.output_tokens),
        }
    }
}

impl From<UsageIn> for Usage {
    fn from(told: UsageIn) -> Self {
        let cache_write = told.cache_creation_input_tokens.unwrap_or(0);
        let cache_read = told.cache_read_input_tokens.unwrap_or(0);
        let input = told.input_tokens.unwrap_or(0);
        let mut usage = Self::new(
            input.saturating_add(cache_write).saturating_add(cache_read),
            told.output_tokens.unwrap_or(0),
        );
        usage.cache_read = cache_read;
        usage.cache_write = cache_write;
        usage
    }
}

/// The same, to be written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct UsageOut {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage
                .input
                .saturating_sub(usage.cache_read)
                .saturating_sub(usage.cache_write),
            cache_creation_input_tokens: usage.cache_write,
            cache_read_input_tokens: usage.cache_read,
            output_tokens: usage.output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_cache_is_part_of_our_input_and_not_of_theirs() {
        let theirs = r#"{"input_tokens":10,"cache_creation_input_tokens":3,"cache_read_input_tokens":20,"output_tokens":7,"service_tier":"x"}"#;
        let told: UsageIn = serde_json::from_str(theirs).expect("valid");
        let ours = Usage::from(told);
        assert_eq!(
            (ours.input, ours.cache_write, ours.cache_read, ours.output),
            (33, 3, 20, 7)
        );
        let back = serde_json::to_value(UsageOut::from(ours)).expect("JSON");
        let expected = serde_json::json!({
            "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 20, "output_tokens": 7,
        });
        assert_eq!(back, expected);
    }

    #[test]
    fn stop_reasons_both_ways() {
        for word in ["end_turn", "max_tokens", "tool_use", "refusal"] {
            assert_eq!(stop_reason(Some(&finish_reason(word))), word);
        }
        assert_eq!(finish_reason("stop_sequence"), FinishReason::Stop);
        assert_eq!(finish_reason("new"), FinishReason::Other("new".into()));
        assert_eq!(
            stop_reason(Some(&FinishReason::Other("new".into()))),
            "end_turn"
        );
    }
}
