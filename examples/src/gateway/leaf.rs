//! The services of the providers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use donjon::{
    BoxLlmService, ErrorKind, LlmError,
    providers::{
        Anthropic, BuildError, Codec, Gemini, Ollama, OpenAi, OpenAiBuilder, Provider,
        transport::{HttpClient, HttpClientBuilder},
    },
};
use donjon_testkit::{Script, ScriptedLlm};
use futures_util::{FutureExt, future::BoxFuture};

use super::config::{Config, ConfigError, Kind, Provider as Said};

/// What the scripted providers answer.
const ANSWER: &str =
    "A donjon is the great tower of a castle: the keep that stands when the walls do not.";

/// The service of a provider, and how it is looked at.
pub(super) struct Leaf {
    pub(super) service: BoxLlmService,
    /// `None`: there is nothing to look at.
    pub(super) probe: Option<Probe>,
}

/// Lists the models of a provider.
pub(super) type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), LlmError>> + Send + Sync>;

pub(super) fn build_all(config: &Config) -> Result<BTreeMap<String, Leaf>, ConfigError> {
    let each = config.providers.iter();
    each.map(|(name, said)| Ok((name.clone(), build(name, said, config)?)))
        .collect()
}

fn build(name: &str, said: &Said, config: &Config) -> Result<Leaf, ConfigError> {
    let path = |field: &str| format!("providers.{name}.{field}");
    let fault = |error: BuildError| ConfigError::new(path(error.field()), error);
    let (url, key) = (said.base_url.as_deref(), said.api_key.as_ref());
    match said.kind {
        Kind::Scripted => Ok(Leaf {
            service: scripted(said.fail_every),
            probe: None,
        }),
        Kind::Anthropic => {
            let mut codec = Anthropic::builder();
            if let Some(url) = url {
                codec = codec.base_url(url);
            }
            if let Some(key) = key {
                codec = codec.api_key(key.reveal());
            }
            leaf(codec.build().map_err(fault)?, name, said, config)
        }
        Kind::Gemini => {
            let mut codec = Gemini::builder();
            if let Some(url) = url {
                codec = codec.base_url(url);
            }
            if let Some(key) = key {
                codec = codec.api_key(key.reveal());
            }
            leaf(codec.build().map_err(fault)?, name, said, config)
        }
        Kind::OllamaNative => {
            let mut codec = Ollama::builder();
            if let Some(url) = url {
                codec = codec.base_url(url);
            }
            if let Some(key) = key {
                codec = codec.api_key(key.reveal());
            }
            leaf(codec.build().map_err(fault)?, name, said, config)
        }
        kind => leaf(
            openai(kind, said).build().map_err(fault)?,
            name,
            said,
            config,
        ),
    }
}

fn leaf<C>(codec: C, name: &str, said: &Said, config: &Config) -> Result<Leaf, ConfigError>
where
    C: Codec + Clone + Send + Sync + 'static,
    C::Decoder: Send + 'static,
{
    let built = |client: HttpClientBuilder| {
        client.build().map_err(|error| {
            let path = format!("providers.{name}.{}", error.field());
            ConfigError::new(path, error)
        })
    };
    // It has connections of its own, so that a provider with all the calls it may have still shows that
    // it is there.
    let looked_at = Provider::new(codec.clone(), built(plain_client(config))?);
    Ok(Leaf {
        service: BoxLlmService::new(Provider::new(codec, built(client(said, config))?)),
        probe: Some(Arc::new(move || looked_at.probe().boxed())),
    })
}

fn openai(kind: Kind, said: &Said) -> OpenAiBuilder {
    let url = said.base_url.clone();
    let mut codec = match (kind, url.clone()) {
        (Kind::AzureOpenAi, Some(url)) => OpenAi::azure(url),
        (Kind::OpenRouter, _) => OpenAi::openrouter(),
        (Kind::Ollama, _) => OpenAi::ollama(),
        _ => OpenAi::builder(),
    };
    if let Some(url) = url {
        codec = codec.base_url(url);
    }
    if let Some(key) = &said.api_key {
        codec = codec.api_key(key.reveal());
    }
    if let Some(version) = &said.api_version {
        codec = codec.api_version(version);
    }
    codec
}

fn client(said: &Said, config: &Config) -> HttpClientBuilder {
    let client = plain_client(config);
    match said.max_connections {
        Some(most) => client.max_connections_per_host(most as usize),
        None => client,
    }
}

fn plain_client(config: &Config) -> HttpClientBuilder {
    let client = HttpClient::builder();
    match config.timeout.connect {
        Some(limit) => client.connect_timeout(limit.0),
        None => client,
    }
}

/// A model that makes its answer up, word by word, and fails every `fail_every`th call.
fn scripted(fail_every: Option<u32>) -> BoxLlmService {
    let calls = std::sync::atomic::AtomicU32::new(0);
    BoxLlmService::new(ScriptedLlm::from_fn(move |_| {
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        match fail_every {
            Some(every) if call.is_multiple_of(every) => Script::fail(LlmError::new(
                ErrorKind::Overloaded,
                "this one fails now and then",
            )),
            _ => Script::answer(ANSWER).gap(Duration::from_millis(20)),
        }
    }))
}
