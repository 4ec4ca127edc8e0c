//! Building a failover, and what can be wrong with it.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use donjon_core::{Classify, Disposition, Name};

use crate::{
    layer::FailoverLayer,
    route::Route,
    service::Failover,
    state::{Shared, TargetState, group_table},
    target::Target,
};

/// The longest wait that is begun while an untried target remains, unless it is set: two seconds.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(2);

/// Builds a [`Failover`], or a [`FailoverLayer`].
pub struct FailoverBuilder<S> {
    targets: Vec<Target<S>>,
    patience: Duration,
    classify: Box<dyn Classify>,
    route: Option<Box<dyn Route>>,
}

impl<S> FailoverBuilder<S> {
    pub(crate) fn new() -> Self {
        Self {
            targets: Vec::new(),
            patience: DEFAULT_PATIENCE,
            classify: Box::new(group_table as fn(&_) -> Disposition),
            route: None,
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
        self.patience = patience;
        self
    }

    /// Decides which errors another target is asked after
    /// ([`Disposition::failover`]). The default is core's table; besides, a target that is a failover
    /// itself and has no target left fails over, too.
    #[must_use]
    pub fn classify(mut self, classify: impl Classify + 'static) -> Self {
        self.classify = Box::new(classify);
        self
    }

    /// Decides in which order targets are asked; default as they were
    /// configured.
    #[must_use]
    pub fn route(mut self, route: impl Route + 'static) -> Self {
        self.route = Some(Box::new(route));
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
        let (shared, services) = self.into_parts(None)?;
        Ok(Failover::new(shared, services.into()))
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
        let first = TargetState::of(&Target::new(first, ()));
        let (shared, fallbacks) = self.into_parts(Some(first))?;
        Ok(FailoverLayer::from_parts(shared, fallbacks.into()))
    }

    fn into_parts(self, first: Option<TargetState>) -> Result<(Arc<Shared>, Vec<S>), ConfigError> {
        let states: Vec<_> = first
            .into_iter()
            .chain(self.targets.iter().map(TargetState::of))
            .collect();
        check(&states)?;
        let services = self.targets.into_iter().map(|target| target.service);
        let shared = Shared::new(states, self.patience, self.classify, self.route);
        Ok((Arc::new(shared), services.collect()))
    }
}

fn check(targets: &[TargetState]) -> Result<(), ConfigError> {
    for (place, target) in targets.iter().enumerate() {
        if target.name.trim().is_empty() {
            return Err(ConfigError::EmptyName { place });
        }
        if target.models.owned().any(|model| model.trim().is_empty()) {
            return Err(ConfigError::EmptyModel { place });
        }
        if targets[..place].iter().any(|t| t.name == target.name) {
            let name = target.name;
            return Err(ConfigError::DuplicateName { place, name });
        }
    }
    Ok(())
}

impl<S> fmt::Debug for FailoverBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverBuilder")
            .field("targets", &self.targets)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the configuration of a failover. Places count from 0, in the order of asking;
/// of a [`FailoverLayer`] the service that it is put around has place 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no target.
    NoTargets,
    /// A name is empty.
    EmptyName {
        /// The target's place.
        place: usize,
    },
    /// A name was given to a target before.
    DuplicateName {
        /// The later target's place.
        place: usize,
        /// The name.
        name: Name,
    },
    /// A target is to be asked for a model without a name.
    EmptyModel {
        /// The target's place.
        place: usize,
    },
}

impl ConfigError {
    /// The field that is wrong, such as `targets[1].name`.
    pub fn field(&self) -> Cow<'static, str> {
        match self {
            Self::NoTargets => "targets".into(),
            Self::EmptyName { place } | Self::DuplicateName { place, .. } => {
                format!("targets[{place}].name").into()
            }
            Self::EmptyModel { place } => format!("targets[{place}].model").into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: ", self.field())?;
        match self {
            Self::NoTargets => f.write_str("at least one target is needed"),
            Self::EmptyName { .. } | Self::EmptyModel { .. } => f.write_str("is empty"),
            Self::DuplicateName { name, .. } => write!(f, "another target is named `{name}`"),
        }
    }
}

impl Error for ConfigError {}

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
