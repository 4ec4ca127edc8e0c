//! The list of models, in the words of both APIs.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::route::Api;

/// The models that callers are told of; the lists are written once.
pub(crate) struct Models {
    ids: Vec<Arc<str>>,
    openai: Bytes,
    anthropic: Bytes,
}

impl Default for Models {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Models {
    pub(crate) fn new(ids: Vec<Arc<str>>) -> Self {
        Self {
            openai: json(&OpenAiList {
                object: "list",
                data: ids.iter().map(|id| OpenAi::new(id)).collect(),
            }),
            anthropic: json(&AnthropicList {
                data: ids.iter().map(|id| Anthropic::new(id)).collect(),
                has_more: false,
                first_id: ids.first().map(|id| &**id),
                last_id: ids.last().map(|id| &**id),
            }),
            ids,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn list(&self, api: Api) -> Bytes {
        match api {
            Api::OpenAi => self.openai.clone(),
            Api::Anthropic => self.anthropic.clone(),
        }
    }

    pub(crate) fn one(&self, api: Api, id: &str) -> Option<Bytes> {
        let id = self.ids.iter().find(|known| &***known == id)?;
        Some(match api {
            Api::OpenAi => json(&OpenAi::new(id)),
            Api::Anthropic => json(&Anthropic::new(id)),
        })
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// <https://platform.openai.com/docs/api-reference/models/list>
#[derive(Serialize)]
struct OpenAiList<'a> {
    object: &'static str,
    data: Vec<OpenAi<'a>>,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl<'a> OpenAi<'a> {
    fn new(id: &'a str) -> Self {
        Self {
            id,
            object: "model",
            created: 0,
            owned_by: "donjon",
        }
    }
}

/// <https://docs.anthropic.com/en/api/models-list>
#[derive(Serialize)]
struct AnthropicList<'a> {
    data: Vec<Anthropic<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: &'static str,
}

impl<'a> Anthropic<'a> {
    fn new(id: &'a str) -> Self {
        Self {
            r#type: "model",
            id,
            display_name: id,
            // The date of a model that is not known, by that page.
            created_at: "1970-01-01T00:00:00Z",
        }
    }
}
