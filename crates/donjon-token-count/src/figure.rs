//! The figure alone, for limits outside of failover.

use std::sync::Arc;

use donjon_core::{
    Estimate, LlmError, LlmRequest,
    shape::{Check, CheckService},
};

use crate::shared::Shared;

/// A service whose requests carry a figure: see [`TokenFigure`].
pub type TokenFigures<S> = CheckService<S, TokenFigure>;

/// Puts the tokens of a request on it, as the model counts that it asks for, and does nothing else: it
/// refuses nothing, leaves nothing out, and learns nothing.
///
/// For a limit of callers' tokens outside of failover, where it is not known yet which model will serve.
/// Where the model that serves counts alike, its [`TokenCounter`](crate::TokenCounter) finds the prompt
/// counted. An answer that nobody limits is taken for
/// [`default_output`](crate::TokenCountBuilder::default_output), not for the model's longest: a limit gives back what
/// was not used only at the end.
#[derive(Clone, Debug)]
pub struct TokenFigure {
    shared: Arc<Shared>,
}

impl TokenFigure {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn estimate(&self, request: &LlmRequest) -> Estimate {
        let facts = self.shared.facts_of(request.model());
        let settings = &self.shared.settings;
        let raw = self.shared.raw(&facts.ruler, request.shared_prompt());
        let count = facts.ruler.calibration.correct(raw);
        let input = if settings.cautious {
            count.most()
        } else {
            count.tokens()
        };
        let output = request.as_chat().map_or(0, |chat| {
            let longest = facts.model.max_output.unwrap_or(u64::MAX);
            let one = chat.output_limit().unwrap_or(settings.default_output);
            one.min(longest).saturating_mul(chat.choices().into())
        });
        Estimate::new(input, output)
    }
}

impl Check for TokenFigure {
    type Permit = ();

    #[inline]
    fn check(&self, request: &mut LlmRequest) -> Result<Option<()>, LlmError> {
        request.call.estimate = Some(self.estimate(request));
        Ok(None)
    }
}
