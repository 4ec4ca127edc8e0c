//! Where in a request something is wrong.

use donjon_core::{ErrorKind, LlmError};
use serde::de::DeserializeOwned;

/// Reads `json` as a `T` once more, to add to `error` which field it is about.
pub(super) fn locate<T: DeserializeOwned>(json: &[u8], error: LlmError) -> LlmError {
    if error.field().is_some() {
        return error;
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let Err(located) = serde_path_to_error::deserialize::<_, T>(&mut reader) else {
        return error;
    };
    let path = located.path().to_string();
    let reason = located.into_inner();
    if !reason.is_data() {
        return LlmError::new(
            ErrorKind::InvalidRequest,
            format!("the body is not valid JSON: {reason}"),
        );
    }
    let reason = reason.to_string();
    let field = match (&*path, missing(&reason)) {
        (".", None) => {
            return LlmError::new(ErrorKind::InvalidRequest, reason);
        }
        (".", Some(name)) => name.to_owned(),
        (_, Some(name)) => format!("{path}.{name}"),
        (_, None) => path,
    };
    LlmError::invalid_field(&field, &reason)
}

/// The name in serde's sentence about a missing field, of which the path holds only the owner.
fn missing(reason: &str) -> Option<&str> {
    let (name, _) = reason.strip_prefix("missing field `")?.split_once('`')?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use donjon_core::Chat;

    use super::*;

    fn field(json: &str) -> Option<String> {
        let error = LlmError::new(ErrorKind::InvalidRequest, "");
        let located = locate::<Chat>(json.as_bytes(), error);
        assert!(!located.message().is_empty());
        located.field().map(str::to_owned)
    }

    #[test]
    fn paths() {
        assert_eq!(
            field(r#"{"messages":[{"role":7}]}"#).unwrap(),
            "messages[0].role"
        );
        assert_eq!(
            field(r#"{"messages":[{"role":"user"},{"content":"x"}]}"#).unwrap(),
            "messages[1].role"
        );
        assert_eq!(field(r#"{"model":"m"}"#).unwrap(), "messages");
        assert_eq!(
            field(r#"{"messages":[],"temperature":"hot"}"#).unwrap(),
            "temperature"
        );
        assert_eq!(field("[]"), None);
        assert_eq!(field(r#"{"messages":["#), None);
    }
}
