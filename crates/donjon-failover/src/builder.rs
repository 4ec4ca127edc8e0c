//! Building a failover.

use std::{fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, Disposition, LlmError, LlmRequest, LlmResponse, Name};
use tower_service::Service;

use crate::{
    error::ConfigError,
    health::HealthPolicy,
    layer::FailoverLayer,
    probe::{Probes, Probing},
    resume::{Hook, Resume, resumable},
    route::Route,
    service::Failover,
    state::{Config, Roster, Shared, TargetState, group_table},
    target::{Target, WhenOut},
};

/// The longest wait that is begun while an untried target remains, unless it is set: two seconds.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(2);

/// Over how long a latency fades to a third, unless it is set: ten seconds.
pub const DEFAULT_DECAY: Duration = Duration::from_secs(10);

/// Builds a [`Failover`], or a [`FailoverLayer`].
pub struct FailoverBuilder<S> {
    targets: Vec<Target<S>>,
    config: Config,
    probes: Probes,
    resume: Option<Hook<S>>,
}

impl<S> FailoverBuilder<S> {
    pub(crate) fn new() -> Self {
        Self {
            targets: Vec::new(),
            config: Config {
                patience: DEFAULT_PATIENCE,
                classify: Box::new(group_table as fn(&_) -> Disposition),
                route: None,
                health: None,
                when_out: WhenOut::default(),
                decay: DEFAULT_DECAY,
                resume: None,
            },
            probes: Probes::default(),
            resume: None,
        }
    }

    /// Adds a target. They are asked in the order in which they are added.
    #[must_use]
    pub fn target(mut self, target: Target<S>) -> Self {
        self.targets.push(target);
        self
    }

    /// Adds targets.
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = Target<S>>) -> Self {
        self.targets.extend(targets);
        self
    }

    /// The longest wait that a layer further in begins while an untried target remains, for calls
    /// that do not say it themselves; default [`DEFAULT_PATIENCE`]. Zero: never wait.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.config.patience = patience;
        self
    }

    /// Decides which errors another target is asked after
    /// ([`Disposition::failover`]). The default is core's table; besides, a target that is a failover
    /// itself and has no target left fails over, too.
    #[must_use]
    pub fn classify(mut self, classify: impl Classify + 'static) -> Self {
        self.config.classify = Box::new(classify);
        self
    }

    /// Decides which target is asked next; default [`Ordered`](crate::Ordered).
    #[must_use]
    pub fn route(mut self, route: impl Route + 'static) -> Self {
        self.config.route = Some(Box::new(route));
        self
    }

    /// Takes targets out whose calls go badly; default: none is ever taken out.
    #[must_use]
    pub fn health(mut self, health: impl Into<Option<HealthPolicy>>) -> Self {
        self.config.health = health.into();
        self
    }

    /// How targets with a [probe](Target::probe) are looked at; default [`Probes::default`].
    #[must_use]
    pub const fn probes(mut self, probes: Probes) -> Self {
        self.probes = probes;
        self
    }

    /// What is done when no target is left but such as are out; default [`WhenOut::LeastBad`].
    #[must_use]
    pub const fn when_out(mut self, when_out: WhenOut) -> Self {
        self.config.when_out = when_out;
        self
    }

    /// Over how long a latency fades to a third; default [`DEFAULT_DECAY`].
    #[must_use]
    pub const fn latency_decay(mut self, decay: Duration) -> Self {
        self.config.decay = decay;
        self
    }

    /// Continues streams that break after their first token; default: the caller is told.
    ///
    /// A stream then asks targets itself, wherever it was taken: that is why this, and only this, asks
    /// more of a service than failover does.
    #[must_use]
    pub fn resume(mut self, resume: impl Into<Option<Resume>>) -> Self
    where
        S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
        S::Error: Into<LlmError>,
        S::Future: Send,
    {
        self.config.resume = resume.into();
        self.resume = self
            .config
            .resume
            .is_some()
            .then_some(resumable::<S> as Hook<S>);
        self
    }

    /// Builds the service.
    ///
    /// # Errors
    ///
    /// There is no target, two have one name, or a name is empty.
    pub fn build(self) -> Result<Failover<S>, ConfigError> {
        if self.targets.is_empty() {
            return Err(ConfigError::NoTargets);
        }
        let resume = self.resume;
        let (shared, services, probing) = self.into_parts(None)?;
        let services = services.into();
        Ok(Failover::new(shared, services, probing, false, resume))
    }

    /// Builds a layer: the service that it is put around is the first target, named `first`, and is
    /// asked for the model of the request; the targets added here are its fallbacks.
    ///
    /// # Errors
    ///
    /// There is no fallback, two targets have one name, or a name is empty.
    pub fn build_layer(self, first: impl Into<Name>) -> Result<FailoverLayer<S>, ConfigError> {
        if self.targets.is_empty() {
            return Err(ConfigError::NoTargets);
        }
        let resume = self.resume;
        let (shared, fallbacks, probing) = self.into_parts(Some(Target::new(first, ())))?;
        let fallbacks = fallbacks.into();
        Ok(FailoverLayer::from_parts(
            shared, fallbacks, probing, resume,
        ))
    }

    fn into_parts(self, first: Option<Target<()>>) -> Result<Parts<S>, ConfigError> {
        let mut states: Vec<Arc<TargetState>> = Vec::with_capacity(self.targets.len() + 1);
        if let Some(first) = first {
            first.check(0)?;
            states.push(Arc::new(TargetState::of(&first)));
        }
        for target in &self.targets {
            let place = states.len();
            target.check(place)?;
            if states.iter().any(|known| known.name == target.name) {
                let name = target.name;
                return Err(ConfigError::DuplicateName { place, name });
            }
            states.push(Arc::new(TargetState::of(target)));
        }
        if let Some(health) = &self.config.health {
            health.check()?;
        }
        if let Some(resume) = &self.config.resume {
            resume.check()?;
        }
        self.probes.check()?;
        if self.config.decay.is_zero() {
            return Err(ConfigError::Impossible {
                field: "latency_decay".into(),
                why: "must be some time",
            });
        }
        let services = self.targets.into_iter().map(|target| target.service);
        let roster = Arc::new(Roster::new(states));
        let shared = Arc::new(Shared::new(self.config, roster));
        let probing = Arc::new(Probing::new(self.probes));
        probing.start(&shared);
        Ok((shared, services.collect(), probing))
    }
}

