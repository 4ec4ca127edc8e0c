//! The options of OpenAI and compatible servers.

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::{Addresses, OpenAi};
use crate::{
    config::{self, BuildError, ExtraHeaders},
    secret::ApiKey,
};

const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Options of an [`OpenAi`] codec.
#[derive(Clone, Debug)]
#[must_use]
pub struct OpenAiBuilder {
    flavour: Flavour,
    provider: String,
    base_url: String,
    api_key: Option<ApiKey>,
    headers: ExtraHeaders,
    api_version: String,
    deployment: Option<String>,
    stream_usage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    OpenAi,
    Azure,
    OpenRouter,
    Ollama,
    Compatible,
}

impl OpenAiBuilder {
    fn new(flavour: Flavour, provider: &str, base_url: impl Into<String>) -> Self {
        Self {
            flavour,
            provider: provider.into(),
            base_url: base_url.into(),
            api_key: None,
            headers: ExtraHeaders::default(),
            api_version: "2024-10-21".into(),
            deployment: None,
            stream_usage: true,
        }
    }

    pub(super) fn openai() -> Self {
        Self::new(Flavour::OpenAi, "openai", "https://api.openai.com/v1")
    }

    pub(super) fn azure(endpoint: String) -> Self {
        Self::new(Flavour::Azure, "azure.ai.openai", endpoint)
    }

    pub(super) fn openrouter() -> Self {
        Self::new(
            Flavour::OpenRouter,
            "openrouter",
            "https://openrouter.ai/api/v1",
        )
    }

    pub(super) fn ollama() -> Self {
        Self::new(Flavour::Ollama, "ollama", "http://localhost:11434/v1")
    }

    pub(super) fn compatible(base_url: String) -> Self {
        Self::new(Flavour::Compatible, "openai_compatible", base_url)
    }

