//! Which endpoint a path means.

use std::borrow::Cow;

use http::Method;

/// The API whose words a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    OpenAi,
    Anthropic,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Chat,
    Messages,
    Embeddings,
    Models,
    Model(Cow<'a, str>),
    Health,
    Live,
    Ready,
}

impl<'a> Route<'a> {
    /// The endpoint at `path`, below `prefix`; the version segment may be missing, as it is when a
    /// router has nested the service there and taken it off.
    pub(crate) fn find(prefix: &str, path: &'a str) -> Option<Self> {
        // Every path below begins with a slash, so a prefix can only end where a segment does.
        let path = path.strip_prefix(prefix)?;
        let path = path.strip_prefix("/v1").unwrap_or(path);
        if let Some(id) = path.strip_prefix("/models/").filter(|id| !id.is_empty()) {
            return Some(Self::Model(percent_decoded(id)));
        }
        Some(match path.strip_suffix('/').unwrap_or(path) {
            "/chat/completions" => Self::Chat,
            "/messages" => Self::Messages,
            "/embeddings" => Self::Embeddings,
            "/models" => Self::Models,
            "/health" => Self::Health,
            "/health/live" => Self::Live,
            "/health/ready" => Self::Ready,
            _ => return None,
        })
    }

    /// The API that the endpoint belongs to, where it belongs to one.
    pub(crate) fn api(&self) -> Option<Api> {
        match self {
            Self::Chat | Self::Embeddings => Some(Api::OpenAi),
            Self::Messages => Some(Api::Anthropic),
            _ => None,
        }
    }

    /// The methods that it answers, as `Allow` lists them.
    pub(crate) fn allow(&self) -> &'static str {
        match self {
            Self::Chat | Self::Messages | Self::Embeddings => "POST",
            _ => "GET, HEAD",
        }
    }

    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| method == allowed)
    }
}

/// `text` with its percent-encoded bytes decoded, as far as that makes UTF-8: names of models hold
/// slashes, and clients encode them.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map_or(text.into(), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_version_and_prefix() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/v1/chat/completions/",
        ] {
            assert_eq!(Route::find("", path), Some(Route::Chat), "{path}");
        }
        assert_eq!(
            Route::find("/llm", "/llm/v1/messages"),
            Some(Route::Messages)
        );
        assert_eq!(Route::find("/llm", "/llm/health"), Some(Route::Health));
        for path in ["/v1/messages", "/llmv1/messages", "/llm"] {
            assert_eq!(Route::find("/llm", path), None, "{path}");
        }
        for path in [
            "/",
            "",
            "/v1",
            "/v1/",
            "/v1x/messages",
            "/v1/messages/batches",
        ] {
            assert_eq!(Route::find("", path), None, "{path}");
        }
    }

    #[test]
    fn names_of_models_are_decoded() {
        let model = |path| match Route::find("", path) {
            Some(Route::Model(id)) => id.into_owned(),
            other => panic!("{path} is {other:?}"),
        };
        assert_eq!(model("/v1/models/gpt-4o"), "gpt-4o");
        assert_eq!(model("/v1/models/meta-llama/llama-3"), "meta-llama/llama-3");
        assert_eq!(
            model("/v1/models/meta-llama%2Fllama-3"),
            "meta-llama/llama-3"
        );
        assert_eq!(model("/v1/models/50%"), "50%");
        assert_eq!(model("/v1/models/%ff%zz"), "%ff%zz");
        assert_eq!(Route::find("", "/v1/models/"), Some(Route::Models));
    }

    #[test]
    fn methods() {
        assert!(Route::Chat.allows(&Method::POST));
        assert!(!Route::Chat.allows(&Method::GET));
        assert!(Route::Live.allows(&Method::HEAD));
        assert!(!Route::Models.allows(&Method::POST));
    }
}
