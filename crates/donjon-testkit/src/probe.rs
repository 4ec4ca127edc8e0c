//! Small helpers for tests of layers.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use donjon_core::{DropReason, End, ErrorKind, LlmError, LlmResponse, Observer, Outcome};

/// Polls `future` once, with a waker that wakes nobody.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut cx)
}

/// Polls `future` at most `polls` times, each time when it was woken, then drops it. `None` if it was
/// not done by then. With `polls` from 0 upwards it drops a call at each of its await points.
pub async fn poll_at_most<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The text of the first choice of an answer, whole or streamed.
///
/// # Errors
///
/// The error that the stream ends with.
///
/// # Panics
///
/// When it is no answer to a chat.
pub async fn collect_text(response: LlmResponse) -> Result<String, LlmError> {
    let (_, completion) = response.collect().await?;
    let Some(chat) = completion.as_chat() else {
        panic!("not an answer to a chat: {completion:?}");
    };
    Ok(chat.first_text().into_owned())
}

/// Counts how often it is woken.
///
/// ```
/// use donjon_testkit::probe::CountingWaker;
/// use std::{pin::pin, task::Context};
///
/// let wakes = CountingWaker::new();
/// let waker = wakes.waker();
/// let mut task = pin!(tokio::sync::Notify::new());
/// let mut waits = pin!(task.notified());
/// assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
/// assert_eq!(wakes.count(), 0);
/// task.notify_one();
/// assert_eq!(wakes.count(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct CountingWaker(Arc<Wakes>);

#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl CountingWaker {
    /// Not woken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The waker to poll with.
    pub fn waker(&self) -> Waker {
        self.0.clone().into()
    }

    /// How often it was woken.
    pub fn count(&self) -> usize {
        self.0.0.load(SeqCst)
    }
}

/// How a call ended, as an observer heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeardEnd {
    /// With a whole answer.
    Success,
    /// With an error of this kind.
    Failure(ErrorKind),
    /// It was dropped.
    Cancelled(DropReason),
}

/// Observers that write down how calls end, and a check that each heard exactly one end.
///
/// ```
/// use donjon_core::{LlmError, LlmRequest, watch};
/// use donjon_testkit::probe::{EndLog, HeardEnd};
///
/// let log = EndLog::new();
/// let call = LlmRequest::chat("m", []).call;
/// let future = std::future::pending::<Result<donjon_core::LlmResponse, LlmError>>();
/// drop(watch(&call, future, log.observer()));
/// log.assert_one_each();
/// assert!(matches!(log.ends()[..], [HeardEnd::Cancelled(_)]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct EndLog(Arc<Mutex<Vec<Heard>>>);

/// What one observer heard.
#[derive(Debug, Default)]
struct Heard {
    ends: Vec<HeardEnd>,
    gone: bool,
}

impl EndLog {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more observer that writes here.
    pub fn observer(&self) -> EndObserver {
        let mut heard = self.lock();
        heard.push(Heard::default());
        EndObserver {
            log: self.clone(),
            number: heard.len() - 1,
        }
    }

    /// How many observers there were so far.
    pub fn observers(&self) -> usize {
        self.lock().len()
    }

    /// The ends that were heard, by the order of the observers.
    pub fn ends(&self) -> Vec<HeardEnd> {
        let heard = self.lock();
        heard.iter().flat_map(|heard| heard.ends.clone()).collect()
    }

    /// What is wrong: an observer that heard two ends, or none and is gone or still waits.
    pub fn fault(&self) -> Option<String> {
        let heard = self.lock();
        heard.iter().enumerate().find_map(|(number, heard)| {
            let what = match (&heard.ends[..], heard.gone) {
                ([_], _) => return None,
                ([], true) => "was dropped without an end".to_owned(),
                ([], false) => "still waits for an end".to_owned(),
                (ends, _) => format!("heard several ends: {ends:?}"),
            };
            Some(format!("observer {number} {what}"))
        })
    }

    /// Checks that each observer heard exactly one end.
    ///
    /// # Panics
    ///
    /// When one did not.
    #[track_caller]
    pub fn assert_one_each(&self) {
        if let Some(fault) = self.fault() {
            panic!("{fault}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An observer that writes in an [`EndLog`].
#[derive(Debug)]
pub struct EndObserver {
    log: EndLog,
    number: usize,
}

impl Observer for EndObserver {
    fn end(&mut self, end: &End<'_>) {
        let end = match end.outcome {
            Outcome::Success => HeardEnd::Success,
            Outcome::Failure(error) => HeardEnd::Failure(error.kind()),
            Outcome::Cancelled { why, .. } => HeardEnd::Cancelled(why),
        };
        self.log.lock()[self.number].ends.push(end);
    }
}

impl Drop for EndObserver {
    fn drop(&mut self) {
        self.log.lock()[self.number].gone = true;
    }
}
