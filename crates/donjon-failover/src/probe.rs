//! Looking actively whether targets work.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, Weak, atomic::Ordering::Release},
    task::Poll,
    time::Duration,
};

use donjon_core::{LlmError, Name};
use tokio::{runtime::Handle, task::AbortHandle, time};

use crate::{
    error::ConfigError,
    health::nanos,
    state::{REMOVED, Shared, TargetState, lock},
};

/// Looks whether a target works, as cheaply as can be: lists its models, asks for its health. Any
/// `Fn() -> impl Future<Output = Result<(), LlmError>>` is one.
pub trait Probe: Send + Sync + 'static {
    /// Looks. Any error counts against the target, and a panic is one.
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), LlmError>> + Send>>;
}

impl<F, T, E> Probe for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<LlmError>,
{
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), LlmError>> + Send>> {
        let looks = self();
        Box::pin(async move { looks.await.map_err(Into::into) })
    }
}

/// How targets that have a [`Probe`] are looked at: each by itself, at once and then again and again,
/// until the failover and its layer are gone.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    interval: Duration,
    timeout: Duration,
    down_after: u32,
    up_after: u32,
}

impl Probes {
    /// Every `interval`, a tenth sooner or later; default 15 s.
    pub const fn every(interval: Duration) -> Self {
        Self {
            interval,
            timeout: Duration::from_secs(5),
            down_after: 3,
            up_after: 2,
        }
    }

    /// How long a probe may take; default 5 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Takes a target out after so many probes in a row that failed; default 3.
    #[must_use]
    pub const fn down_after(mut self, probes: u32) -> Self {
        self.down_after = probes;
        self
    }

    /// Lets it return after so many in a row that did not; default 2.
    #[must_use]
    pub const fn up_after(mut self, probes: u32) -> Self {
        self.up_after = probes;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let wrong = [
            (self.interval.is_zero(), "interval", "must be some time"),
            (self.timeout.is_zero(), "timeout", "must be some time"),
            (self.down_after == 0, "down_after", "must be at least 1"),
            (self.up_after == 0, "up_after", "must be at least 1"),
        ];
        match wrong.into_iter().find(|(is, ..)| *is) {
            None => Ok(()),
            Some((_, field, why)) => Err(ConfigError::Impossible {
                field: format!("probes.{field}").into(),
                why,
            }),
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self::every(Duration::from_secs(15))
    }
}

/// The tasks that probe; they end with it.
pub(crate) struct Probing {
    probes: Probes,
    /// `None`: not begun, for want of a runtime.
    tasks: Mutex<Option<HashMap<Name, AbortHandle>>>,
}

impl Probing {
    pub(crate) const fn new(probes: Probes) -> Self {
        Self {
            probes,
            tasks: Mutex::new(None),
        }
    }

    /// Begins, if that was not done and there is a runtime.
    pub(crate) fn start(&self, shared: &Arc<Shared>) {
        let mut tasks = lock(&self.tasks);
        if tasks.is_some() || Handle::try_current().is_err() {
            return;
        }
        let roster = shared.roster.load();
        let tasks = tasks.insert(HashMap::new());
        for target in &roster.targets {
            self.spawn(tasks, shared, target);
        }
    }

    /// Probes a target that was added.
    pub(crate) fn watch(&self, shared: &Arc<Shared>, target: &Arc<TargetState>) {
        if let Some(tasks) = &mut *lock(&self.tasks)
            && Handle::try_current().is_ok()
        {
            stop(tasks, target.name);
            self.spawn(tasks, shared, target);
        }
    }

    pub(crate) fn forget(&self, name: Name) {
        if let Some(tasks) = &mut *lock(&self.tasks) {
            stop(tasks, name);
        }
    }

    fn spawn(
        &self,
        tasks: &mut HashMap<Name, AbortHandle>,
        shared: &Arc<Shared>,
        target: &Arc<TargetState>,
    ) {
        if target.probe.is_some() {
            let task = watch(self.probes, Arc::downgrade(shared), target.clone());
            tasks.insert(target.name, tokio::spawn(task).abort_handle());
        }
    }
}

fn stop(tasks: &mut HashMap<Name, AbortHandle>, name: Name) {
    if let Some(task) = tasks.remove(&name) {
        task.abort();
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        if let Some(tasks) = &mut *lock(&self.tasks) {
            tasks.values().for_each(AbortHandle::abort);
        }
    }
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing")
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}

async fn watch(probes: Probes, shared: Weak<Shared>, target: Arc<TargetState>) {
    let Some(probe) = target.probe.clone() else {
        return;
    };
    let (mut failed, mut passed) = (0_u32, 0_u32);
    loop {
        let works = time::timeout(probes.timeout, look(&*probe)).await;
        if matches!(works, Ok(true)) {
            (failed, passed) = (0, passed.saturating_add(1));
        } else {
            (failed, passed) = (failed.saturating_add(1), 0);
        }
        // Not all at once.
        let pause = probes.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            if target.has(REMOVED) {
                return;
            }
            let next = shared.now().saturating_add(nanos(pause));
            target.next_probe.store(next, Release);
            if failed >= probes.down_after {
                shared.probed(&target, false);
            } else if passed >= probes.up_after {
                shared.probed(&target, true);
            }
        }
        time::sleep(pause).await;
    }
}

/// Whether the target works. A panic ends this look, and not those that follow.
async fn look(probe: &dyn Probe) -> bool {
    let mut looks = pin!(async { probe.probe().await });
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| looks.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(false), |looked| {
            looked.map(|looked| looked.is_ok())
        })
    })
    .await
}
