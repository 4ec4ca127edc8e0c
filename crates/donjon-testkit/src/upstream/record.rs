//! What the upstream saw.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

/// Which provider's API a call was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// `POST …/chat/completions` and `POST …/embeddings`: OpenAI, Azure OpenAI, OpenRouter, Ollama and everything compatible.
    OpenAi,
    /// `POST …/messages`: Anthropic.
    Anthropic,
    /// `POST …/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`: Gemini.
    Gemini,
    /// `POST …/api/chat` and `POST …/api/embed`: Ollama's own API.
    Ollama,
}

impl Dialect {
    /// That of a call, by its path without the query.
    pub(super) fn of(path: &str) -> Option<Self> {
        let is = |end: &str| path.ends_with(end);
        if is("/chat/completions") || is("/embeddings") {
            Some(Self::OpenAi)
        } else if is("/messages") {
            Some(Self::Anthropic)
        } else if is(":generateContent") || is(":streamGenerateContent") {
            Some(Self::Gemini)
        } else if is("/api/chat") || is("/api/embed") {
            Some(Self::Ollama)
        } else {
            None
        }
    }
}

/// One request as it arrived.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// Counts the calls from 0, in the order in which their bodies were complete.
    pub number: usize,
    /// Counts the accepted connections from 0.
    pub connection: usize,
    /// The API it was made in.
    pub dialect: Dialect,
    /// The method.
    pub method: Method,
    /// HTTP/1 or HTTP/2.
    pub version: Version,
    /// Path and query, as sent.
    pub path: String,
    /// The headers; names are lower case, and keys hide in `Debug`.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// The parsed body; `Null` when it is not JSON.
    pub json: Value,
    /// When its head had arrived.
    pub at: Instant,
}

impl Request {
    /// The value of a header, if it was sent once or more and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The model asked for; Gemini's as it stands in the path, and for an Azure path without one in the body the deployment.
    pub fn model(&self) -> Option<&str> {
        if self.dialect == Dialect::Gemini {
            let (model, _) = self.path.rsplit('/').next()?.split_once(':')?;
            return Some(model);
        }
        let deployment = || {
            let (_, rest) = self.path.split_once("/deployments/")?;
            rest.split('/').next()
        };
        self.json["model"].as_str().or_else(deployment)
    }

    /// Whether a stream was asked for, as Ollama's chats are unless they say otherwise.
    pub fn streamed(&self) -> bool {
        match self.dialect {
            Dialect::OpenAi | Dialect::Anthropic => self.json["stream"] == true,
            Dialect::Gemini => self.bare_path().ends_with(":streamGenerateContent"),
            Dialect::Ollama => !self.embeds() && self.json["stream"] != false,
        }
    }

    /// Whether embeddings were asked for (`POST …/embeddings` or `POST …/api/embed`).
    pub fn embeds(&self) -> bool {
        let path = self.bare_path();
        path.ends_with("/embeddings") || path.ends_with("/api/embed")
    }

    /// The path without the query.
    fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Whether usage was asked for in the stream (`stream_options.include_usage`).
    pub fn wants_usage(&self) -> bool {
        self.json["stream_options"]["include_usage"] == true
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The whole response was handed to the connection.
    Completed,
    /// The script broke it off: reset, closed, cut or answered with garbage.
    Broken,
    /// The peer closed the connection or reset the stream before the end.
    PeerLeft,
}

/// The end of an exchange and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// How it ended.
    pub how: End,
    /// When it was noticed.
    pub at: Instant,
}

/// One call: its request, how much of the answer went out, and its end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// The request.
    pub request: Arc<Request>,
    /// Tokens (deltas of any kind) handed to the connection so far; stays 0 for a unary answer.
    pub sent: usize,
    /// `None` while it is in progress.
    pub ended: Option<Ended>,
}

impl Call {
    /// How it ended, or `None` while it is in progress.
    pub fn end(&self) -> Option<End> {
        self.ended.map(|ended| ended.how)
    }
}

/// Everything seen so far.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Seen {
    /// The calls in order of arrival. Model listings and unknown paths are not among them.
    pub calls: Vec<Call>,
    /// How often the models were listed, or that was refused.
    pub listings: usize,
    /// Calls in progress now.
    pub in_progress: usize,
    /// The most calls that were ever in progress together.
    pub peak: usize,
    /// Connections accepted so far.
    pub accepted: usize,
    /// Connections open now.
    pub open: usize,
}

impl Seen {
    /// How many calls the peer abandoned.
    pub fn cancelled(&self) -> usize {
        self.ended(End::PeerLeft)
    }

    /// How many calls ended in this way.
    pub fn ended(&self, how: End) -> usize {
        self.calls
            .iter()
            .filter(|call| call.end() == Some(how))
            .count()
    }
}

/// The one place where the upstream writes down what it sees; waiters are woken by each entry.
pub(super) type Log = watch::Sender<Seen>;

/// A connection that is open while this lives.
pub(super) struct OpenConnection {
    log: Arc<Log>,
    pub(super) number: usize,
}

impl OpenConnection {
    pub(super) fn new(log: Arc<Log>) -> Self {
        let mut number = 0;
        log.send_modify(|seen| {
            number = seen.accepted;
            seen.accepted += 1;
            seen.open += 1;
        });
        Self { log, number }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.log.send_modify(|seen| seen.open -= 1);
    }
}

/// A call in progress. Dropped before an end was told, it is the peer who left: hyper drops the work for a call exactly
/// when its connection or stream is gone.
pub(super) struct Exchange {
    log: Arc<Log>,
    pub(super) request: Arc<Request>,
    ended: bool,
}

impl Exchange {
    pub(super) fn begin(log: Arc<Log>, mut request: Request) -> Self {
        for secret in [
            header::AUTHORIZATION.as_str(),
            "x-api-key",
            "api-key",
            "x-goog-api-key",
        ] {
            if let Some(value) = request.headers.get_mut(secret) {
                value.set_sensitive(true);
            }
        }
        let mut shared = None;
        log.send_modify(|seen| {
            request.number = seen.calls.len();
            let request = Arc::new(request);
            seen.calls.push(Call {
                request: Arc::clone(&request),
                sent: 0,
                ended: None,
            });
            seen.in_progress += 1;
            seen.peak = seen.peak.max(seen.in_progress);
            shared = Some(request);
        });
        let request = shared.expect("send_modify runs its closure");
        Self {
            log,
            request,
            ended: false,
        }
    }

    pub(super) fn sent(&self, tokens: usize) {
        if tokens > 0 {
            self.log
                .send_modify(|seen| seen.calls[self.request.number].sent += tokens);
        }
    }

    pub(super) fn end(&mut self, how: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let at = Instant::now();
        self.log.send_modify(|seen| {
            seen.calls[self.request.number].ended = Some(Ended { how, at });
            seen.in_progress -= 1;
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(End::PeerLeft);
    }
}
