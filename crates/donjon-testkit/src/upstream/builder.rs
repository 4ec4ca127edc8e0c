//! How an upstream is set up and started.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::line::Io;
use super::record::{Request, Seen};
use super::script::Script;
use super::serve::{Respond, Shared};
use super::{Running, Upstream, until_stopped};

/// Configures an [`Upstream`].
#[must_use]
pub struct Builder {
    queue: VecDeque<Script>,
    respond: Option<Respond>,
    otherwise: Script,
    models: Vec<String>,
    api_key: Option<String>,
    lenient: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            respond: None,
            otherwise: Script::default(),
            models: vec!["gpt-4o".into(), "claude-sonnet-4-5".into()],
            api_key: None,
            lenient: false,
        }
    }

    /// Puts a script at the end of the queue. Each call plays the next one.
    pub fn script(mut self, script: impl Into<Script>) -> Self {
        self.queue.push_back(script.into());
        self
    }

    /// Puts scripts at the end of the queue.
    pub fn scripts<S: Into<Script>>(mut self, scripts: impl IntoIterator<Item = S>) -> Self {
        self.queue.extend(scripts.into_iter().map(Into::into));
        self
    }

    /// What is played when the queue is empty. Default: [`Script::default`].
    pub fn otherwise(mut self, script: impl Into<Script>) -> Self {
        self.otherwise = script.into();
        self
    }

    /// Decides by the request what is played when the queue is empty, in place of [`otherwise`](Self::otherwise).
    pub fn respond<S: Into<Script>>(
        mut self,
        respond: impl Fn(&Request) -> S + Send + Sync + 'static,
    ) -> Self {
        self.respond = Some(Box::new(move |request| respond(request).into()));
        self
    }

    /// The models that `GET …/models` and `GET …/api/tags` list.
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.models = models.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses calls without this key (as bearer token, `x-api-key`, `api-key` or `x-goog-api-key`) as the
    /// provider does, listings too. Default: any key will do.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Plays the script even for a request that no provider would take. Default: 400 for a body that is no JSON object or
    /// lacks what its API requires; the call still uses up its place in the queue.
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Listens on a free port of 127.0.0.1, without Nagle's delay. Connections in memory can be opened as well.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(self) -> io::Result<Upstream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream = self.run(Some(listener.local_addr()?));
        let running = Arc::downgrade(&upstream.running);
        let accept = async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // A peer that left in the queue, or no file descriptors left: then others must close theirs first.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                let Some(running) = running.upgrade() else {
                    break;
                };
                // Only a socket that is already dead refuses the option, and serving it shows that.
                let _ = stream.set_nodelay(true);
                tokio::spawn(until_stopped(
                    running.stop.subscribe(),
                    running.serve(Io::Tcp(stream)),
                ));
            }
        };
        tokio::spawn(until_stopped(upstream.running.stop.subscribe(), accept));
        Ok(upstream)
    }

    /// Runs in memory alone.
    pub fn in_memory(self) -> Upstream {
        self.run(None)
    }

    fn run(self, addr: Option<SocketAddr>) -> Upstream {
        let shared = Shared {
            log: Arc::new(watch::Sender::new(Seen::default())),
            queue: Mutex::new(self.queue),
            respond: self.respond,
            otherwise: self.otherwise,
            models: self.models,
            refusal: Mutex::new(None),
            api_key: self.api_key,
            lenient: self.lenient,
        };
        let running = Running {
            shared: Arc::new(shared),
            addr,
            stop: watch::Sender::new(()),
        };
        Upstream {
            running: Arc::new(running),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("queue", &self.queue)
            .field("otherwise", &self.otherwise)
            .field("models", &self.models)
            .field("lenient", &self.lenient)
            .finish_non_exhaustive()
    }
}
