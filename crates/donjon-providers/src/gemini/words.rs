//! Words that Gemini and the vocabulary have each their own for.

use donjon_core::{ErrorKind, Extra, FinishReason, LlmError, Usage};
use serde::Deserialize;

use crate::{json, openai::EXTRA_CONTENT};

/// Why a candidate ended. `called` says whether it calls functions, which Gemini has no reason for.
///
/// # Errors
///
/// That the answer came to nothing: the model wrote a call that is none.
pub(super) fn finish_reason(word: &str, called: bool) -> Result<FinishReason, LlmError> {
    Ok(match word {
        "STOP" if called => FinishReason::ToolCalls,
        "STOP" => FinishReason::Stop,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => FinishReason::ContentFilter,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "MALFORMED_RESPONSE" => {
            let message = format!("the model's answer came to nothing ({word})");
            return Err(LlmError::new(ErrorKind::InvalidResponse, message).with_code(word));
        }
        other => FinishReason::Other(other.to_ascii_lowercase().into()),
    })
}

/// Tokens as Gemini counts them: thoughts apart from the answer, results of its own tools apart from
/// the prompt.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UsageIn {
    prompt_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
}

impl From<UsageIn> for Usage {
    fn from(told: UsageIn) -> Self {
        let count = |count: Option<u64>| count.unwrap_or(0);
        let input = count(told.prompt_token_count);
        let thoughts = count(told.thoughts_token_count);
        let mut usage = Self::new(
            input.saturating_add(count(told.tool_use_prompt_token_count)),
            count(told.candidates_token_count).saturating_add(thoughts),
        );
        usage.cache_read = count(told.cached_content_token_count);
        usage.reasoning = thoughts;
        usage
    }
}

/// `signature` as it travels.
pub(super) fn signed(signature: &str) -> Extra {
    let mut extra = Extra::new();
    let json = serde_json::json!({"google": {"thought_signature": signature}});
    if let Some(raw) = json::raw(&json) {
        extra.insert(EXTRA_CONTENT, raw);
    }
    extra
}

/// The signature that travels in `extra`.
pub(super) fn signature(extra: &Extra) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        google: Google,
    }
    #[derive(Deserialize)]
    struct Google {
        thought_signature: String,
    }
    let content: Content = extra.read(EXTRA_CONTENT)?;
    Some(content.google.thought_signature)
}

/// The generation of `model`, as far as its name tells.
pub(super) fn generation(model: &str) -> Option<u32> {
    let (_, version) = model.rsplit_once("gemini-")?;
    let digits = version.find(|c: char| !c.is_ascii_digit());
    version[..digits.unwrap_or(version.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let reason = |word, called| finish_reason(word, called).map_err(|error| error.kind());
        assert_eq!(reason("STOP", false), Ok(FinishReason::Stop));
        assert_eq!(reason("STOP", true), Ok(FinishReason::ToolCalls));
        assert_eq!(reason("MAX_TOKENS", true), Ok(FinishReason::Length));
        for word in ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII"] {
            assert_eq!(reason(word, false), Ok(FinishReason::ContentFilter));
        }
        assert_eq!(
            reason("OTHER", false),
            Ok(FinishReason::Other("other".into()))
        );
        assert_eq!(
            reason("MALFORMED_FUNCTION_CALL", false),
            Err(ErrorKind::InvalidResponse)
        );
    }

    #[test]
    fn thoughts_are_part_of_our_output_and_not_of_theirs() {
        let theirs = r#"{"promptTokenCount":9,"candidatesTokenCount":5,"totalTokenCount":199,"thoughtsTokenCount":185,
            "cachedContentTokenCount":4,"toolUsePromptTokenCount":2,"promptTokensDetails":[]}"#;
        let told: UsageIn = serde_json::from_str(theirs).expect("valid");
        let ours = Usage::from(told);
        let counts = (ours.input, ours.output, ours.reasoning, ours.cache_read);
        assert_eq!(counts, (11, 190, 185, 4));
    }

    #[test]
    fn generations_and_signatures() {
        assert_eq!(generation("gemini-3-pro-preview"), Some(3));
        assert_eq!(generation("models/gemini-2.5-flash"), Some(2));
        assert_eq!(generation("gemini-flash-latest"), None);
        assert_eq!(generation("gemma"), None);
        assert_eq!(signature(&signed("s")), Some("s".into()));
        assert_eq!(signature(&Extra::new()), None);
    }
}
