//! A language model in this process that does what its script says.
//!
//! [`ScriptedLlm`] is a tower service with no network below it: each call plays one [`Script`], and
//! everything it sees is written down. All its waits are tokio's, so that under a paused clock a
//! stall of a minute takes no time. For the same over real HTTP, with faults of the wire, see
//! [`upstream`](crate::upstream).

mod plan;
mod play;
mod record;
mod reply;
mod script;
mod service;
mod ticket;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use donjon_core::{LlmRequest, Name};
use tokio::sync::Semaphore;

pub use record::{CallEnd, SeenCall};
pub use script::{Failure, Script};
pub use service::ScriptedFuture;

use crate::probe::EndLog;
use record::Record;
use service::Readiness;

/// A model that plays a [`Script`] for each call and writes down what it sees. Clones share the
/// queue of scripts, the permits and the book; each is readied by itself.
///
/// Like a provider's client it resolves at the head of a stream, or with the whole answer; after
/// [`commits`](Self::commits), at the commit point. It stamps the call's ledger as a leaf does.
///
/// ```
/// use donjon_core::{ErrorKind, LlmRequest, Message};
/// use donjon_testkit::{ScriptedLlm, Script};
/// use tower::{Service, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), donjon_core::LlmError> {
/// let mut model = ScriptedLlm::new("Hello!").then(Script::fail(ErrorKind::Overloaded).status(529));
/// let request = LlmRequest::chat("any-model", [Message::user("Hi")]);
///
/// let refused = model.ready().await?.call(request.clone()).await;
/// assert_eq!(refused.expect_err("scripted").kind(), ErrorKind::Overloaded);
/// let (_, answer) = model.ready().await?.call(request).await?.collect().await?;
/// assert_eq!(answer.as_chat().expect("a chat").first_text(), "Hello!");
/// assert_eq!((model.count(), model.in_progress()), (2, 0));
/// # Ok(()) }
/// ```
///
/// # Panics
///
/// When it is called without having been readied: each call needs a `poll_ready` of its own that was
/// ready, on that very instance, and a clone starts without. [`record_unreadied`](Self::record_unreadied)
/// counts instead.
pub struct ScriptedLlm {
    shared: Arc<Shared>,
    permits: Option<Permits>,
    provider: Name,
    commits: bool,
    lenient: bool,
    ends: Option<EndLog>,
    readiness: Readiness,
}

#[derive(Clone)]
struct Permits {
    capacity: usize,
    semaphore: Arc<Semaphore>,
}

/// `ScriptedLlm::new(Script::default())`.
impl Default for ScriptedLlm {
    fn default() -> Self {
        Self::new(Script::default())
    }
}

impl ScriptedLlm {
    /// A model that plays `script` for every call, except as [`then`](Self::then) says.
    pub fn new(script: impl Into<Script>) -> Self {
        let script = script.into();
        Self::from_fn(move |_| script.clone())
    }

    /// A model that decides by the request what it plays.
    pub fn from_fn<S: Into<Script>>(
        respond: impl Fn(&LlmRequest) -> S + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                otherwise: Mutex::new(Arc::new(move |request| respond(request).into())),
                record: Mutex::default(),
            }),
            permits: None,
            provider: "scripted".into(),
            commits: false,
            lenient: false,
            ends: None,
            readiness: Readiness::No,
        }
    }

    /// Puts a script at the end of the queue. Each call plays the next one, and once there is none
    /// left what the model was made with.
    #[must_use]
    pub fn then(self, script: impl Into<Script>) -> Self {
        self.push(script);
        self
    }

    /// Resolves the calls of streams at their commit point ([`donjon_core::commit`]), so that what
    /// fails before it is an `Err`. Default: at the head.
    #[must_use]
    pub fn commits(mut self) -> Self {
        self.commits = true;
        self
    }

    /// Resolves the calls of streams at the head, which is the default.
    #[must_use]
    pub fn at_head(mut self) -> Self {
        self.commits = false;
        self
    }

    /// Attaches an observer of `log` to each call.
    #[must_use]
    pub fn observed_by(mut self, log: &EndLog) -> Self {
        self.ends = Some(log.clone());
        self
    }

    /// Has `capacity` permits: `poll_ready` waits for one, as tower's `ConcurrencyLimit` does, and it
    /// is held until the call ends. Default: always ready.
    #[must_use]
    pub fn with_capacity(mut self, capacity: usize) -> Self {
        self.permits = Some(Permits {
            capacity,
            semaphore: Arc::new(Semaphore::new(capacity)),
        });
        self
    }

    /// Names the provider in answers and errors. Default: `scripted`.
    #[must_use]
    pub fn provider(mut self, name: impl Into<Name>) -> Self {
        self.provider = name.into();
        self
    }

    /// Counts calls that were not readied in [`unreadied`](Self::unreadied), instead of panicking.
    #[must_use]
    pub fn record_unreadied(mut self) -> Self {
        self.lenient = true;
        self
    }
}

