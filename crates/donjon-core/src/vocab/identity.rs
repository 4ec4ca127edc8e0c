//! On whose behalf a call is made.

use std::sync::Arc;

/// On whose behalf a call is made: what limits, budgets and reports tell apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The customer, the account, the team.
    pub tenant: Option<Arc<str>>,
    /// The person.
    pub user: Option<Arc<str>>,
    /// The project within the tenant.
    pub project: Option<Arc<str>>,
    /// Anything else, for reports.
    pub tags: Vec<(Arc<str>, Arc<str>)>,
}

impl Identity {
    /// Starts an identity that says nothing.
    pub fn builder() -> IdentityBuilder {
        IdentityBuilder::default()
    }

    /// The identity that says nothing: one for each thread, so that threads do not contend for its
    /// count.
    pub(crate) fn anonymous() -> Arc<Self> {
        thread_local! {
            static ANONYMOUS: Arc<Identity> = Arc::default();
        }
        ANONYMOUS.with(Arc::clone)
    }
}

/// Builds an [`Identity`].
#[derive(Clone, Debug, Default)]
pub struct IdentityBuilder {
    identity: Identity,
}

impl IdentityBuilder {
    /// Sets the customer, the account, the team.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<Arc<str>>) -> Self {
        self.identity.tenant = Some(tenant.into());
        self
    }

    /// Sets the person.
    #[must_use]
    pub fn user(mut self, user: impl Into<Arc<str>>) -> Self {
        self.identity.user = Some(user.into());
        self
    }

    /// Sets the project within the tenant.
    #[must_use]
    pub fn project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.identity.project = Some(project.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.identity.tags.push((name.into(), value.into()));
        self
    }

    /// The identity.
    pub fn build(self) -> Arc<Identity> {
        Arc::new(self.identity)
    }
}
