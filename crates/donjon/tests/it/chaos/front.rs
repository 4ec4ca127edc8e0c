//! The caller's side: plain HTTP to the stack behind `donjon-serve`, and what came back.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use donjon::Stack;
use donjon_serve::Serve;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::Http;

/// Longer than every deadline: what takes longer hangs.
const NEVER: Duration = Duration::from_secs(600);

/// The stack as an http server, in memory.
pub(super) struct Front {
    serve: Serve<Stack<Http>>,
}

impl Front {
    pub(super) fn new(stack: &Stack<Http>) -> Self {
        Self {
            serve: Serve::new(stack.clone()),
        }
    }

    /// Asks over a connection of its own, and reads to the end.
    pub(super) async fn ask(&self, mode: Mode) -> Reply {
        let began = Instant::now();
        match timeout(NEVER, self.exchange(mode, began)).await {
            Ok(reply) => reply,
            Err(_) => panic!("it hangs"),
        }
    }

    async fn exchange(&self, mode: Mode, began: Instant) -> Reply {
        let (near, far) = tokio::io::duplex(64 << 10);
        let service = TowerToHyperService::new(self.serve.clone());
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // Whether the caller left early is seen at the upstream.
            let _ = http.serve_connection(TokioIo::new(far), service).await;
        });
        let (mut sender, connection) = http1::handshake(TokioIo::new(near))
            .await
            .expect("a pipe takes a connection");
        tokio::spawn(connection);
        let request = Request::post("/v1/chat/completions")
            .header("host", "gateway.test")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(mode.body().as_bytes())))
            .expect("a good request");
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let head_after = began.elapsed();
        let body = body.collect().await.expect("a whole body").to_bytes();
        let text = std::str::from_utf8(&body).expect("text");
        let mut reply = Reply::new(head.status.as_u16(), head.headers, head_after);
        reply.ended_after = began.elapsed();
        if text.starts_with('{') {
            reply.read_whole(&serde_json::from_str(text).expect("JSON"));
        } else {
            let events = text.split("\n\n").filter(|event| !event.is_empty());
            events.for_each(|event| reply.read_event(event));
        }
        reply
    }
}

/// How the caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Unary,
    Streamed,
}

impl Mode {
    pub(super) const ALL: [Self; 2] = [Self::Unary, Self::Streamed];

    const fn body(self) -> &'static str {
        match self {
            Self::Unary => {
                r#"{"model":"m","messages":[{"role":"user","content":"What is a donjon?"}]}"#
            }
            Self::Streamed => {
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},
                    "messages":[{"role":"user","content":"What is a donjon?"}]}"#
            }
        }
    }
}

/// What the caller got.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    /// The message of the error, as a status or in-band.
    pub(super) error: Option<String>,
    /// Finish reasons, in order.
    pub(super) finished: Vec<String>,
    /// Roles, in order.
    pub(super) roles: usize,
    pub(super) ids: BTreeSet<String>,
    /// The completion tokens that were reported, each time.
    pub(super) usage: Vec<u64>,
    /// Whether the stream said `[DONE]`, or the body was whole.
    pub(super) done: bool,
    pub(super) head_after: Duration,
    pub(super) ended_after: Duration,
}

impl Reply {
    fn new(status: u16, headers: HeaderMap, head_after: Duration) -> Self {
        Self {
            status,
            headers,
            text: String::new(),
            error: None,
            finished: Vec::new(),
            roles: 0,
            ids: BTreeSet::new(),
            usage: Vec::new(),
            done: false,
            head_after,
            ended_after: head_after,
        }
    }

    fn read_whole(&mut self, json: &Value) {
        if let Some(message) = json["error"]["message"].as_str() {
            self.error = Some(message.to_owned());
            return;
        }
        self.done = true;
        self.take(json, "message");
    }

    fn read_event(&mut self, event: &str) {
        let Some(data) = event.strip_prefix("data: ") else {
            panic!("not an event of data: {event:?}");
        };
        assert!(!self.done, "nothing comes after [DONE]");
        assert!(self.error.is_none(), "nothing comes after an error");
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let json: Value = serde_json::from_str(data).expect("JSON");
        match json["error"]["message"].as_str() {
            Some(message) => self.error = Some(message.to_owned()),
            None => self.take(&json, "delta"),
        }
    }

    fn take(&mut self, json: &Value, part: &str) {
        if let Some(id) = json["id"].as_str() {
            self.ids.insert(id.to_owned());
        }
        for choice in json["choices"].as_array().into_iter().flatten() {
            self.roles += usize::from(choice[part]["role"].is_string());
            self.text += choice[part]["content"].as_str().unwrap_or_default();
            let reason = choice["finish_reason"].as_str();
            self.finished.extend(reason.map(str::to_owned));
        }
        self.usage
            .extend(json["usage"]["completion_tokens"].as_u64());
    }

    /// A whole answer: everything that belongs to one is there, once.
    pub(super) fn is_whole(&self, text: &str) -> bool {
        self.is_one(text)
            && self.done
            && self.error.is_none()
            && self.finished == ["stop"]
            && self.usage.len() == 1
    }

    /// A stream that broke after this text: it says so, and is not shown as whole.
    pub(super) fn is_cut(&self, text: &str) -> bool {
        self.is_one(text) && !self.done && self.error.is_some() && self.finished.is_empty()
    }

    fn is_one(&self, text: &str) -> bool {
        (self.status, self.text.as_str(), self.roles, self.ids.len()) == (200, text, 1, 1)
    }

    /// A clean error, which says that nobody needs to try again.
    pub(super) fn is_error(&self, status: u16) -> bool {
        let again = self.headers.get("x-should-retry").map(|v| v.as_bytes());
        self.status == status
            && self.text.is_empty()
            && self.error.is_some()
            && self.finished.is_empty()
            && again == Some(&b"false"[..])
    }
}