    /// The address that `/chat/completions` is appended to; at Azure, the endpoint.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// The key: sent as `Authorization: Bearer`, at Azure as `api-key`.
    pub fn api_key(mut self, key: impl Into<ApiKey>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// The word for this kind of provider in answers, errors and metrics. Default: `openai`,
    /// `azure.ai.openai`, `openrouter`, `ollama` or `openai_compatible`.
    pub fn provider_name(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// The organization that is charged (`OpenAI-Organization`).
    pub fn organization(self, organization: impl Into<String>) -> Self {
        self.header("openai-organization", organization)
    }

    /// The project that is charged (`OpenAI-Project`).
    pub fn project(self, project: impl Into<String>) -> Self {
        self.header("openai-project", project)
    }

    /// The name and address of your application, by which OpenRouter lists it
    /// (<https://openrouter.ai/docs/app-attribution>).
    pub fn application(self, title: impl Into<String>, url: impl Into<String>) -> Self {
        self.header("x-title", title).header("http-referer", url)
    }

    /// Any other header, sent with every request and never printed.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Azure's API version. Default `2024-10-21`, the latest that is no preview
    /// (<https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle>).
    pub fn api_version(mut self, version: impl Into<String>) -> Self {
        self.api_version = version.into();
        self
    }

    /// Azure's deployment, whatever model is asked. Default: the deployment named as the model.
    pub fn deployment(mut self, deployment: impl Into<String>) -> Self {
        self.deployment = Some(deployment.into());
        self
    }

    /// Whether streams are asked to tell their usage (`stream_options.include_usage`). Default yes;
    /// say no for a server that refuses the option, at the price of estimated budgets.
    pub fn stream_usage(mut self, ask: bool) -> Self {
        self.stream_usage = ask;
        self
    }

    /// The codec.
    ///
    /// # Errors
    ///
    /// Which option makes no sense, and why.
    pub fn build(self) -> Result<OpenAi, BuildError> {
        let base = config::base_url(&self.base_url)?;
        if self.provider.is_empty() {
            return Err(BuildError::new("provider_name", "is empty"));
        }
        let mut headers = HeaderMap::with_capacity(8);
        match (&self.api_key, self.flavour) {
            (Some(key), Flavour::Azure) => {
                headers.insert(API_KEY, key.header("")?);
            }
            (Some(key), _) => {
                headers.insert(AUTHORIZATION, key.header("Bearer ")?);
            }
            (None, Flavour::Ollama | Flavour::Compatible) => {}
            (None, _) => return Err(BuildError::new("api_key", "is missing")),
        }
        self.headers.put_into(&mut headers)?;
        let models;
        let addresses = if self.flavour == Flavour::Azure {
            if self.deployment.as_deref() == Some("") {
                return Err(BuildError::new("deployment", "is empty"));
            }
            let version = self.api_version;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if version.is_empty() || !version.chars().all(plain) {
                return Err(BuildError::new("api_version", "is no version"));
            }
            let list = format!("/openai/models?api-version={version}");
            models = config::join(&base, &list)?;
            Addresses::Deployments {
                base: base.into(),
                deployment: self.deployment.map(Into::into),
                version: version.into(),
            }
        } else {
            if self.deployment.is_some() {
                return Err(BuildError::new("deployment", "is only known to Azure"));
            }
            models = config::join(&base, "/models")?;
            Addresses::Fixed {
                chat: config::join(&base, "/chat/completions")?,
                embeddings: config::join(&base, "/embeddings")?,
            }
        };
        Ok(OpenAi {
            provider: self.provider.into(),
            addresses,
            models,
            headers,
            genuine: matches!(self.flavour, Flavour::OpenAi | Flavour::Azure),
            stream_usage: self.stream_usage,
        })
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::{LlmRequest, Message};

    use super::*;
    use crate::codec::Codec;

    fn address(builder: OpenAiBuilder) -> String {
        let request = LlmRequest::chat("gpt 4/o", [Message::user("hi")]);
        let codec = builder.build().expect("valid");
        codec.encode(&request).expect("encoded").uri().to_string()
    }

    #[test]
    fn each_server_has_its_address() {
        for (builder, expected) in [
            (
                OpenAi::builder().api_key("k"),
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                OpenAi::azure("https://x.openai.azure.com/").api_key("k"),
                "https://x.openai.azure.com/openai/deployments/gpt%204%2Fo/chat/completions?api-version=2024-10-21",
            ),
            (
                OpenAi::azure("https://x.openai.azure.com")
                    .api_key("k")
                    .deployment("d")
                    .api_version("2025-01-01-preview"),
                "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2025-01-01-preview",
            ),
            (
                OpenAi::openrouter().api_key("k"),
                "https://openrouter.ai/api/v1/chat/completions",
            ),
            (
                OpenAi::ollama(),
                "http://localhost:11434/v1/chat/completions",
            ),
            (
                OpenAi::compatible("http://h:1/x/"),
                "http://h:1/x/chat/completions",
            ),
        ] {
            assert_eq!(address(builder), expected);
        }
    }

    #[test]
    fn each_server_has_its_headers() {
        let request = LlmRequest::chat("m", [Message::user("hi")]);
        let headers = |builder: OpenAiBuilder| {
            let codec = builder.build().expect("valid");
            assert!(
                !format!("{codec:?}").contains("sk-1"),
                "the key is never printed"
            );
            codec.encode(&request).expect("encoded").headers().clone()
        };
        let openai = headers(OpenAi::builder().api_key("sk-1").organization("o"));
        assert_eq!(openai["authorization"], "Bearer sk-1");
        assert_eq!(openai["openai-organization"], "o");
        assert_eq!(openai["content-type"], "application/json");
        let azure = headers(OpenAi::azure("https://x.y").api_key("sk-1"));
        assert_eq!(azure["api-key"], "sk-1");
        assert!(!azure.contains_key("authorization"));
        let router = headers(
            OpenAi::openrouter()
                .api_key("sk-1")
                .application("App", "https://a.b"),
        );
        assert_eq!(
            (&router["x-title"], &router["http-referer"]),
            (
                &"App".parse().expect("a value"),
                &"https://a.b".parse().expect("a value")
            )
        );
        assert!(!headers(OpenAi::ollama()).contains_key("authorization"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (builder, field) in [
            (OpenAi::builder(), "api_key"),
            (OpenAi::builder().api_key("a\nb"), "api_key"),
            (OpenAi::azure("https://x.y"), "api_key"),
            (OpenAi::compatible("nowhere"), "base_url"),
            (
                OpenAi::azure("https://x.y").api_key("k").api_version("a b"),
                "api_version",
            ),
            (
                OpenAi::azure("https://x.y").api_key("k").deployment(""),
                "deployment",
            ),
            (OpenAi::ollama().deployment("d"), "deployment"),
            (OpenAi::ollama().provider_name(""), "provider_name"),
            (OpenAi::ollama().header("a b", "c"), "header(a b)"),
        ] {
            assert_eq!(builder.build().expect_err(field).field(), field);
        }
    }
}
