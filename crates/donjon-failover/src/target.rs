//! A target: a name, the service behind it, and the model that it is asked for.

use std::{collections::HashMap, fmt, sync::Arc};

use donjon_core::Name;

/// One place that can answer: a name, the service behind it, and which model it is asked for.
#[derive(Clone)]
pub struct Target<S> {
    pub(crate) name: Name,
    pub(crate) service: S,
    pub(crate) models: Models,
    pub(crate) enabled: bool,
}

impl<S> Target<S> {
    /// A target that is asked for the model that the request asks for, and is enabled.
    pub fn new(name: impl Into<Name>, service: S) -> Self {
        Self {
            name: name.into(),
            service,
            models: Models::default(),
            enabled: true,
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

    /// Puts `map` of its service in the place of it: layers, or a type that all targets share.
    #[must_use]
    pub fn map_service<T>(self, map: impl FnOnce(S) -> T) -> Target<T> {
        Target {
            name: self.name,
            service: map(self.service),
            models: self.models,
            enabled: self.enabled,
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
