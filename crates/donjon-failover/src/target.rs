//! A target: a name, the service behind it, and the model that it is asked for.

use std::{collections::HashMap, fmt, sync::Arc};

use donjon_core::Name;

use crate::{
    capability::{Capability, EVERYTHING},
    error::ConfigError,
    probe::Probe,
};

/// One place that can answer: a name, the service behind it, and which model it is asked for.
#[derive(Clone)]
pub struct Target<S> {
    pub(crate) name: Name,
    pub(crate) service: S,
    pub(crate) models: Models,
    pub(crate) enabled: bool,
    pub(crate) priority: u32,
    pub(crate) weight: u32,
    pub(crate) cap: Option<u32>,
    pub(crate) abilities: u32,
    pub(crate) context_window: Option<u64>,
    pub(crate) continues: bool,
    pub(crate) probe: Option<Arc<dyn Probe>>,
}

impl<S> Target<S> {
    /// A target that is asked for the model that the request asks for, is enabled, and can do
    /// everything.
    pub fn new(name: impl Into<Name>, service: S) -> Self {
        Self {
            name: name.into(),
            service,
            models: Models::default(),
            enabled: true,
            priority: 0,
            weight: 1,
            cap: None,
            abilities: EVERYTHING,
            context_window: None,
            continues: false,
            probe: None,
        }
    }

    /// Asks this target for `model`, whatever the request asks for.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.models.otherwise = Some(model.into());
        self
    }

    /// Asks this target for `own` where the request asks for `asked`. What is not mapped so is left
    /// to [`with_model`](Self::with_model), or stays the same.
    #[must_use]
    pub fn map_model(mut self, asked: impl Into<Arc<str>>, own: impl Into<Arc<str>>) -> Self {
        self.models.by_asked.insert(asked.into(), own.into());
        self
    }

    /// Whether it is asked at all; default true. The
    /// [handle](crate::FailoverHandle) changes it while calls go by.
    #[must_use]
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// The lowest is asked first, the next when none of these can be; default 0. Among targets of one
    /// priority the route chooses.
    #[must_use]
    pub const fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// How much it gets in relation to others, where the route goes by weight; default 1.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The most calls that it may have in progress, streams to their end; default no limit. A call that
    /// finds it full goes elsewhere; nobody waits (`donjon-pool` does that).
    #[must_use]
    pub fn max_in_flight(mut self, most: impl Into<Option<u32>>) -> Self {
        self.cap = most.into();
        self
    }

    /// Says that it cannot do this. Calls that need it pass it over.
    #[must_use]
    pub const fn without(mut self, capability: Capability) -> Self {
        self.abilities &= !capability.bit();
        self
    }

    /// The tokens that its model takes; default unknown. A prompt that is estimated
    /// ([`Call::estimate`](donjon_core::Call::estimate)) to be longer goes elsewhere.
    #[must_use]
    pub fn context_window(mut self, tokens: impl Into<Option<u64>>) -> Self {
        self.context_window = tokens.into();
        self
    }

    /// Whether it goes on with an answer that another target began: given the request and, as the last
    /// message, the assistant's text so far, it answers with what follows. Default no. (Targets that can do
    /// [everything](Capability::Prefill) are only said not to reject such a request; many begin anew.)
    #[must_use]
    pub const fn continues(mut self, continues: bool) -> Self {
        self.continues = continues;
        self
    }

    /// Looks actively whether it works, as [`Probes`](crate::Probes) says.
    #[must_use]
    pub fn probe(mut self, probe: impl Probe) -> Self {
        self.probe = Some(Arc::new(probe));
        self
    }

    /// Puts `map` of its service in the place of it: layers, or a type that all targets share.
    #[must_use]
    pub fn map_service<T>(self, map: impl FnOnce(S) -> T) -> Target<T> {
        Target {
            name: self.name,
            service: map(self.service),
            models: self.models,
            enabled: self.enabled,
            priority: self.priority,
            weight: self.weight,
            cap: self.cap,
            abilities: self.abilities,
            context_window: self.context_window,
            continues: self.continues,
            probe: self.probe,
        }
    }

    pub(crate) fn check(&self, place: usize) -> Result<(), ConfigError> {
        if self.name.trim().is_empty() {
            return Err(ConfigError::EmptyName { place });
        }
        if self.models.owned().any(|model| model.trim().is_empty()) {
            return Err(ConfigError::EmptyModel { place });
        }
        let zeros = [
            (self.weight == 0, "weight"),
            (self.cap == Some(0), "max_in_flight"),
            (self.context_window == Some(0), "context_window"),
        ];
        match zeros.into_iter().find(|(is, _)| *is) {
            None => Ok(()),
            Some((_, field)) => Err(ConfigError::Impossible {
                field: format!("targets[{place}].{field}").into(),
                why: "must be at least 1",
            }),
        }
    }

    /// Its name.
    pub const fn name(&self) -> Name {
        self.name
    }
}

impl<S> fmt::Debug for Target<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("models", &self.models)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// What is done when no target is left but such as are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenOut {
    /// The one that comes back first is asked all the same, then the next: health is a guess, and an
    /// attempt costs less than a call that fails.
    #[default]
    LeastBad,
    /// The call fails at once, and says when the first of them could work again.
    Fail,
}

/// From the model that is asked for to the one that the target has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Models {
    by_asked: HashMap<Arc<str>, Arc<str>>,
    otherwise: Option<Arc<str>>,
}

impl Models {
    /// What the target is asked for instead of `asked`; `None` if that stays.
    pub(crate) fn get(&self, asked: &str) -> Option<&Arc<str>> {
        self.by_asked.get(asked).or(self.otherwise.as_ref())
    }

    /// Every model that the target may be asked for.
    pub(crate) fn owned(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_asked.values().chain(&self.otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &Target<()>, model: &str) -> Option<String> {
        target.models.get(model).map(|own| String::from(&**own))
    }

    #[test]
    fn a_mapped_model_goes_before_the_fixed_one_and_without_either_it_stays() {
        let target = Target::new("t", ());
        assert_eq!(asked(&target, "a"), None);
        let target = target.map_model("a", "own-a");
        assert_eq!(asked(&target, "a").as_deref(), Some("own-a"));
        assert_eq!(asked(&target, "b"), None);
        let target = target.with_model("own");
        assert_eq!(asked(&target, "a").as_deref(), Some("own-a"));
        assert_eq!(asked(&target, "b").as_deref(), Some("own"));
    }
}
