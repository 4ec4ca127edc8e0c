//! How tokens are counted, as the configuration says.

use donjon::token_count::{Fit, TokenCountLayer, TokenCounter};
use serde::Deserialize;

use super::config::ConfigError;

/// How tokens are counted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Whether the oldest messages are left out of what does not fit a model; they are not if not said.
    pub trim: Option<bool>,
    /// Whether limits and budgets reserve the most that a count may be off; they do not if not said.
    pub cautious: Option<bool>,
    /// Whether a request is refused that does not fit its model, and goes on to the next target; it is
    /// if not said.
    pub refuse: Option<bool>,
    /// How many tokens an answer is taken for where nothing limits it.
    pub default_output_tokens: Option<u64>,
}

impl Tokens {
    /// Counts before a target is chosen, for the model that is asked for, and refuses nothing: what does not
    /// fit one target may fit another.
    pub(super) fn before(said: Option<&Self>) -> Result<TokenCounter, ConfigError> {
        let mut tokens = TokenCountLayer::builder().fit(Fit::Off);
        if let Some(output) = said.and_then(|said| said.default_output_tokens) {
            tokens = tokens.default_output(output);
        }
        let built = tokens.build();
        let built =
            built.map_err(|error| ConfigError::new("tokens.default_output_tokens", error))?;
        Ok(built.check())
    }

    pub(super) fn layer(&self) -> Result<TokenCountLayer, ConfigError> {
        let mut tokens = TokenCountLayer::builder()
            .trim(self.trim.unwrap_or(false))
            .cautious(self.cautious.unwrap_or(false));
        if self.refuse == Some(false) {
            tokens = tokens.fit(Fit::Off);
        }
        if let Some(output) = self.default_output_tokens {
            tokens = tokens.default_output(output);
        }
        tokens
            .build()
            .map_err(|error| ConfigError::new("tokens.default_output_tokens", error))
    }
}
