//! What the services of one layer share.

use std::{collections::HashMap, fmt, sync::Arc};

use donjon_core::{Events, Prompt};
use papaya::ResizeMode;

use crate::{
    builder::Settings,
    calibration::Calibration,
    count::Count,
    figures::Tally,
    handle::TokenEvent,
    registry::{Model, Registry},
    ruler::{self, Ruler},
    rules::Rules,
    seen::Seen,
};

/// What the services of one layer share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    registry: Registry,
    /// By the names of the registry.
    facts: HashMap<Box<str>, Arc<Facts>>,
    unknown: Arc<Facts>,
    /// By the names that were asked for, up to so many.
    asked: papaya::HashMap<Arc<str>, Arc<Asked>, foldhash::fast::RandomState>,
    /// The figures of all others.
    others: Tally,
    pub(crate) calibrations: Vec<(String, Arc<Calibration>)>,
    seen: Seen,
    pub(crate) events: Events<TokenEvent>,
}

/// What is known of a model, and who counts for it.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) model: Model,
    pub(crate) ruler: Arc<Ruler>,
}

/// A model that was asked for.
pub(crate) struct Asked {
    pub(crate) facts: Arc<Facts>,
    pub(crate) tally: Tally,
}

impl Shared {
    pub(crate) fn new(settings: Settings, registry: Registry, unknown: Model) -> Self {
        let mut rulers = Rulers::default();
        let facts = registry.iter().map(|(name, model)| {
            let facts = rulers.facts(model, &settings);
            (name.into(), facts)
        });
        let facts = facts.collect();
        let unknown = rulers.facts(&unknown, &settings);
        let asked = papaya::HashMap::builder()
            .hasher(foldhash::fast::RandomState::default())
            .resize_mode(ResizeMode::Blocking);
        Self {
            seen: Seen::new(settings.remember / 8),
            facts,
            unknown,
            asked: asked.build(),
            others: Tally::default(),
            calibrations: rulers.calibrations,
            events: Events::new(256),
            registry,
            settings,
        }
    }

    /// What is known of the model `name`.
    pub(crate) fn facts(&self, name: &str) -> &Arc<Facts> {
        let known = self.registry.get(name);
        known
            .and_then(|(name, _)| self.facts.get(name))
            .unwrap_or(&self.unknown)
    }

    /// The same of a model that may have been asked for before.
    pub(crate) fn facts_of(&self, name: &str) -> Arc<Facts> {
        let asked = self.asked.pin();
        match asked.get(name) {
            Some(known) => known.facts.clone(),
            None => self.facts(name).clone(),
        }
    }

    /// The model `name`, which is remembered from now on if there is room.
    #[inline]
    pub(crate) fn asked(&self, name: &Arc<str>) -> Arc<Asked> {
        let asked = self.asked.pin();
        match asked.get(&**name) {
            Some(known) => known.clone(),
            None => self.first_asked(name),
        }
    }

    #[cold]
    fn first_asked(&self, name: &Arc<str>) -> Arc<Asked> {
        let facts = self.facts(name).clone();
        // Callers choose the names: those that find no room have their figures together.
        if self.asked.len() >= self.settings.max_models {
            let tally = self.others.clone();
            return Arc::new(Asked { facts, tally });
        }
        let tally = Tally::default();
        let new = Arc::new(Asked { facts, tally });
        self.asked.pin().get_or_insert(name.clone(), new).clone()
    }

    /// The figures of each model, those of all that found no room under an empty name.
    pub(crate) fn tallies(&self) -> Vec<(Arc<str>, Tally)> {
        let asked = self.asked.pin();
        let tallies = asked
            .iter()
            .map(|(name, asked)| (name.clone(), asked.tally.clone()));
        let mut tallies: Vec<_> = tallies.collect();
        tallies.sort_by(|one, other| one.0.cmp(&other.0));
        if self.others.figures() != crate::figures::Figures::default() {
            tallies.push(("".into(), self.others.clone()));
        }
        tallies
    }

    /// The tokens of `prompt`, not corrected.
    #[inline]
    pub(crate) fn raw(&self, ruler: &Ruler, prompt: &Arc<Prompt>) -> Count {
        match self.seen.get(prompt, ruler.number) {
            Some(word) => ruler::unpack(word),
            None => self.count(ruler, prompt),
        }
    }

    #[cold]
    fn count(&self, ruler: &Ruler, prompt: &Arc<Prompt>) -> Count {
        let count = ruler.prompt(prompt);
        if let Some(word) = ruler::pack(count) {
            self.seen.set(prompt, ruler.number, word);
        }
        count
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// The rulers of the registry's models: one for all that count alike.
#[derive(Default)]
struct Rulers {
    rulers: Vec<Arc<Ruler>>,
    calibrations: Vec<(String, Arc<Calibration>)>,
}

impl Rulers {
    fn facts(&mut self, model: &Model, settings: &Settings) -> Arc<Facts> {
        let ruler = self.ruler(model, &model.rules, settings);
        Arc::new(Facts {
            model: model.clone(),
            ruler,
        })
    }

    fn ruler(&mut self, model: &Model, rules: &Rules, settings: &Settings) -> Arc<Ruler> {
        let name = model.tokenizer.name();
        let alike = |ruler: &&Arc<Ruler>| ruler.tokenizer.name() == name && ruler.rules == *rules;
        if let Some(ruler) = self.rulers.iter().find(alike) {
            return ruler.clone();
        }
        let known = self.calibrations.iter().find(|(known, _)| known == name);
        let calibration = match known {
            Some((_, calibration)) => calibration.clone(),
            None => {
                let new = Arc::new(Calibration::new());
                self.calibrations.push((name.to_owned(), new.clone()));
                new
            }
        };
        let number = u32::try_from(self.rulers.len()).unwrap_or(u32::MAX);
        let ruler = Arc::new(Ruler::new(
            model.tokenizer.clone(),
            rules.clone(),
            number,
            calibration,
            settings.remember,
            settings.sampling,
        ));
        self.rulers.push(ruler.clone());
        ruler
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layer::TokenCountLayer;
    use donjon_core::{Chat, Message};

    #[test]
    fn a_prompt_that_was_counted_is_not_looked_at_again() {
        let shared = TokenCountLayer::default().shared();
        let ruler = &shared.facts("nobody-knows").ruler;
        let prompt = Arc::new(Prompt::Chat(Chat::new([Message::user("Hi")])));
        let first = shared.raw(ruler, &prompt);
        assert_eq!(
            shared.seen.get(&prompt, ruler.number).map(ruler::unpack),
            Some(first)
        );
        // What is remembered counts, and not what it says.
        let other = ruler::pack(Count::Exact(7)).expect("it fits");
        shared.seen.set(&prompt, ruler.number, other);
        assert_eq!(shared.raw(ruler, &prompt), Count::Exact(7));
    }
}
