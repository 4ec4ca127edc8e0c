//! Streamed answers of OpenAI and compatible servers.

use bytes::Bytes;
use donjon_core::{Chunk, Delta, Dialect, LlmError, Wire};

use super::error;
use crate::codec::{Step, StreamDecoder};

/// Reads the events of one streamed chat completion.
#[derive(Debug)]
pub struct OpenAiDecoder {
    choices: u32,
    /// Which of the first 128 choices have finished; providers allow no more.
    finished: u128,
}

impl OpenAiDecoder {
    /// Reads an answer of `choices` choices.
    pub fn new(choices: u32) -> Self {
        Self {
            choices: choices.clamp(1, 128),
            finished: 0,
        }
    }

    fn see(&mut self, delta: &Delta) {
        for choice in &delta.choices {
            if choice.finish_reason.is_some() {
                self.finished |= 1_u128.checked_shl(choice.index).unwrap_or(0);
            }
        }
    }
}

impl StreamDecoder for OpenAiDecoder {
    fn decode(&mut self, data: String) -> Result<Step, LlmError> {
        match data.trim_ascii() {
            "[DONE]" => return Ok(Step::Done),
            "" => return Ok(Step::Nothing),
            _ => {}
        }
        let Ok(mut delta) = serde_json::from_str::<Delta>(&data) else {
            // Some servers tell their errors in other forms, a list for one.
            return match error::decode_unannounced(data.as_bytes()) {
                Some(error) => Err(error),
                None => Ok(Step::Malformed),
            };
        };
        if has_failed(&delta) {
            return Err(error::decode_failed(data.as_bytes()));
        }
        if !delta.shows(true)
            && data.contains("\"error\"")
            && let Some(error) = error::decode_unannounced(data.as_bytes())
        {
            return Err(error);
        }
        self.see(&delta);
        let bare = delta.choices.is_empty();
        // An event that is no chunk at all is shown to the caller as it is.
        delta.unknown = bare && delta.usage.is_none() && !data.contains("\"choices\"");
        // The usage is the last thing that is told: a server that then neither says `[DONE]` nor
        // closes the stream is not waited for.
        let last = bare && delta.usage.is_some() && self.finished.count_ones() >= self.choices;
        let wire = Wire::new(Dialect::OpenAi, Bytes::from(data));
        let chunk = Chunk::from_wire(delta, wire);
        Ok(if last {
            Step::Last(chunk)
        } else {
            Step::Chunk(chunk)
        })
    }
}

/// Whether a chunk says that the answer failed: in a choice, or in place of how one ended.
fn has_failed(delta: &Delta) -> bool {
    delta.choices.iter().any(|choice| {
        error::ends_in_error(choice.finish_reason.as_ref()) || error::tells_error(&choice.beside)
    })
}

#[cfg(test)]
mod tests {
    use donjon_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    fn decode(data: &str) -> Result<Step, LlmError> {
        OpenAiDecoder::new(1).decode(data.into())
    }

    fn chunk(data: &str) -> Chunk {
        match decode(data) {
            Ok(Step::Chunk(chunk)) => chunk,
            other => panic!("{data}: {other:?}"),
        }
    }

    #[test]
    fn odd_events() {
        assert!(matches!(decode("[DONE]"), Ok(Step::Done)));
        assert!(matches!(decode(" [DONE] "), Ok(Step::Done)));
        assert!(matches!(decode(""), Ok(Step::Nothing)));
        for bad in ["{", "nonsense", "null", "{\"choices\":[{\"delta\":3}]}"] {
            assert!(matches!(decode(bad), Ok(Step::Malformed)), "{bad}");
        }
        assert!(!chunk(r#"{"choices":null,"id":"x"}"#).unknown);
        assert!(!chunk(r#"{"choices":[],"prompt_filter_results":[]}"#).unknown);
        assert!(chunk(r#"{"type":"something.new","x":1}"#).unknown);
        let json = r#"{"id":"a","choices":[{"delta":{"content":"an \"error\" here"}}]}"#;
        assert_eq!(
            chunk(json).wire(Dialect::OpenAi).expect("as it came"),
            json.as_bytes()
        );
    }

    #[test]
    fn errors_in_a_stream() {
        for (data, kind) in [
            (
                r#"{"error":{"message":"m","type":"server_error"}}"#,
                ErrorKind::ServerError,
            ),
            (
                r#"{"error":{"message":"m","code":429}}"#,
                ErrorKind::RateLimited,
            ),
            (
                r#"{"error":{"message":"m","type":"overloaded_error"}}"#,
                ErrorKind::Overloaded,
            ),
            (
                r#"[{"error":{"message":"m","code":503}}]"#,
                ErrorKind::Unavailable,
            ),
            // OpenRouter's.
            (
                r#"{"id":"x","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"code":"server_error","message":"Provider disconnected"}}"#,
                ErrorKind::ServerError,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"content":"so far"},"finish_reason":"error","error":{"message":"m","code":502}}]}"#,
                ErrorKind::Unavailable,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"content":"so far"},"error":{"message":"m","code":429}}]}"#,
                ErrorKind::RateLimited,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
                ErrorKind::ServerError,
            ),
        ] {
            assert_eq!(decode(data).expect_err(data).kind(), kind);
        }
    }

    #[test]
    fn bare_usage_after_every_finish_is_the_last() {
        let mut decoder = OpenAiDecoder::new(2);
        let mut step = |data: &str| decoder.decode(data.into()).expect("no error");
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":1}}"#;
        let finish = |index: u32| {
            format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#)
        };
        assert!(matches!(step(&finish(0)), Step::Chunk(_)));
        assert!(
            matches!(step(usage), Step::Chunk(_)),
            "one choice is not finished"
        );
        assert!(matches!(step(&finish(1)), Step::Chunk(_)));
        assert!(matches!(step(usage), Step::Last(_)));
    }

    proptest! {
        #[test]
        fn no_event_panics(data in any::<String>(), inner in any::<String>()) {
            let mut decoder = OpenAiDecoder::new(1);
            let _ = decoder.decode(data);
            let quoted = serde_json::to_string(&inner).expect("JSON");
            for event in [
                format!(r#"{{"choices":[{{"delta":{quoted}}}]}}"#),
                format!(r#"{{"choices":[{{"delta":{{"content":{quoted}}}}}],"error":{quoted}}}"#),
                format!(r#"{{"error":{{"message":{quoted},"code":{quoted}}}}}"#),
            ] {
                let _ = decoder.decode(event);
            }
        }
    }
}
