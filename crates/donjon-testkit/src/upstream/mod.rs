//! A faulty LLM provider over real HTTP.
//!
//! [`Upstream`] is an HTTP server (HTTP/1 and HTTP/2, no TLS) that plays a [`Script`] for each call and writes down what it
//! saw. Under any base path it speaks OpenAI's dialect (`POST …/chat/completions`, Azure's too, and `POST …/embeddings`),
//! Anthropic's (`POST …/messages`), Gemini's (`POST …/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`)
//! and Ollama's own (`POST …/api/chat` and `POST …/api/embed`), unary and streamed, and lists its models in each
//! (`GET …/models`, `GET …/api/tags`). It shares no code with the codecs it is meant to test.
//!
//! It runs over loopback TCP ([`Builder::start`]) and, for tests under a paused clock, over connections in memory
//! ([`Upstream::connect`], [`Upstream::connector`]): sockets and a paused clock do not mix, since the clock jumps while the
//! kernel still carries bytes. All its waits are tokio's, so in memory a stall of 30 s takes no time.
//!
//! It is not a recorder of real providers and does not check what is said, only (unless [`lenient`](Builder::lenient)) that
//! a request has what the API cannot do without.
//!
//! ```
//! use donjon_testkit::upstream::{End, Script, Upstream};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//!
//! // Three words, then thirty seconds of silence, then two more.
//! let script = Script::words(5).stall_after(3, Duration::from_secs(30));
//! let upstream = Upstream::builder().script(script).in_memory();
//!
//! let mut client = upstream.connect();
//! let body = r#"{"model": "gpt-4o", "messages": [], "stream": true}"#;
//! let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: upstream\r\nconnection: close";
//! client.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//!
//! assert!(answer.starts_with("HTTP/1.1 200 OK"));
//! assert!(answer.contains("data: [DONE]"));
//! let call = &upstream.calls()[0];
//! assert_eq!(call.request.model(), Some("gpt-4o"));
//! assert_eq!((call.sent, call.end()), (5, Some(End::Completed)));
//! # Ok(())
//! # }
//! ```

mod answer;
mod anthropic;
mod builder;
mod connector;
mod failure;
mod form;
mod framing;
mod gemini;
mod hints;
mod line;
mod ollama;
mod openai;
mod plan;
mod play;
mod record;
mod script;
mod serve;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;

pub use self::answer::Usage;
pub use self::builder::Builder;
pub use self::connector::{Connector, MemoryStream};
pub use self::failure::Failure;
pub use self::hints::Quota;
pub use self::record::{Call, Dialect, End, Ended, Request, Seen};
pub use self::script::Script;

use self::line::Io;
use self::record::OpenConnection;
use self::serve::{Shared, connection};

/// How much a connection in memory holds in each direction before its writer has to wait, in bytes.
const MEMORY_BUFFER: usize = 64 << 10;

/// A running upstream. Clones are handles on the same one; when the last is dropped it closes every connection.
///
/// What is taken for the peer's leaving: the end of its half of an HTTP/1 connection (also while no byte was answered), or
/// the reset of its HTTP/2 stream. A client that only closes its sending half counts as gone.
#[derive(Debug, Clone)]
pub struct Upstream {
    running: Arc<Running>,
}

/// What lives as long as the last handle.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    addr: Option<SocketAddr>,
    /// Dropped with this, which tells every task to stop.
    stop: watch::Sender<()>,
}

impl Upstream {
    /// An upstream that answers every call with [`Script::default`] until told otherwise.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Its address.
    ///
    /// # Panics
    ///
    /// When it runs in memory alone.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        let Some(addr) = self.running.addr else {
            panic!("an upstream in memory has no address")
        };
        addr
    }

    /// Scheme and authority: `http://127.0.0.1:PORT`, or `http://upstream.test` when it runs in memory.
    pub fn origin(&self) -> String {
        self.running.addr.map_or_else(
            || "http://upstream.test".into(),
            |addr| format!("http://{addr}"),
        )
    }

    /// The base URL in the manner of OpenAI's clients: the origin and `/v1`.
    pub fn base_url(&self) -> String {
        self.origin() + "/v1"
    }

    /// Puts a script at the end of the queue.
    pub fn push(&self, script: impl Into<Script>) {
        let mut queue = self
            .running
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queue.push_back(script.into());
    }

    /// Refuses from now on to list the models, as a server that is down would; `None` lists them again.
    pub fn refuse_listings(&self, failure: impl Into<Option<Failure>>) {
        let refusal = &self.running.shared.refusal;
        *refusal.lock().unwrap_or_else(PoisonError::into_inner) = failure.into();
    }

    /// How many scripts of the queue were not played yet.
    pub fn queued(&self) -> usize {
        self.running
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Everything seen so far.
    pub fn seen(&self) -> Seen {
        self.running.shared.log.borrow().clone()
    }

    /// The calls seen so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.running.shared.log.borrow().calls.clone()
    }

    /// How many calls were seen so far.
    pub fn count(&self) -> usize {
        self.running.shared.log.borrow().calls.len()
    }

    /// How many calls the peer abandoned so far.
    pub fn cancelled(&self) -> usize {
        self.running.shared.log.borrow().cancelled()
    }

    /// Calls in progress now.
    pub fn in_progress(&self) -> usize {
        self.running.shared.log.borrow().in_progress
    }

    /// The most calls that were ever in progress together.
    pub fn peak(&self) -> usize {
        self.running.shared.log.borrow().peak
    }

    /// Connections accepted so far.
    pub fn accepted_connections(&self) -> usize {
        self.running.shared.log.borrow().accepted
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.running.shared.log.borrow().open
    }

    /// Waits until the condition holds for what was seen, and returns that. It is asked anew whenever something changes.
    /// It waits for ever if need be: put a timeout around it.
    pub async fn wait_for(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut log = self.running.shared.log.subscribe();
        log.wait_for(condition)
            .await
            .expect("this handle keeps the sender")
            .clone()
    }

    /// Opens a connection in memory and returns the client's end.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn connect(&self) -> DuplexStream {
        self.running.connect()
    }

    /// A connector that opens connections in memory, for the legacy client of hyper-util.
    pub fn connector(&self) -> Connector {
        Connector {
            running: Arc::downgrade(&self.running),
        }
    }
}

impl Running {
    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(MEMORY_BUFFER);
        tokio::spawn(until_stopped(
            self.stop.subscribe(),
            self.serve(Io::Memory(server)),
        ));
        client
    }

    fn serve(&self, io: Io) -> impl Future<Output = ()> + Send + use<> {
        let open = OpenConnection::new(Arc::clone(&self.shared.log));
        connection(Arc::clone(&self.shared), open, io)
    }
}

/// Runs the work until it is done or the last handle is gone.
async fn until_stopped(mut stopped: watch::Receiver<()>, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = stopped.changed() => {}
        () = work => {}
    }
}
