//! Counting by hand, and reading figures.

use std::sync::Arc;

use donjon_core::{Events, Figure, LlmRequest, Snapshot};

use crate::{count::Count, figures::Figures, registry::Model, shared::Shared};

/// Counts by hand, and reads what a [`TokenCountLayer`](crate::TokenCountLayer) and its services share.
#[derive(Clone, Debug)]
pub struct TokenHandle {
    shared: Arc<Shared>,
}

/// What happened to a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TokenEvent {
    /// It was refused because it does not fit.
    Refused {
        /// The model that was to serve.
        model: Arc<str>,
        /// The tokens of its prompt.
        count: Count,
    },
    /// The oldest messages of its conversation were left out.
    Trimmed {
        /// The model that is to serve.
        model: Arc<str>,
        /// How many.
        messages: usize,
    },
}

/// How the estimates of a tokenizer are corrected.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Correction {
    /// The tokenizer's name.
    pub tokenizer: String,
    /// What its estimates are multiplied by; 1 where it is exact.
    pub factor: f32,
    /// How many reports that is made of, up to 65,535.
    pub reports: u64,
}

impl TokenHandle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The tokens of the prompt of `request`, for the model that it asks.
    pub fn count(&self, request: &LlmRequest) -> Count {
        let ruler = &self.shared.facts(request.model()).ruler;
        let raw = self.shared.raw(ruler, request.shared_prompt());
        ruler.calibration.correct(raw)
    }

    /// The tokens of `text` as a piece of ordinary text, for `model`.
    pub fn count_text(&self, model: &str, text: &str) -> Count {
        let ruler = &self.shared.facts(model).ruler;
        ruler.calibration.correct(ruler.text(text))
    }

    /// What is known of `model`, or what it is taken for.
    pub fn model(&self, model: &str) -> Model {
        self.shared.facts(model).model.clone()
    }

    /// What happened to the calls of `model`.
    pub fn figures_of(&self, model: &str) -> Figures {
        let mut models = self.models().into_iter();
        models
            .find(|(name, _)| &**name == model)
            .map(|(_, figures)| figures)
            .unwrap_or_default()
    }

    /// What happened to the calls of each model, sorted by name; those beyond
    /// [`max_models`](crate::TokenCountBuilder::max_models) together under an empty name.
    pub fn models(&self) -> Vec<(Arc<str>, Figures)> {
        let tallies = self.shared.tallies().into_iter();
        tallies
            .map(|(name, tally)| (name, tally.figures()))
            .collect()
    }

    /// How the estimates of each tokenizer are corrected.
    pub fn corrections(&self) -> Vec<Correction> {
        let calibrations = self.shared.calibrations.iter();
        let corrections = calibrations.map(|(name, calibration)| Correction {
            tokenizer: name.clone(),
            factor: calibration.factor(),
            reports: calibration.reports(),
        });
        corrections.collect()
    }

    /// Tells of calls that were refused or made shorter.
    pub fn events(&self) -> &Events<TokenEvent> {
        &self.shared.events
    }
}

impl Snapshot for TokenHandle {
    fn layer(&self) -> &'static str {
        "token_count"
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (name, of_model) in self.models() {
            let model: String = if name.is_empty() {
                "other".into()
            } else {
                (*name).into()
            };
            let counters = [
                ("calls", of_model.calls),
                ("refused", of_model.refused),
                ("trimmed", of_model.trimmed),
                ("reports", of_model.reports),
                ("estimated_tokens", of_model.estimated),
                ("actual_tokens", of_model.actual),
                ("off_tokens", of_model.off),
                ("within_error", of_model.within),
            ];
            let counters = counters.into_iter();
            figures.extend(
                counters.map(|(name, value)| {
                    Figure::counter(name, value).label("model", model.clone())
                }),
            );
        }
        for correction in self.corrections() {
            if correction.reports > 0 {
                figures.push(
                    Figure::gauge("correction", correction.factor.into())
                        .label("tokenizer", correction.tokenizer),
                );
            }
        }
        figures
    }
}
