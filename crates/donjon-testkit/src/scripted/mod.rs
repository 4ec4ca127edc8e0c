//! A language model in this process that does what its script says.
//!
//! [`ScriptedLlm`] is a tower service with no network below it: each call plays one [`Script`], and
//! everything it sees is written down. All its waits are tokio's, so that under a paused clock a
//! stall of a minute takes no time. For the same over real HTTP, with faults of the wire, see
//! [`upstream`](crate::upstream).

mod plan;
mod play;
mod record;
mod script;

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use donjon_core::{Commit, CommitLayer, LlmError, LlmRequest, LlmResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_layer::Layer;
use tower_service::Service;

pub use record::{CallEnd, SeenCall};
pub use script::{Failure, Script};

use play::Play;
use record::Record;

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
    provider: Arc<str>,
    commits: bool,
    lenient: bool,
    readiness: Readiness,
}

#[derive(Clone)]
struct Permits {
    capacity: usize,
    semaphore: Arc<Semaphore>,
}

/// What an instance got from its `poll_ready`.
enum Readiness {
    No,
    Acquiring(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send + Sync>>),
    Yes(Option<OwnedSemaphorePermit>),
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
    pub fn provider(mut self, name: impl Into<Arc<str>>) -> Self {
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
            provider: self.provider.clone(),
            commits: self.commits,
            lenient: self.lenient,
            readiness: Readiness::No,
        }
    }
}

impl Service<LlmRequest> for ScriptedLlm {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = ScriptedFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.shared.record().ready_polls += 1;
        loop {
            match (&mut self.readiness, &self.permits) {
                (Readiness::Yes(_), _) => return Poll::Ready(Ok(())),
                (Readiness::No, None) => self.readiness = Readiness::Yes(None),
                (Readiness::No, Some(permits)) => {
                    let semaphore = permits.semaphore.clone();
                    let acquire = Box::pin(async move { semaphore.acquire_owned().await.ok() });
                    self.readiness = Readiness::Acquiring(acquire);
                }
                (Readiness::Acquiring(acquire), _) => {
                    let permit = ready!(acquire.as_mut().poll(cx));
                    self.readiness = Readiness::Yes(permit);
                }
            }
        }
    }

    fn call(&mut self, request: LlmRequest) -> ScriptedFuture {
        let permit = match std::mem::replace(&mut self.readiness, Readiness::No) {
            Readiness::Yes(permit) => permit,
            Readiness::No | Readiness::Acquiring(_) => {
                self.shared.record().violations += 1;
                assert!(
                    self.lenient,
                    "a scripted model was called without being readied: each call needs its own \
                     poll_ready on the instance that is called, and a clone is not readied"
                );
                None
            }
        };
        let (shared, provider) = (self.shared.clone(), self.provider.clone());
        let mut once = Once(Some((shared, permit, provider)));
        ScriptedFuture(if self.commits {
            Kind::Committing(CommitLayer::new().layer(once).call(request))
        } else {
            Kind::AtHead(once.call(request))
        })
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

/// What is called below the commit: one call, already admitted.
struct Once(Option<(Arc<Shared>, Option<OwnedSemaphorePermit>, Arc<str>)>);

impl Service<LlmRequest> for Once {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Play;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Play {
        let (shared, permit, provider) = self.0.take().expect("it is called once");
        Play::new(shared, permit, provider, request)
    }
}

/// The future of a [`ScriptedLlm`].
#[derive(Debug)]
pub struct ScriptedFuture(Kind);

#[derive(Debug)]
enum Kind {
    AtHead(Play),
    Committing(<Commit<Once> as Service<LlmRequest>>::Future),
}

impl Future for ScriptedFuture {
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::AtHead(play) => Pin::new(play).poll(cx),
            Kind::Committing(commit) => Pin::new(commit).poll(cx),
        }
    }
}
