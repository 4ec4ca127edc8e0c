//! What can be wrong with a configuration, and with a change of it.

use std::{borrow::Cow, error::Error, fmt};

use donjon_core::Name;

/// What is wrong with the configuration of a failover. Places count from 0, in the order of asking;
/// of a [`FailoverLayer`](crate::FailoverLayer) the service that it is put around has place 0.
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
    /// A value makes no sense.
    Impossible {
        /// The field, such as `targets[1].weight` or `health.failure_rate`.
        field: Cow<'static, str>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The targets of a [`FailoverLayer`](crate::FailoverLayer) are those that it was built with.
    Layered,
}

impl ConfigError {
    /// The field that is wrong, such as `targets[1].name`.
    pub fn field(&self) -> Cow<'static, str> {
        match self {
            Self::NoTargets | Self::Layered => "targets".into(),
            Self::EmptyName { place } | Self::DuplicateName { place, .. } => {
                format!("targets[{place}].name").into()
            }
            Self::EmptyModel { place } => format!("targets[{place}].model").into(),
            Self::Impossible { field, .. } => field.clone(),
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
            Self::Impossible { why, .. } => f.write_str(why),
            Self::Layered => f.write_str("those of a layer cannot be changed"),
        }
    }
}

impl Error for ConfigError {}

/// No target has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTarget(Box<str>);

impl UnknownTarget {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnknownTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no target is named `{}`", self.0)
    }
}

impl Error for UnknownTarget {}