type Parts<S> = (Arc<Shared>, Vec<S>, Arc<Probing>);

impl<S> fmt::Debug for FailoverBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverBuilder")
            .field("targets", &self.targets)
            .field("patience", &self.config.patience)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(names: &[&str]) -> Result<Failover<()>, ConfigError> {
        let targets = names.iter().map(|name| Target::new(*name, ()));
        Failover::builder().targets(targets).build()
    }

    #[test]
    fn an_impossible_configuration_names_its_field() {
        let text = |error: ConfigError| error.to_string();
        assert!(build(&["a", "b"]).is_ok());
        let none = build(&[]).expect_err("no target");
        assert_eq!(none, ConfigError::NoTargets);
        assert_eq!(text(none), "`targets`: at least one target is needed");
        let empty = build(&["a", " "]).expect_err("an empty name");
        assert_eq!(text(empty), "`targets[1].name`: is empty");
        let twice = build(&["a", "b", "a"]).expect_err("a name given twice");
        assert_eq!(
            text(twice),
            "`targets[2].name`: another target is named `a`"
        );
        let model = Failover::builder().target(Target::new("a", ()).with_model(""));
        let model = model.build().expect_err("an empty model");
        assert_eq!(text(model), "`targets[0].model`: is empty");
        let weight = Failover::builder().target(Target::new("a", ()).weight(0));
        let weight = weight.build().expect_err("no weight");
        assert_eq!(text(weight), "`targets[0].weight`: must be at least 1");
        let health = HealthPolicy::new().failure_rate(f64::NAN);
        let health = Failover::builder()
            .target(Target::new("a", ()))
            .health(health);
        let health = health.build().expect_err("no rate");
        assert_eq!(health.field(), "health.failure_rate");
        let probes = Probes::every(Duration::ZERO);
        let probes = Failover::builder()
            .target(Target::new("a", ()))
            .probes(probes);
        assert_eq!(
            probes.build().expect_err("no time").field(),
            "probes.interval"
        );
    }

    #[test]
    fn of_a_layer_the_service_below_has_the_first_place() {
        let builder = || Failover::builder().target(Target::new("b", ()));
        assert!(builder().build_layer("a").is_ok());
        let twice = builder().build_layer("b").expect_err("a name given twice");
        assert_eq!(twice.field(), "targets[1].name");
        let none = Failover::<()>::builder().build_layer("a");
        assert_eq!(none.expect_err("no fallback"), ConfigError::NoTargets);
    }
}
