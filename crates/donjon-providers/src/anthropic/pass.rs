//! Requests of this dialect passed on as they came.

use std::borrow::Cow;

use bytes::Bytes;
use donjon_core::{ErrorKind, LlmError};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// `json` with another model, with `stream` as asked, and with a `max_tokens` if it has none; every
/// other byte as it came.
pub(super) fn rewrite(
    json: &[u8],
    model: &str,
    stream: bool,
    max_tokens: u64,
) -> Result<Bytes, LlmError> {
    let broken = |cause: serde_json::Error| {
        LlmError::new(ErrorKind::InvalidRequest, cause.to_string()).with_source(cause)
    };
    let Members(members) = serde_json::from_slice(json).map_err(broken)?;
    let model = serde_json::to_string(model).map_err(broken)?;
    let mut out = Vec::with_capacity(json.len() + model.len() + 48);
    out.push(b'{');
    let mut copied = 0;
    let mut told_stream = false;
    let mut told_limit = false;
    for (key, value) in &members {
        let new: Cow<'_, str> = match &**key {
            "model" => (&*model).into(),
            "stream" => {
                told_stream = true;
                stream.to_string().into()
            }
            "max_tokens" => {
                told_limit = value.get() != "null";
                if told_limit {
                    continue;
                }
                told_limit = true;
                max_tokens.to_string().into()
            }
            _ => continue,
        };
        // The value is a slice of `json`, so that its place in it is the distance of the two.
        let start = value.get().as_ptr() as usize - json.as_ptr() as usize;
        let from = if copied == 0 {
            body_start(json)
        } else {
            copied
        };
        out.extend_from_slice(&json[from..start]);
        out.extend_from_slice(new.as_bytes());
        copied = start + value.get().len();
    }
    let mut added = String::new();
    if stream && !told_stream {
        added.push_str("\"stream\":true,");
    }
    if !told_limit {
        added.push_str(&format!("\"max_tokens\":{max_tokens},"));
    }
    let from = if copied == 0 {
        body_start(json)
    } else {
        copied
    };
    out.extend_from_slice(&json[from..]);
    if !added.is_empty() {
        if members.is_empty() {
            added.pop();
        }
        out.splice(1..1, added.into_bytes());
    }
    Ok(out.into())
}

/// The place after the brace that opens the object.
fn body_start(json: &[u8]) -> usize {
    json.iter()
        .position(|byte| *byte == b'{')
        .map_or(0, |at| at + 1)
}

/// The members of a JSON object, borrowed.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str, stream: bool) -> String {
        let out = rewrite(json.as_bytes(), "new \"m\"", stream, 7).expect("valid");
        String::from_utf8(out.into()).expect("text")
    }

    #[test]
    fn only_what_is_the_calls_own_changes() {
        assert_eq!(
            text(
                r#" { "a" : [1.10, {"model":"x"}], "model" : "old" , "stream":true,"max_tokens":5 , "z":"\u00e9"} "#,
                false
            ),
            r#"{ "a" : [1.10, {"model":"x"}], "model" : "new \"m\"" , "stream":false,"max_tokens":5 , "z":"\u00e9"} "#,
        );
        assert_eq!(
            text(r#"{"model":"m","max_tokens":null}"#, true),
            r#"{"stream":true,"model":"new \"m\"","max_tokens":7}"#,
        );
        assert_eq!(text("{}", true), r#"{"stream":true,"max_tokens":7}"#);
        assert_eq!(
            text(r#"{"mod\u0065l":1}"#, false),
            r#"{"max_tokens":7,"mod\u0065l":"new \"m\""}"#
        );
    }

    proptest! {
        #[test]
        fn what_comes_out_is_json_with_the_rest_untouched(
            members in proptest::collection::vec(("[a-z]{1,3}|model|stream|max_tokens", any::<String>()), 0..6),
            stream in any::<bool>(),
        ) {
            let mut map = serde_json::Map::new();
            for (key, value) in members {
                map.insert(key, value.into());
            }
            let before = serde_json::to_vec(&map).expect("JSON");
            let after = rewrite(&before, "m", stream, 7).expect("valid");
            let mut after: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&after).expect("JSON");
            if stream || map.contains_key("stream") {
                prop_assert_eq!(after.remove("stream"), Some(stream.into()));
            }
            if map.contains_key("model") {
                prop_assert_eq!(after.remove("model"), Some("m".into()));
            }
            if !map.contains_key("max_tokens") {
                prop_assert_eq!(after.remove("max_tokens"), Some(7.into()));
            }
            for own in ["model", "stream"] {
                map.remove(own);
            }
            prop_assert_eq!(after, map);
        }

        #[test]
        fn no_text_panics(json in any::<String>()) {
            let _ = rewrite(json.as_bytes(), "m", true, 7);
        }
    }
}
