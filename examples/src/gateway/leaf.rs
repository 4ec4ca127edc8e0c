//! The services of the providers.

use std::{collections::BTreeMap, time::Duration};

use donjon::{
    BoxLlmService, ErrorKind, LlmError,
    providers::{
        Anthropic, Gemini, Ollama, OpenAi, OpenAiBuilder, Provider,
        transport::{HttpClient, HttpClientBuilder},
    },
};
use donjon_testkit::{Script, ScriptedLlm};

use super::config::{Config, ConfigError, Kind, Provider as Said};

/// What the scripted providers answer.
const ANSWER: &str =
    "A donjon is the great tower of a castle: the keep that stands when the walls do not.";

pub(super) fn build_all(config: &Config) -> Result<BTreeMap<String, BoxLlmService>, ConfigError> {
    let each = config.providers.iter();
    each.map(|(name, said)| Ok((name.clone(), build(name, said, config)?)))
        .collect()
}

fn build(name: &str, said: &Said, config: &Config) -> Result<BoxLlmService, ConfigError> {
    let path = |field: &str| format!("providers.{name}.{field}");
    let client = || {
        client(said, config)
            .build()
            .map_err(|error| ConfigError::new(path(error.field()), error))
    };
    Ok(match said.kind {
        Kind::Scripted => scripted(said.fail_every),
        Kind::Anthropic => {
            let mut codec = Anthropic::builder();
            if let Some(url) = &said.base_url {
                codec = codec.base_url(url);
            }
            if let Some(key) = &said.api_key {
                codec = codec.api_key(key.reveal());
            }
            let codec = codec
                .build()
                .map_err(|error| ConfigError::new(path(error.field()), error))?;
            BoxLlmService::new(Provider::new(codec, client()?))
        }
        Kind::Gemini => {
            let mut codec = Gemini::builder();
            if let Some(url) = &said.base_url {
                codec = codec.base_url(url);
            }
            if let Some(key) = &said.api_key {
                codec = codec.api_key(key.reveal());
            }
            let codec = codec
                .build()
                .map_err(|error| ConfigError::new(path(error.field()), error))?;
            BoxLlmService::new(Provider::new(codec, client()?))
        }
        Kind::OllamaNative => {
            let mut codec = Ollama::builder();
            if let Some(url) = &said.base_url {
                codec = codec.base_url(url);
            }
            if let Some(key) = &said.api_key {
                codec = codec.api_key(key.reveal());
            }
            let codec = codec
                .build()
                .map_err(|error| ConfigError::new(path(error.field()), error))?;
            BoxLlmService::new(Provider::new(codec, client()?))
        }
        kind => {
            let codec = openai(kind, said)
                .build()
                .map_err(|error| ConfigError::new(path(error.field()), error))?;
            BoxLlmService::new(Provider::new(codec, client()?))
        }
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
    let mut client = HttpClient::builder();
    if let Some(limit) = config.timeout.connect {
        client = client.connect_timeout(limit.0);
    }
    if let Some(most) = said.max_connections {
        client = client.max_connections_per_host(most as usize);
    }
    client
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
