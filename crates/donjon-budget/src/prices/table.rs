//! The list of prices, and how a model is found in it.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{Price, PriceError, file::File};

/// Prices by provider and model.
///
/// A model is found by its name or an alias as it stands; else without what providers and gateways put
/// around a name: a prefix (`openai/gpt-4o`), a date or a revision at its end
/// (`gpt-4o-2024-08-06`, `claude-sonnet-4-20250514`, `gemini-2.0-flash-001`, `…-latest`). What stands in the list as it
/// is goes first, so that a dated model with a price of its own keeps it.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    entries: HashMap<(Arc<str>, Arc<str>), Arc<Price>>,
    /// Where each alias leads.
    aliases: HashMap<(Arc<str>, Arc<str>), Arc<str>>,
}

impl PriceTable {
    /// A list without prices.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The list that is embedded. Each entry says where it was read and when; providers change
    /// their prices without notice, so compare it with your bill.
    #[cfg(feature = "prices")]
    pub fn embedded() -> Self {
        match Self::from_json(include_str!("../../data/prices.json")) {
            Ok(table) => table,
            Err(error) => unreachable!("a test reads the embedded list: {error}"),
        }
    }

    /// Reads a list: `{"prices": [{"provider", "model", "input", "output", …}]}`, with the fields of
    /// [`Price`], `aliases`, prices as decimal texts in dollars for a million tokens, and `seen`, which says in
    /// words where the source was read and means nothing to the table.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and at which model.
    pub fn from_json(json: &str) -> Result<Self, PriceError> {
        let file: File =
            serde_json::from_str(json).map_err(|error| PriceError::Syntax(error.to_string()))?;
        let mut table = Self::empty();
        for entry in &file.prices {
            let price = entry.price()?;
            let twice = || PriceError::Twice {
                provider: entry.provider.clone(),
                model: entry.model.clone(),
            };
            if table
                .exact(&provider(&entry.provider), &entry.model.to_lowercase())
                .is_some()
            {
                return Err(twice());
            }
            table.set(&entry.provider, &entry.model, price)?;
            for alias in &entry.aliases {
                if table
                    .exact(&provider(&entry.provider), &alias.to_lowercase())
                    .is_some()
                {
                    return Err(twice());
                }
                table.alias(&entry.provider, alias, &entry.model);
            }
        }
        if table.is_empty() {
            return Err(PriceError::Empty);
        }
        Ok(table)
    }

    /// Sets one price, in the place of the one that there is.
    ///
    /// # Errors
    ///
    /// It is less than nothing, or absurd.
    pub fn set(&mut self, of: &str, model: &str, price: Price) -> Result<(), PriceError> {
        price.check(model)?;
        let key = (provider(of).into(), model.to_lowercase().into());
        self.aliases.remove(&key);
        self.entries.insert(key, Arc::new(price));
        Ok(())
    }

    /// Makes `alias` another name of `model` at this provider.
    pub fn alias(&mut self, of: &str, alias: &str, model: &str) {
        let key = (provider(of).into(), alias.to_lowercase().into());
        self.aliases.insert(key, model.to_lowercase().into());
    }

    /// The price of `model` at `of`; without a provider, at the one that the name begins with
    /// (`openai/gpt-4o`), or at the only one that has it.
    pub fn find(&self, of: Option<&str>, model: &str) -> Option<&Arc<Price>> {
        let model = model.to_lowercase();
        if let Some(of) = of {
            return self.named(&provider(of), &model);
        }
        if let Some((prefix, rest)) = model.split_once('/')
            && let Some(price) = self.named(&provider(prefix), rest)
        {
            return Some(price);
        }
        let mut known: Vec<_> = self.entries.keys().map(|(provider, _)| provider).collect();
        known.sort_unstable();
        known.dedup();
        let mut found = known.iter().filter_map(|known| self.named(known, &model));
        let only = found.next()?;
        // Two providers with one price are as good as one.
        found.all(|other| same(other, only)).then_some(only)
    }

    fn named(&self, provider: &str, model: &str) -> Option<&Arc<Price>> {
        let bare = model.rsplit('/').next().unwrap_or(model);
        for name in [model, bare] {
            let mut name = name;
            loop {
                if let Some(price) = self.exact(provider, name) {
                    return Some(price);
                }
                match without_date(name) {
                    Some(shorter) => name = shorter,
                    None => break,
                }
            }
        }
        None
    }

    fn exact(&self, provider: &str, model: &str) -> Option<&Arc<Price>> {
        let key = (Arc::from(provider), Arc::from(model));
        if let Some(price) = self.entries.get(&key) {
            return Some(price);
        }
        let real = self.aliases.get(&key)?;
        self.entries.get(&(key.0, real.clone()))
    }

    /// How many prices it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every provider, model and price.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Price)> {
        let entries = self.entries.iter();
        entries.map(|((provider, model), price)| (&**provider, &**model, &**price))
    }

    /// The name in the list of a provider that is known by another.
    pub(crate) fn provider_name(&self, name: &str) -> String {
        provider(name)
    }

    /// Refuses to take the place of `old` if it looks like a mistake.
    pub(crate) fn may_replace(&self, old: &Self) -> Result<(), PriceError> {
        if self.is_empty() {
            return Err(PriceError::Empty);
        }
        if self.len() * 2 < old.len() {
            return Err(PriceError::Shrinks {
                from: old.len(),
                to: self.len(),
            });
        }
        Ok(())
    }
}

/// The name of a provider in the list; OpenTelemetry and gateways have others for some.
fn provider(name: &str) -> String {
    let name = name.to_lowercase();
    match &*name {
        "google" | "gcp.gemini" | "gcp.gen_ai" | "google-ai-studio" => "gemini".to_owned(),
        "mistral_ai" | "mistralai" => "mistral".to_owned(),
        _ => name,
    }
}

fn same(one: &Price, other: &Price) -> bool {
    let bare = |price: &Price| Price {
        source: None,
        as_of: None,
        ..price.clone()
    };
    bare(one) == bare(other)
}

/// The name without the date, the revision or the `-latest` at its end.
fn without_date(name: &str) -> Option<&str> {
    if let Some(rest) = name.strip_suffix("-latest") {
        return Some(rest);
    }
    let bytes = name.as_bytes();
    // Groups of digits from the end on, joined by `-`; the first may also follow an @, as Vertex has it.
    let cut = |groups: &[usize]| -> Option<usize> {
        let mut at = bytes.len();
        for (left, digits) in groups.iter().enumerate().rev() {
            let begin = at.checked_sub(*digits)?;
            at = begin.checked_sub(1)?;
            let joined = bytes[at] == b'-' || (left == 0 && bytes[at] == b'@');
            if !joined || !bytes[begin..begin + digits].iter().all(u8::is_ascii_digit) {
                return None;
            }
        }
        (at > 0).then_some(at)
    };
    // YYYY-MM-DD, YYYYMMDD, MM-YYYY, MMDD or YYMM, and the revisions of Gemini.
    let forms: [&[usize]; 5] = [&[4, 2, 2], &[8], &[2, 4], &[4], &[3]];
    let at = forms.into_iter().find_map(cut)?;
    Some(&name[..at])
}

impl fmt::Display for PriceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} prices", self.len())
    }
}
