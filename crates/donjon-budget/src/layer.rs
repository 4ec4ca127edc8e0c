//! The layer of one target.

use donjon_core::{Name, shape::CheckService};
use tower_layer::Layer;

use crate::{budgets::Budgets, check::BudgetCheck, handle::BudgetHandle, prices::ServiceTier};

/// Reserves for each call what it may cost, and settles what it did; see the [crate](crate).
///
/// It stands at a target; all layers over one [`Budgets`] share its limits.
#[derive(Clone, Debug)]
pub struct BudgetLayer {
    budgets: Budgets,
    provider: Option<Name>,
    tier: Option<ServiceTier>,
}

/// A service behind a budget.
pub type Budget<S> = CheckService<S, BudgetCheck>;

impl BudgetLayer {
    pub(crate) const fn new(budgets: Budgets) -> Self {
        Self {
            budgets,
            provider: None,
            tier: None,
        }
    }

    /// Sets whose prices the target has, by its name in the list; default none: a model is found by its
    /// name alone, where one provider has it or the name says which.
    #[must_use]
    pub fn provider(mut self, name: impl Into<Name>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// Sets at which tier the target serves; default what the request asks for (`service_tier`).
    #[must_use]
    pub const fn service_tier(mut self, tier: ServiceTier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// What its services ask, to be put before a service by hand ([`CheckService`]).
    pub fn check(&self) -> BudgetCheck {
        BudgetCheck::new(self.budgets.clone(), self.provider, self.tier)
    }

    /// Reads and controls the budgets.
    pub fn handle(&self) -> BudgetHandle {
        self.budgets.handle()
    }
}

impl<S> Layer<S> for BudgetLayer {
    type Service = Budget<S>;

    fn layer(&self, inner: S) -> Budget<S> {
        CheckService::new(inner, self.check())
    }
}
