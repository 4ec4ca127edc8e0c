//! The options of Ollama.

use http::{HeaderMap, header::AUTHORIZATION};

use super::Ollama;
use crate::{
    config::{self, BuildError, ExtraHeaders},
    secret::ApiKey,
};

/// Options of an [`Ollama`] codec.
#[derive(Clone, Debug)]
#[must_use]
pub struct OllamaBuilder {
    provider: String,
    base_url: String,
    api_key: Option<ApiKey>,
    keep_alive: Option<String>,
    headers: ExtraHeaders,
}

impl OllamaBuilder {
    pub(super) fn new() -> Self {
        Self {
            provider: "ollama".into(),
            base_url: "http://localhost:11434".into(),
            api_key: None,
            keep_alive: None,
            headers: ExtraHeaders::default(),
        }
    }

    /// The address that `/api/chat` and `/api/embed` are appended to; one that ends in `/api`, or in
    /// the `/v1` of the compatible endpoint, is understood as well.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// The key, sent as `Authorization: Bearer`; a server of one's own wants none.
    pub fn api_key(mut self, key: impl Into<ApiKey>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// The word for this kind of provider in answers, errors and metrics. Default `ollama`.
    pub fn provider_name(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// How long the server keeps the model in memory after a call, as it writes times (`10m`, `24h`,
    /// `-1` for ever, `0` not at all), where a request does not say. Default: the server's, five minutes.
    pub fn keep_alive(mut self, time: impl Into<String>) -> Self {
        self.keep_alive = Some(time.into());
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
    pub fn build(self) -> Result<Ollama, BuildError> {
        let base = config::base_url(&self.base_url)?;
        let ends = ["/api", "/v1"];
        let base = ends
            .iter()
            .find_map(|end| base.strip_suffix(end))
            .unwrap_or(&base);
        if self.provider.is_empty() {
            return Err(BuildError::new("provider_name", "is empty"));
        }
        if self
            .keep_alive
            .as_deref()
            .is_some_and(|time| !is_time(time))
        {
            return Err(BuildError::new("keep_alive", "is no time"));
        }
        let mut headers = HeaderMap::with_capacity(8);
        if let Some(key) = &self.api_key {
            headers.insert(AUTHORIZATION, key.header("Bearer ")?);
        }
        self.headers.put_into(&mut headers)?;
        Ok(Ollama {
            provider: self.provider.into(),
            chat: config::join(base, "/api/chat")?,
            embed: config::join(base, "/api/embed")?,
            models: config::join(base, "/api/tags")?,
            headers,
            keep_alive: self.keep_alive.map(Into::into),
        })
    }
}

/// Whether `text` is a time as Go writes it, or a number of seconds.
fn is_time(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    crate::hints::duration(text).is_some()
}

#[cfg(test)]
mod tests {
    use donjon_core::{LlmRequest, Message};

    use super::*;
    use crate::codec::Codec;

    #[test]
    fn addresses_and_headers() {
        let chat = LlmRequest::chat("m", [Message::user("hi")]);
        let embed = LlmRequest::embed("m", ["hi"]);
        for base in [
            "http://h:1",
            "http://h:1/",
            "http://h:1/api",
            "http://h:1/v1/",
        ] {
            let codec = Ollama::builder().base_url(base).api_key("sk-1");
            let codec = codec.build().expect("valid");
            assert!(!format!("{codec:?}").contains("sk-1"));
            let chat = codec.encode(&chat).expect("encoded");
            assert_eq!(chat.uri(), "http://h:1/api/chat");
            assert_eq!(chat.headers()["authorization"], "Bearer sk-1");
            let embed = codec.encode(&embed).expect("encoded");
            assert_eq!(embed.uri(), "http://h:1/api/embed");
        }
        let codec = Ollama::builder().build().expect("valid");
        let request = codec.encode(&chat).expect("encoded");
        assert_eq!(request.uri(), "http://localhost:11434/api/chat");
        assert!(!request.headers().contains_key("authorization"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let builder = Ollama::builder;
        for (builder, field) in [
            (builder().base_url("h"), "base_url"),
            (builder().api_key(""), "api_key"),
            (builder().provider_name(""), "provider_name"),
            (builder().keep_alive("soon"), "keep_alive"),
            (builder().header("a b", "c"), "header(a b)"),
        ] {
            assert_eq!(builder.build().expect_err(field).field(), field);
        }
        for time in ["10m", "-1", "0", "1h30m", "-1m"] {
            builder().keep_alive(time).build().expect(time);
        }
    }
}
