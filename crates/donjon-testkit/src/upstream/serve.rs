//! Serves one connection: reads requests, writes them down, picks a script for each and has it played.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::failure::Failure;
use super::form::{Form, form};
use super::line::{Control, Io, Line};
use super::play::{ScriptBody, aside, play};
use super::record::{Dialect, Exchange, Log, OpenConnection, Request};
use super::script::Script;

/// Larger than any provider takes (Anthropic: 32 MB), so that a runaway test fails rather than eats the machine.
const BODY_LIMIT: usize = 64 << 20;

/// Picks a script for a request.
pub(super) type Respond = Box<dyn Fn(&Request) -> Script + Send + Sync>;

/// What all connections share.
pub(super) struct Shared {
    pub(super) log: Arc<Log>,
    pub(super) queue: Mutex<VecDeque<Script>>,
    pub(super) respond: Option<Respond>,
    pub(super) otherwise: Script,
    pub(super) models: Vec<String>,
    /// What a listing of the models is refused with.
    pub(super) refusal: Mutex<Option<Failure>>,
    pub(super) api_key: Option<String>,
    pub(super) lenient: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("log", &self.log)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Serves HTTP/1 or HTTP/2, whichever the peer speaks, until either side closes.
pub(super) async fn connection(shared: Arc<Shared>, open: OpenConnection, io: Io) {
    let line = Line::new(io);
    let control = line.control();
    let number = open.number;
    let service = service_fn(move |request| {
        exchange(Arc::clone(&shared), Arc::clone(&control), number, request)
    });
    // How it ends is written down call by call; an error here says nothing more.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(line), service)
        .await;
    drop(open);
}

fn exchange(
    shared: Arc<Shared>,
    control: Arc<Control>,
    connection: usize,
    request: http::Request<Incoming>,
) -> impl Future<Output = io::Result<Response<ScriptBody>>> + Send {
    let at = Instant::now();
    async move {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if let Some(dialect) = lists(&head) {
            return Ok(aside(&shared.listing(dialect, &head.headers)));
        }
        let called = Dialect::of(path).filter(|_| head.method == Method::POST);
        let Some(dialect) = called else {
            let unknown = Failure::unknown_url(head.method.as_str(), path);
            return Ok(aside(unknown.form(Dialect::OpenAi)));
        };
        let body = Limited::new(body, BODY_LIMIT)
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        let request = Request {
            number: 0,
            connection,
            dialect,
            method: head.method,
            version: head.version,
            path: head
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            json: serde_json::from_slice(&body).unwrap_or(Value::Null),
            body,
            headers: head.headers,
            at,
        };
        let exchange = Exchange::begin(Arc::clone(&shared.log), request);
        let script = shared.script(&exchange.request);
        play(script, exchange, control).await
    }
}

impl Shared {
    /// The script for this call: a refusal if no provider would take the request, else the next of the queue, else what
    /// the closure says, else the default.
    fn script(&self, request: &Request) -> Script {
        let queued = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if !self.admits(&request.headers) {
            return Failure::invalid_api_key().into();
        }
        if let Some(failure) = fault(request)
            && !self.lenient
        {
            return failure.into();
        }
        queued.unwrap_or_else(|| match &self.respond {
            Some(respond) => respond(request),
            None => self.otherwise.clone(),
        })
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.api_key else {
            return true;
        };
        let sent = |name: &str, prefix: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.and_then(|value| value.strip_prefix(prefix)) == Some(key)
        };
        sent("authorization", "Bearer ")
            || ["x-api-key", "api-key", "x-goog-api-key"]
                .into_iter()
                .any(|name| sent(name, ""))
    }

    /// Lists the models, unless that is refused.
    fn listing(&self, dialect: Dialect, headers: &HeaderMap) -> Form {
        self.log.send_modify(|seen| seen.listings += 1);
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refusal {
            Some(failure) => failure.form(dialect).clone(),
            None if !self.admits(headers) => Failure::invalid_api_key().form(dialect).clone(),
            None => form(200, &self.models(dialect)),
        }
    }

    fn models(&self, dialect: Dialect) -> Value {
        let models = self.models.iter();
        match dialect {
            Dialect::OpenAi | Dialect::Anthropic => {
                let model = |id: &String| {
                    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "testkit",
                        "type": "model", "display_name": id, "created_at": "2023-11-14T22:13:20Z"})
                };
                let data: Vec<Value> = models.map(model).collect();
                json!({"object": "list", "data": data, "has_more": false})
            }
            Dialect::Gemini => {
                let methods = ["generateContent", "countTokens"];
                let model = |id: &String| {
                    json!({"name": format!("models/{id}"), "displayName": id,
                        "supportedGenerationMethods": methods})
                };
                json!({"models": models.map(model).collect::<Vec<_>>()})
            }
            Dialect::Ollama => {
                let model = |id: &String| json!({"name": id, "model": id, "size": 5_000_000});
                json!({"models": models.map(model).collect::<Vec<_>>()})
            }
        }
    }
}

/// In whose words the models are asked for, if they are.
fn lists(head: &Parts) -> Option<Dialect> {
    let path = head.uri.path();
    if head.method != Method::GET {
        None
    } else if path.ends_with("/api/tags") {
        Some(Dialect::Ollama)
    } else if !path.ends_with("/models") {
        None
    } else if path.contains("/v1beta/") {
        Some(Dialect::Gemini)
    } else if head.headers.contains_key("anthropic-version") {
        Some(Dialect::Anthropic)
    } else {
        Some(Dialect::OpenAi)
    }
}

/// Why no provider would take this request.
fn fault(request: &Request) -> Option<Failure> {
    let missing = |field: &str| request.json[field].is_null();
    let dialect = request.dialect;
    if !request.json.is_object() {
        let message = match dialect {
            Dialect::OpenAi => "We could not parse the JSON body of your request.",
            Dialect::Anthropic => "The request body is not valid JSON",
            Dialect::Gemini => "Invalid JSON payload received.",
            Dialect::Ollama => "invalid JSON",
        };
        return Some(Failure::invalid(message, None));
    }
    let openai = |field: &str| {
        let message = format!("Missing required parameter: '{field}'.");
        missing(field).then(|| Failure::invalid(&message, Some(field)))
    };
    let plain = |fails: bool, message: &str| fails.then(|| Failure::invalid(message, None));
    let content = if request.embeds() {
        "input"
    } else {
        "messages"
    };
    match dialect {
        Dialect::OpenAi if request.model().is_none() => {
            plain(true, "you must provide a model parameter")
        }
        Dialect::OpenAi => openai(content),
        Dialect::Anthropic if request.header("anthropic-version").is_none() => {
            plain(true, "anthropic-version: header is required")
        }
        Dialect::Anthropic => {
            let field = ["model", "messages", "max_tokens"]
                .into_iter()
                .find(|field| missing(field))?;
            plain(true, &format!("{field}: Field required"))
        }
        // Without it a stream is one JSON list, which nobody here speaks.
        Dialect::Gemini if request.streamed() && !request.path.contains("alt=sse") => {
            plain(true, "alt=sse is missing")
        }
        Dialect::Gemini => plain(
            missing("contents"),
            "* GenerateContentRequest.contents: contents is not specified",
        ),
        Dialect::Ollama if request.model().is_none() => plain(true, "model is required"),
        Dialect::Ollama => plain(missing(content), &format!("{content} is required")),
    }
}
