//! The options of Anthropic.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Anthropic;
use crate::{
    config::{self, BuildError, ExtraHeaders},
    secret::ApiKey,
};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Options of an [`Anthropic`] codec.
#[derive(Clone, Debug)]
#[must_use]
pub struct AnthropicBuilder {
    provider: String,
    base_url: String,
    api_key: Option<ApiKey>,
    version: String,
    max_tokens: u64,
    headers: ExtraHeaders,
}

impl AnthropicBuilder {
    pub(super) fn new() -> Self {
        Self {
            provider: "anthropic".into(),
            base_url: "https://api.anthropic.com".into(),
            api_key: None,
            version: "2023-06-01".into(),
            max_tokens: 4096,
            headers: ExtraHeaders::default(),
        }
    }

    /// The address that `/v1/messages` is appended to; one that ends in `/v1` is understood as well.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// The key, sent as `x-api-key`.
    pub fn api_key(mut self, key: impl Into<ApiKey>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// The word for this kind of provider in answers, errors and metrics. Default `anthropic`.
    pub fn provider_name(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// The API version (`anthropic-version`). Default `2023-06-01`, the only one there is.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The most tokens of an answer where a request sets no limit: the API wants one. Default 4096.
    pub fn max_tokens(mut self, tokens: u64) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// Features in beta to turn on (`anthropic-beta`), separated by commas.
    pub fn beta(self, features: impl Into<String>) -> Self {
        self.header("anthropic-beta", features)
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
    pub fn build(self) -> Result<Anthropic, BuildError> {
        let base = config::base_url(&self.base_url)?;
        let base = base.strip_suffix("/v1").unwrap_or(&base);
        if self.provider.is_empty() {
            return Err(BuildError::new("provider_name", "is empty"));
        }
        if self.max_tokens == 0 {
            return Err(BuildError::new("max_tokens", "is zero"));
        }
        let Some(key) = self.api_key else {
            return Err(BuildError::new("api_key", "is missing"));
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(API_KEY, key.header("")?);
        let version = HeaderValue::try_from(&self.version)
            .map_err(|error| BuildError::new("version", "is no version").because(error))?;
        headers.insert(VERSION, version);
        self.headers.put_into(&mut headers)?;
        Ok(Anthropic {
            provider: self.provider.into(),
            messages: config::join(base, "/v1/messages")?,
            models: config::join(base, "/v1/models")?,
            headers,
            max_tokens: self.max_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::{LlmRequest, Message};

    use super::*;
    use crate::codec::Codec;

    #[test]
    fn address_and_headers() {
        let request = LlmRequest::chat("m", [Message::user("hi")]);
        for base in ["https://h", "https://h/", "https://h/v1", "https://h/v1/"] {
            let codec = Anthropic::builder()
                .base_url(base)
                .api_key("sk-1")
                .beta("a,b");
            let codec = codec.build().expect("valid");
            assert!(
                !format!("{codec:?}").contains("sk-1"),
                "the key is never printed"
            );
            let request = codec.encode(&request).expect("encoded");
            assert_eq!(request.uri(), "https://h/v1/messages");
            assert_eq!(request.headers()["x-api-key"], "sk-1");
            assert_eq!(request.headers()["anthropic-version"], "2023-06-01");
            assert_eq!(request.headers()["anthropic-beta"], "a,b");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let keyed = || Anthropic::builder().api_key("k");
        for (builder, field) in [
            (Anthropic::builder(), "api_key"),
            (keyed().api_key(""), "api_key"),
            (keyed().base_url("h"), "base_url"),
            (keyed().max_tokens(0), "max_tokens"),
            (keyed().version("a\nb"), "version"),
            (keyed().provider_name(""), "provider_name"),
        ] {
            assert_eq!(builder.build().expect_err(field).field(), field);
        }
    }
}
