//! Which model counts how, and how much it has room for.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use crate::{models, rules::Rules, tokenizer::Tokenizer};

/// What is known of a model.
#[derive(Clone)]
#[non_exhaustive]
pub struct Model {
    /// Who counts its tokens.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// What its provider adds to the texts.
    pub rules: Rules,
    /// The tokens of prompt and answer together that it has room for, where that is known.
    pub context: Option<u64>,
    /// The tokens of the prompt that it takes, where they are limited apart.
    pub max_input: Option<u64>,
    /// The most tokens of an answer, where that is known.
    pub max_output: Option<u64>,
    /// Where these facts stand.
    pub source: Cow<'static, str>,
    /// When they stood there, as year and month.
    pub as_of: Cow<'static, str>,
}

impl Model {
    /// A model whose limits are not known.
    pub fn new(tokenizer: impl Tokenizer, rules: Rules) -> Self {
        Self::shared(Arc::new(tokenizer), rules)
    }

    /// The same with a tokenizer that others use too.
    pub fn shared(tokenizer: Arc<dyn Tokenizer>, rules: Rules) -> Self {
        Self {
            tokenizer,
            rules,
            context: None,
            max_input: None,
            max_output: None,
            source: Cow::Borrowed(""),
            as_of: Cow::Borrowed(""),
        }
    }

    /// Sets the tokens of prompt and answer together that it has room for.
    #[must_use]
    pub fn context(mut self, tokens: impl Into<Option<u64>>) -> Self {
        self.context = tokens.into();
        self
    }

    /// Sets the tokens of the prompt that it takes.
    #[must_use]
    pub fn max_input(mut self, tokens: impl Into<Option<u64>>) -> Self {
        self.max_input = tokens.into();
        self
    }

    /// Sets the most tokens of an answer.
    #[must_use]
    pub fn max_output(mut self, tokens: impl Into<Option<u64>>) -> Self {
        self.max_output = tokens.into();
        self
    }

    /// Says where these facts stand, and when they stood there.
    #[must_use]
    pub fn stated(
        mut self,
        source: impl Into<Cow<'static, str>>,
        as_of: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.source = source.into();
        self.as_of = as_of.into();
        self
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("tokenizer", &self.tokenizer.name())
            .field("context", &self.context)
            .field("max_input", &self.max_input)
            .field("max_output", &self.max_output)
            .field("source", &self.source)
            .field("as_of", &self.as_of)
            .finish_non_exhaustive()
    }
}

/// Models by their names.
///
/// A name stands for itself and for all that begin with it and go on with a sign that is neither letter
/// nor digit: `gpt-4o` also for `gpt-4o-2024-08-06`, and not for `gpt-4omega`. Of several the longest
/// counts. What stands before the name of a model (`openai/gpt-4o`, `us.anthropic.claude-sonnet-4`,
/// `ft:gpt-4o-mini`) is left out where the whole is not known. Capitals do not matter.
#[derive(Clone)]
pub struct Registry {
    models: HashMap<Box<str>, Model>,
    longest: usize,
}

impl Registry {
    /// The models that are known to this crate.
    pub fn known() -> Self {
        let mut registry = Self::empty();
        models::add_to(&mut registry);
        registry
    }

    /// None.
    pub fn empty() -> Self {
        Self {
            models: HashMap::new(),
            longest: 0,
        }
    }

    /// Adds the model `name`, or says something else of it.
    pub fn insert(&mut self, name: &str, model: Model) -> &mut Self {
        let name = name.to_ascii_lowercase().into_boxed_str();
        self.longest = self.longest.max(name.len());
        self.models.insert(name, model);
        self
    }

    /// What is known of the model `name`, and the name it is known by.
    pub fn get(&self, name: &str) -> Option<(&str, &Model)> {
        let name = name.to_ascii_lowercase();
        let after_separators = name
            .match_indices(['/', ':', '.'])
            .map(|(at, separator)| at + separator.len());
        std::iter::once(0)
            .chain(after_separators)
            .find_map(|from| self.longest_prefix(&name[from..]))
    }

    fn longest_prefix(&self, name: &str) -> Option<(&str, &Model)> {
        let ends = (1..=name.len().min(self.longest)).rev();
        ends.filter(|end| name.is_char_boundary(*end))
            .filter(|end| {
                let next = name[*end..].chars().next();
                next.is_none_or(|next| !next.is_alphanumeric())
            })
            .find_map(|end| {
                let (name, model) = self.models.get_key_value(&name[..end])?;
                Some((&**name, model))
            })
    }

    /// Every name and what is known of it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.models.iter().map(|(name, model)| (&**name, model))
    }
}

/// The models that are known to this crate.
impl Default for Registry {
    fn default() -> Self {
        Self::known()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("models", &self.models.len())
            .finish_non_exhaustive()
    }
}
