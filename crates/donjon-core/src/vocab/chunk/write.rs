//! Writing a chunk in the words of OpenAI.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{ChoiceDelta, Chunk};
use crate::vocab::json::Extra;

impl Serialize for Chunk {
    /// Writes an OpenAI chunk. Members that came on an OpenAI wire and have no field survive.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members: Extra = self
            .openai_wire()
            .and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.delta.id.as_deref().unwrap_or_default())?;
        map.serialize_entry("object", "chat.completion.chunk")?;
        map.serialize_entry("created", &self.delta.created.unwrap_or(0))?;
        map.serialize_entry("model", self.delta.model.as_deref().unwrap_or_default())?;
        map.serialize_entry("choices", &self.delta.choices[..])?;
        if let Some(usage) = &self.delta.usage {
            // Unchanged, it goes out with all that the provider put there.
            match members.get("usage") {
                Some(raw) if members.read("usage") == Some(*usage) => {
                    map.serialize_entry("usage", raw)?;
                }
                _ => map.serialize_entry("usage", usage)?,
            }
        }
        for (key, value) in members.iter() {
            if !KNOWN.contains(&key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// The members of a chunk that have fields.
pub(in crate::vocab) const KNOWN: [&str; 6] =
    ["id", "object", "created", "model", "choices", "usage"];

impl Serialize for ChoiceDelta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Inner<'a>(&'a ChoiceDelta);
        impl Serialize for Inner<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let choice = self.0;
                let mut map = serializer.serialize_map(None)?;
                if let Some(role) = &choice.role {
                    map.serialize_entry("role", role)?;
                }
                if let Some(content) = &choice.content {
                    map.serialize_entry("content", content)?;
                }
                if let Some(reasoning) = &choice.reasoning {
                    map.serialize_entry("reasoning_content", reasoning)?;
                }
                if let Some(refusal) = &choice.refusal {
                    map.serialize_entry("refusal", refusal)?;
                }
                if !choice.tool_calls.is_empty() {
                    map.serialize_entry("tool_calls", &choice.tool_calls)?;
                }
                choice.extra.write(&mut map)?;
                map.end()
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &self.index)?;
        map.serialize_entry("delta", &Inner(self))?;
        if let Some(logprobs) = &self.logprobs {
            map.serialize_entry("logprobs", logprobs)?;
        }
        map.serialize_entry("finish_reason", &self.finish_reason)?;
        self.beside.write(&mut map)?;
        map.end()
    }
}
