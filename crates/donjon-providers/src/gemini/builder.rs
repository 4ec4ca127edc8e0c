//! The options of Gemini.

use http::{HeaderMap, HeaderName};

use super::Gemini;
use crate::{
    config::{self, BuildError, ExtraHeaders},
    secret::ApiKey,
};

const API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Options of a [`Gemini`] codec.
#[derive(Clone, Debug)]
#[must_use]
pub struct GeminiBuilder {
    provider: String,
    base_url: String,
    api_key: Option<ApiKey>,
    headers: ExtraHeaders,
}

impl GeminiBuilder {
    pub(super) fn new() -> Self {
        Self {
            provider: "gcp.gemini".into(),
            base_url: "https://generativelanguage.googleapis.com/v1beta".into(),
            api_key: None,
            headers: ExtraHeaders::default(),
        }
    }

    /// The address, version included, that `/models/…` is appended to.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// The key, sent as `x-goog-api-key` and never in an address.
    pub fn api_key(mut self, key: impl Into<ApiKey>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// The word for this kind of provider in answers, errors and metrics. Default `gcp.gemini`, as
    /// OpenTelemetry has it.
    pub fn provider_name(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// Any other header, sent with every request and never printed.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The codec.
    ///
    /// # Errors
    ///
    /// Which option makes no sense, and why.
    pub fn build(self) -> Result<Gemini, BuildError> {
        let base = config::base_url(&self.base_url)?;
        if self.provider.is_empty() {
            return Err(BuildError::new("provider_name", "is empty"));
        }
        let Some(key) = self.api_key else {
            return Err(BuildError::new("api_key", "is missing"));
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(API_KEY, key.header("")?);
        self.headers.put_into(&mut headers)?;
        Ok(Gemini {
            provider: self.provider.into(),
            models: config::join(&base, "/models")?,
            base: base.into(),
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::{LlmRequest, Message};

    use super::*;
    use crate::codec::Codec;

    #[test]
    fn addresses_and_headers() {
        let codec = Gemini::builder().api_key("sk-1").build().expect("valid");
        assert!(!format!("{codec:?}").contains("sk-1"));
        let base = "https://generativelanguage.googleapis.com/v1beta/";
        for (model, stream, path) in [
            ("g-1", false, "models/g-1:generateContent"),
            ("models/g-1", false, "models/g-1:generateContent"),
            ("tunedModels/g", false, "tunedModels/g:generateContent"),
            (
                "a b?",
                true,
                "models/a%20b%3F:streamGenerateContent?alt=sse",
            ),
        ] {
            let mut request = LlmRequest::chat(model, [Message::user("hi")]);
            if stream {
                request = request.streamed();
            }
            let request = codec.encode(&request).expect("encoded");
            assert_eq!(request.uri().to_string(), format!("{base}{path}"));
            assert_eq!(request.headers()["x-goog-api-key"], "sk-1");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let keyed = || Gemini::builder().api_key("k");
        for (builder, field) in [
            (Gemini::builder(), "api_key"),
            (keyed().api_key(""), "api_key"),
            (keyed().base_url("h"), "base_url"),
            (keyed().provider_name(""), "provider_name"),
            (keyed().header("a b", "c"), "header(a b)"),
        ] {
            assert_eq!(builder.build().expect_err(field).field(), field);
        }
    }
}
