//! A gateway in this process, providers behind it, and a plain caller before it.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use donjon::serve::server;
use donjon_examples::gateway::{Config, Gateway};
use donjon_testkit::upstream::{Script, Seen, Upstream};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The longest that anything may take, so that a test fails rather than hangs. Far below every
/// limit that the gateway has by default.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const MESSAGES: &str = "/v1/messages";

/// An upstream that plays these scripts, and then answers `served`.
pub(crate) async fn upstream<S: Into<Script>>(scripts: impl IntoIterator<Item = S>) -> Upstream {
    Upstream::builder()
        .scripts(scripts)
        .otherwise(Script::answer("served"))
        .start()
        .await
        .expect("a free port")
}

/// An upstream that plays the same script for every call.
pub(crate) async fn always(script: impl Into<Script>) -> Upstream {
    Upstream::builder()
        .otherwise(script)
        .start()
        .await
        .expect("a free port")
}

/// An upstream that answers `served`.
pub(crate) async fn steady() -> Upstream {
    upstream::<Script>([]).await
}

/// Waits until the upstream has seen it.
pub(crate) async fn seen(upstream: &Upstream, condition: impl FnMut(&Seen) -> bool) -> Seen {
    match timeout(SOON, upstream.wait_for(condition)).await {
        Ok(seen) => seen,
        Err(_) => panic!("the upstream still waits: {:?}", upstream.calls()),
    }
}

/// Waits until so many calls wait in the pool of this target.
pub(crate) async fn waiting(gate: &Gate, target: &str, calls: f64) {
    let look = async {
        loop {
            let report = gate.get("/health").await.json();
            let layers = report["layers"].as_array().expect("layers");
            let pools = layers.iter().filter(|layer| layer["layer"] == "pool");
            let figures = pools.flat_map(|pool| pool["figures"].as_array());
            let mut waiting = figures.flatten().filter(|figure| {
                figure["name"] == "waiting" && figure["labels"]["target"] == target
            });
            if waiting.any(|figure| figure["value"].as_f64() == Some(calls)) {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, look).await.expect("it comes to that");
}

/// What upstreams speak.
pub(crate) const OPENAI: &str = "openai";
pub(crate) const ANTHROPIC: &str = "anthropic";

/// A configuration that sends every model to these targets, named `t0`, `t1`, …, each asked
/// `attempts` times at most, with backoff of a millisecond.
pub(crate) fn config(targets: &[(&str, &Upstream)], attempts: u32, more: &str) -> String {
    let mut text = String::new();
    let mut route = Vec::new();
    for (at, (kind, upstream)) in targets.iter().enumerate() {
        text += &provider(&format!("t{at}"), kind, upstream);
        route.push(format!("{{ provider = \"t{at}\" }}"));
    }
    let route = route.join(", ");
    write!(
        text,
        "[[routes]]\nmodel = \"*\"\ntargets = [{route}]\n\
         [retry]\nmax_attempts = {attempts}\nbase_delay = \"1ms\"\nmax_delay = \"2ms\"\n{more}\n"
    )
    .expect("a string takes everything");
    text
}

/// The table of a provider.
pub(crate) fn provider(name: &str, kind: &str, upstream: &Upstream) -> String {
    let url = upstream.base_url();
    format!(
        "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"{url}\"\napi_key = \"sk-upstream\"\n"
    )
}

/// A gateway that listens; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) addr: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Gate {
    pub(crate) async fn open(config: &str) -> Self {
        let config = Config::from_toml(config).expect("a good configuration");
        let gateway = Gateway::build(&config).expect("a good configuration");
        let service = gateway.service().expect("a good configuration");
        let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("it listens");
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server::serve(listener, service, stopped));
        Self { addr, _stop: stop }
    }

    /// Before OpenAI upstreams that are asked once each.
    pub(crate) async fn before(upstreams: &[&Upstream]) -> Self {
        let targets: Vec<_> = upstreams
            .iter()
            .map(|upstream| (OPENAI, *upstream))
            .collect();
        Self::open(&config(&targets, 1, "")).await
    }

    /// Before one upstream of this kind that is asked once.
    pub(crate) async fn before_one(kind: &str, upstream: &Upstream) -> Self {
        Self::open(&config(&[(kind, upstream)], 1, "")).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let mut caller = Caller::connect(self).await;
        caller.post(path, body).await.read().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let mut caller = Caller::connect(self).await;
        caller.send(Method::GET, path, "").await.read().await
    }
}

