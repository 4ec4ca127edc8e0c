//! The layer and its builder.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use donjon_core::LlmRequest;
use tower_layer::Layer;

use crate::{
    handle::{Counters, TimeoutHandle},
    service::Timeout,
    timeouts::{ConfigError, Timeouts},
};

/// Limits how long the parts of a call may take; see the [crate](crate).
#[derive(Clone)]
pub struct TimeoutLayer {
    shared: Arc<Shared>,
}

/// What a layer and its services share.
pub(crate) struct Shared {
    /// Those of all, then those of single models and targets.
    sets: Vec<Timeouts>,
    models: HashMap<Box<str>, Place>,
    targets: HashMap<Box<str>, Place>,
    pub(crate) counters: Counters,
}

/// Where the limits of a call stand: less for its future to carry than the limits themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Shared {
    /// The limits of `request`: those of its target, else of its model, else of all.
    pub(crate) fn of(&self, request: &LlmRequest) -> Place {
        let mut own = None;
        if !self.targets.is_empty() {
            let target = request.call.attempt().and_then(|attempt| attempt.target());
            own = target.and_then(|target| self.targets.get(target.as_str()));
        }
        if own.is_none() && !self.models.is_empty() {
            own = self.models.get(&**request.model());
        }
        own.copied().unwrap_or_default()
    }

    /// The limits at `place`.
    #[inline]
    pub(crate) fn at(&self, place: Place) -> &Timeouts {
        &self.sets[place.0]
    }

    fn named(&self, names: &HashMap<Box<str>, Place>, name: &str) -> &Timeouts {
        self.at(names.get(name).copied().unwrap_or_default())
    }
}

impl TimeoutLayer {
    /// Builds a layer that differs from the default.
    pub fn builder() -> TimeoutBuilder {
        TimeoutBuilder {
            all: Timeouts::default(),
            models: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// These limits for all calls.
    ///
    /// # Errors
    ///
    /// A limit of zero.
    pub fn new(timeouts: Timeouts) -> Result<Self, ConfigError> {
        Self::builder().all(timeouts).build()
    }

    /// Reads the figures that this layer and its services share.
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle::new(self.shared.clone())
    }

    /// The limits that hold where nothing else was set; the transport takes
    /// [`connect`](Timeouts::connect) from here.
    pub fn timeouts(&self) -> &Timeouts {
        self.shared.at(Place::default())
    }

    /// The limits that hold for a target.
    pub fn timeouts_of_target(&self, target: &str) -> &Timeouts {
        self.shared.named(&self.shared.targets, target)
    }

    /// The limits that hold for a model, at a target without limits of its own.
    pub fn timeouts_of_model(&self, model: &str) -> &Timeouts {
        self.shared.named(&self.shared.models, model)
    }
}

/// [`Timeouts::default`] for all calls.
impl Default for TimeoutLayer {
    fn default() -> Self {
        match Self::builder().build() {
            Ok(layer) => layer,
            Err(_) => unreachable!("the defaults make sense"),
        }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout::new(inner, self.shared.clone())
    }
}

impl fmt::Debug for TimeoutLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutLayer")
            .field("sets", &self.shared.sets)
            .field("models", &self.shared.models)
            .field("targets", &self.shared.targets)
            .finish_non_exhaustive()
    }
}

/// Builds a [`TimeoutLayer`].
#[must_use]
pub struct TimeoutBuilder {
    all: Timeouts,
    models: Vec<(Box<str>, Change)>,
    targets: Vec<(Box<str>, Change)>,
}

type Change = Box<dyn FnOnce(Timeouts) -> Timeouts>;

impl TimeoutBuilder {
    /// Sets all limits at once; default [`Timeouts::default`].
    pub fn all(mut self, timeouts: Timeouts) -> Self {
        self.all = timeouts;
        self
    }

    /// Sets [`Timeouts::connect`]; default 5 s.
    pub fn connect(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.all = self.all.connect(limit);
        self
    }

    /// Sets [`Timeouts::first_token`]; default 60 s.
    pub fn first_token(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.all = self.all.first_token(limit);
        self
    }

    /// Sets [`Timeouts::idle`]; default 60 s.
    pub fn idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.all = self.all.idle(limit);
        self
    }

    /// Sets [`Timeouts::response`]; default none.
    pub fn response(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.all = self.all.response(limit);
        self
    }

    /// Sets [`Timeouts::total`]; default 10 min.
    pub fn total(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.all = self.all.total(limit);
        self
    }

    /// Sets [`Timeouts::unary_over_stream`]; default no.
    pub fn unary_over_stream(mut self, over_stream: bool) -> Self {
        self.all = self.all.unary_over_stream(over_stream);
        self
    }

    /// Changes the limits of all for one model, by the exact name that the target is asked for. The
    /// last change for a model counts.
    pub fn for_model(
        mut self,
        model: impl Into<Box<str>>,
        change: impl FnOnce(Timeouts) -> Timeouts + 'static,
    ) -> Self {
        self.models.push((model.into(), Box::new(change)));
        self
    }

    /// Changes the limits of all for one target, by its exact name; they win over those of a model.
    /// The last change for a target counts.
    pub fn for_target(
        mut self,
        target: impl Into<Box<str>>,
        change: impl FnOnce(Timeouts) -> Timeouts + 'static,
    ) -> Self {
        self.targets.push((target.into(), Box::new(change)));
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// A limit of zero.
    pub fn build(self) -> Result<TimeoutLayer, ConfigError> {
        let Self {
            all,
            models,
            targets,
        } = self;
        all.check(None)?;
        let mut sets = vec![all];
        let mut changed = |changes: Vec<(Box<str>, Change)>| {
            let changes = changes.into_iter().map(|(name, change)| {
                let timeouts = change(all);
                timeouts.check(Some(&name))?;
                let place = Place(sets.len());
                sets.push(timeouts);
                Ok((name, place))
            });
            changes.collect::<Result<HashMap<_, _>, ConfigError>>()
        };
        let (models, targets) = (changed(models)?, changed(targets)?);
        Ok(TimeoutLayer {
            shared: Arc::new(Shared {
                sets,
                models,
                targets,
                counters: Counters::default(),
            }),
        })
    }
}

impl fmt::Debug for TimeoutBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutBuilder")
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}
