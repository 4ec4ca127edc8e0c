//! What a stateful layer keeps apart.

use std::{fmt, sync::Arc};

use crate::{ledger::AttemptRef, vocab::LlmRequest};

/// What a stateful layer keeps apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// Nothing: there is one state for all.
    #[default]
    Global,
    /// By one name.
    Name(Arc<str>),
    /// By two names.
    Pair(Arc<str>, Arc<str>),
}

impl Key {
    /// By one name.
    pub fn name(name: impl Into<Arc<str>>) -> Self {
        Self::Name(name.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Name(name) => f.write_str(name),
            Self::Pair(one, other) => write!(f, "{one}/{other}"),
        }
    }
}

/// How a request's [`Key`] is found. A request that does not say what is asked for falls under
/// [`Key::Global`].
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum KeyBy {
    /// One state for all.
    #[default]
    Global,
    /// The target that its attempt goes to.
    Target,
    /// The model that is asked.
    Model,
    /// [`Identity::tenant`](crate::Identity::tenant).
    Tenant,
    /// [`Identity::tenant`](crate::Identity::tenant) and [`Identity::user`](crate::Identity::user).
    User,
    /// [`Identity::project`](crate::Identity::project).
    Project,
    /// Anything else.
    Custom(Arc<dyn Fn(&LlmRequest) -> Key + Send + Sync>),
}

impl KeyBy {
    /// Finds keys by `find`.
    pub fn custom(find: impl Fn(&LlmRequest) -> Key + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(find))
    }

    /// The key of `request`.
    pub fn key(&self, request: &LlmRequest) -> Key {
        let name = |name: Option<&Arc<str>>| name.cloned().map_or(Key::Global, Key::Name);
        match self {
            Self::Global => Key::Global,
            Self::Target => {
                let attempt = request.call.attempt();
                let target = attempt.and_then(AttemptRef::target);
                target.map_or(Key::Global, |name| Key::Name(name.to_arc()))
            }
            Self::Model => Key::Name(request.model().clone()),
            Self::Tenant => name(request.identity().tenant.as_ref()),
            Self::Project => name(request.identity().project.as_ref()),
            Self::User => match (&request.identity().tenant, &request.identity().user) {
                (Some(tenant), Some(user)) => Key::Pair(tenant.clone(), user.clone()),
                (None, Some(user)) => Key::Pair("".into(), user.clone()),
                (None, None) => Key::Global,
                (tenant, None) => name(tenant.as_ref()),
            },
            Self::Custom(find) => find(request),
        }
    }
}

impl fmt::Debug for KeyBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "Global",
            Self::Target => "Target",
            Self::Model => "Model",
            Self::Tenant => "Tenant",
            Self::User => "User",
            Self::Project => "Project",
            Self::Custom(_) => "Custom",
        })
    }
}