/// A caller's connection.
pub(crate) struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    tenant: Option<&'static str>,
    header: Option<(&'static str, &'static str)>,
}

impl Caller {
    pub(crate) async fn connect(gate: &Gate) -> Self {
        let stream = TcpStream::connect(gate.addr).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        let connection = tokio::spawn(async move {
            connection.await.ok();
        });
        Self {
            sender,
            connection,
            tenant: None,
            header: None,
        }
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Unread {
        self.send(Method::POST, path, body).await
    }

    /// Asks from now on as this tenant.
    pub(crate) fn of(mut self, tenant: &'static str) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Asks from now on with this header.
    pub(crate) fn asking(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Unread {
        match timeout(SOON, self.start(method, path, body.into())).await {
            Ok(answer) => Unread(answer.expect("an answer")),
            Err(_) => panic!("no answer came"),
        }
    }

    /// Sends a request, whose answer may never come.
    pub(crate) fn start(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway")
            .header("authorization", "Bearer sk-caller")
            .header("content-type", "application/json");
        if let Some(tenant) = self.tenant {
            request = request.header("x-donjon-tenant", tenant);
        }
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        if path == MESSAGES {
            request = request.header("anthropic-version", "2023-06-01");
        }
        let request = request.body(Full::new(body)).expect("a good request");
        self.sender.send_request(request)
    }

    /// Closes the connection at once, whatever is under way on it.
    pub(crate) async fn leave(self) {
        self.connection.abort();
        self.connection.await.ok();
    }
}

/// An answer of which the head has come.
pub(crate) struct Unread(Response<Incoming>);

impl Unread {
    pub(crate) fn of(answer: Response<Incoming>) -> Self {
        Self(answer)
    }

    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Reads on until the body holds `text`.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            let frame = timeout(SOON, self.0.body_mut().frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("no `{text}` came after {read}"));
            let frame = frame.unwrap_or_else(|| panic!("no `{text}` in {read}"));
            let data = frame.expect("it goes on").into_data().unwrap_or_default();
            read.push_str(std::str::from_utf8(&data).expect("text"));
        }
        read
    }

    pub(crate) async fn read(self) -> Answer {
        let (head, body) = self.0.into_parts();
        let body = match timeout(SOON, body.collect()).await {
            Ok(body) => body.expect("a whole body").to_bytes(),
            Err(_) => panic!("the body did not end"),
        };
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The events of a stream.
    pub(crate) fn events(&self) -> Vec<Event> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let blocks = self.text().split("\n\n").filter(|block| !block.is_empty());
        blocks.map(Event::read).collect()
    }

    /// The chunks of a stream of OpenAI's, which must be whole.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        let done = events.pop().expect("an event");
        assert_eq!(done.data, "[DONE]", "{}", self.text());
        events.iter().map(Event::json).collect()
    }
}

/// One event.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

impl Event {
    fn read(block: &str) -> Self {
        let mut event = Self {
            name: None,
            data: String::new(),
        };
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("event", name)) => event.name = Some(name.to_owned()),
                Some(("data", data)) => event.data.push_str(data),
                _ => panic!("what is `{line}`?"),
            }
        }
        event
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("no JSON: {}", self.data))
    }
}

/// A question in OpenAI's words.
pub(crate) fn chat(stream: bool) -> String {
    let mut body = json!({
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "What is a donjon?"}],
    });
    if stream {
        body["stream"] = true.into();
    }
    body.to_string()
}

/// A question in Anthropic's words.
pub(crate) fn messages(stream: bool) -> String {
    let mut body = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "What is a donjon?"}],
    });
    if stream {
        body["stream"] = true.into();
    }
    body.to_string()
}

/// The text that the chunks of choice `index` add up to.
pub(crate) fn text_of(chunks: &[Value], index: u64) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array());
    choices
        .flatten()
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice["delta"]["content"].as_str())
        .collect()
}