/// While it runs.
impl ScriptedLlm {
    /// Puts a script at the end of the queue.
    pub fn push(&self, script: impl Into<Script>) {
        lock(&self.shared.queue).push_back(script.into());
    }

    /// Puts another script in the place of the one that the model was made with.
    pub fn set_otherwise(&self, script: impl Into<Script>) {
        let script = script.into();
        *lock(&self.shared.otherwise) = Arc::new(move |_| script.clone());
    }

    /// How many scripts of the queue were not played yet.
    pub fn queued(&self) -> usize {
        lock(&self.shared.queue).len()
    }

    /// Every call so far, in the order of their coming.
    pub fn calls(&self) -> Vec<SeenCall> {
        self.shared.record().calls.clone()
    }

    /// How many calls there were so far.
    pub fn count(&self) -> usize {
        self.shared.record().calls.len()
    }

    /// How each call ended so far; `None` for those in progress.
    pub fn ends(&self) -> Vec<Option<CallEnd>> {
        let record = self.shared.record();
        record.calls.iter().map(|call| call.end).collect()
    }

    /// How many calls were dropped before their end.
    pub fn cancelled(&self) -> usize {
        let ends = self.ends().into_iter().flatten();
        ends.filter(|end| end.is_cancelled()).count()
    }

    /// Calls in progress now.
    pub fn in_progress(&self) -> usize {
        self.shared.record().in_progress
    }

    /// The most calls that were ever in progress together.
    pub fn peak(&self) -> usize {
        self.shared.record().peak
    }

    /// Permits that are held now: by calls in progress, and by instances that were readied and not
    /// called. 0 without a capacity.
    pub fn held(&self) -> usize {
        self.permits.as_ref().map_or(0, |permits| {
            permits.capacity - permits.semaphore.available_permits()
        })
    }

    /// How often `poll_ready` was called, on all clones together.
    pub fn ready_polls(&self) -> u64 {
        self.shared.record().ready_polls
    }

    /// How often it was called without having been readied; see
    /// [`record_unreadied`](Self::record_unreadied).
    pub fn unreadied(&self) -> usize {
        self.shared.record().violations
    }
}

/// What all clones share.
struct Shared {
    queue: Mutex<VecDeque<Script>>,
    otherwise: Mutex<Respond>,
    record: Mutex<Record>,
}

type Respond = Arc<dyn Fn(&LlmRequest) -> Script + Send + Sync>;

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// The script of the next call.
    fn next(&self, request: &LlmRequest) -> Script {
        if let Some(script) = lock(&self.queue).pop_front() {
            return script;
        }
        // The user's closure runs outside the lock.
        let otherwise = lock(&self.otherwise).clone();
        otherwise(request)
    }
}

/// A script that panics must not hide what was seen.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clone is not readied.
impl Clone for ScriptedLlm {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            permits: self.permits.clone(),
            provider: self.provider,
            commits: self.commits,
            lenient: self.lenient,
            ends: self.ends.clone(),
            readiness: Readiness::No,
        }
    }
}

impl fmt::Debug for ScriptedLlm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedLlm")
            .field("queued", &self.queued())
            .field("calls", &self.count())
            .field("in_progress", &self.in_progress())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
