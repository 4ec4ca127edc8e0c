//! The service, and its targets while it runs.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    task::{self, Poll},
};

use arc_swap::ArcSwap;
use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower_service::Service;

use crate::{
    builder::FailoverBuilder,
    course::Field,
    error::{ConfigError, UnknownTarget},
    event::FailoverEvent,
    future::FailoverFuture,
    handle::FailoverHandle,
    probe::Probing,
    resume::Hook,
    state::{REMOVED, Roster, Shared, TargetState, lock},
    target::Target,
};

/// Asks one target after another until one serves; see the [crate](crate).
///
/// It is always ready, and readies only the target that it asks, a clone made for the call. Clones
/// share the targets, their figures and switches. It can be sent to another thread if `S` is `Sync`,
/// as most services are; [`BoxLlmService`](donjon_core::BoxLlmService) is, and makes targets of
/// different types one.
pub struct Failover<S> {
    live: Arc<Live<S>>,
    /// The targets as this instance saw them when it was called last.
    seen: Option<Arc<Set<S>>>,
}

/// The targets at one moment, with their services by place.
pub(crate) struct Set<S> {
    pub(crate) field: Field,
    pub(crate) services: Box<[S]>,
    /// Goes on with streams that break.
    pub(crate) resume: Option<Hook<S>>,
    version: u64,
}

struct Live<S> {
    set: ArcSwap<Set<S>>,
    /// That of the set; read first, since it costs less.
    version: AtomicU64,
    edits: Mutex<()>,
    probing: Arc<Probing>,
    layered: bool,
}

impl<S> Failover<S> {
    /// Starts with no target.
    pub fn builder() -> FailoverBuilder<S> {
        FailoverBuilder::new()
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        services: Box<[S]>,
        probing: Arc<Probing>,
        layered: bool,
        resume: Option<Hook<S>>,
    ) -> Self {
        let roster = shared.roster.load_full();
        let set = Set {
            field: Field { shared, roster },
            services,
            resume,
            version: 0,
        };
        Self {
            live: Arc::new(Live {
                set: ArcSwap::from_pointee(set),
                version: AtomicU64::new(0),
                edits: Mutex::new(()),
                probing,
                layered,
            }),
            seen: None,
        }
    }

    /// Reads and controls it.
    pub fn handle(&self) -> FailoverHandle {
        FailoverHandle::new(self.live.set.load().field.shared.clone())
    }

    #[inline]
    fn set(&mut self) -> Arc<Set<S>> {
        let version = self.live.version.load(Acquire);
        match &self.seen {
            Some(set) if set.version == version => set.clone(),
            _ => self.look(),
        }
    }

    #[cold]
    fn look(&mut self) -> Arc<Set<S>> {
        let set = self.live.set.load_full();
        self.live.probing.start(&set.field.shared);
        self.seen = Some(set.clone());
        set
    }
}

/// While it runs. Calls in progress notice nothing: they have the targets as they were.
impl<S: Clone> Failover<S> {
    /// Adds a target, or puts it in the place of the one that has its name, whose calls go on.
    ///
    /// # Errors
    ///
    /// The target makes no sense, or the failover was made by a layer.
    pub fn put(&self, target: Target<S>) -> Result<(), ConfigError> {
        let _edits = lock(&self.live.edits);
        let set = self.live.set.load_full();
        let place = set.field.roster.targets.iter();
        let place = { place }.position(|known| known.name == target.name);
        target.check(place.unwrap_or(set.services.len()))?;
        if self.live.layered {
            return Err(ConfigError::Layered);
        }
        let state = Arc::new(TargetState::of(&target));
        let mut states = set.field.roster.targets.to_vec();
        let mut services = set.services.to_vec();
        if let Some(place) = place {
            states[place] = state.clone();
            services[place] = target.service;
        } else {
            states.push(state.clone());
            services.push(target.service);
        }
        self.replace(&set, states, services);
        if let Some(place) = place {
            set.field.roster.targets[place].switch(REMOVED, true);
        }
        let shared = &set.field.shared;
        self.live.probing.watch(shared, &state);
        shared.events.tell(|| FailoverEvent::TargetAdded {
            target: target.name,
        });
        Ok(())
    }

    /// Takes a target away. Calls that it has go on; its service is dropped with the last of them, and
    /// once no clone of this failover has it from its last call.
    ///
    /// # Errors
    ///
    /// No target has this name, or the failover was made by a layer.
    pub fn remove(&self, name: &str) -> Result<(), UnknownTarget> {
        let _edits = lock(&self.live.edits);
        let set = self.live.set.load_full();
        let roster = &set.field.roster;
        let place = roster.targets.iter().position(|known| &*known.name == name);
        let (Some(place), false) = (place, self.live.layered) else {
            return Err(UnknownTarget::new(name));
        };
        let mut states = roster.targets.to_vec();
        let mut services = set.services.to_vec();
        let state = states.remove(place);
        services.remove(place);
        self.replace(&set, states, services);
        state.switch(REMOVED, true);
        self.live.probing.forget(state.name);
        let target = state.name;
        let shared = &set.field.shared;
        shared
            .events
            .tell(|| FailoverEvent::TargetRemoved { target });
        Ok(())
    }

    fn replace(&self, old: &Set<S>, states: Vec<Arc<TargetState>>, services: Vec<S>) {
        let shared = &old.field.shared;
        let changes = shared.lock_changes();
        let roster = Arc::new(Roster::new(states));
        let version = old.version + 1;
        self.live.set.store(Arc::new(Set {
            field: Field {
                shared: shared.clone(),
                roster: roster.clone(),
            },
            services: services.into(),
            resume: old.resume,
            version,
        }));
        self.live.version.store(version, Release);
        shared.roster.store(roster);
        old.field.roster.retire();
        drop(changes);
    }
}

impl<S> Service<LlmRequest> for Failover<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = FailoverFuture<S>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: LlmRequest) -> Self::Future {
        FailoverFuture::new(self.set(), request)
    }
}

/// A clone looks at the targets anew, so that one that is kept and never called keeps none alive.
impl<S> Clone for Failover<S> {
    fn clone(&self) -> Self {
        Self {
            live: self.live.clone(),
            seen: None,
        }
    }
}

impl<S> fmt::Debug for Failover<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("targets", &self.live.set.load().field.roster.targets)
            .finish_non_exhaustive()
    }
}
