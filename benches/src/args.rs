//! Command lines of the form `--name value --flag word`.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// A parsed command line. Every accessor names the argument it could not read in its error.
#[derive(Debug, Default)]
pub struct Args {
    values: HashMap<String, String>,
    flags: Vec<String>,
    words: Vec<String>,
}

impl Args {
    /// Parses this process's command line; `flags` are the names (without dashes) that take no value.
    ///
    /// # Errors
    /// When a name that is no flag is not followed by a value.
    pub fn from_env(flags: &[&str]) -> Result<Self, String> {
        Self::parse(std::env::args().skip(1), flags)
    }

    /// As [`Args::from_env`], of any words.
    ///
    /// # Errors
    /// When a name that is no flag is not followed by a value.
    pub fn parse(words: impl IntoIterator<Item = String>, flags: &[&str]) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                None => args.words.push(word),
                Some(name) if flags.contains(&name) => args.flags.push(name.to_owned()),
                Some(name) => {
                    let value = words
                        .next()
                        .ok_or_else(|| format!("--{name} wants a value"))?;
                    args.values.insert(name.to_owned(), value);
                }
            }
        }
        Ok(args)
    }

    /// Whether `--name` was given.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// Words that belong to no name.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The value of `--name`, if given.
    ///
    /// # Errors
    /// When it cannot be read as a `T`.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |value: &String| {
            value
                .parse()
                .map_err(|error| format!("--{name} {value}: {error}"))
        };
        self.values.get(name).map(parse).transpose()
    }

    /// The value of `--name`, or `default`.
    ///
    /// # Errors
    /// When it cannot be read as a `T`.
    pub fn or<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, String> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// The value of `--name`.
    ///
    /// # Errors
    /// When it is absent or cannot be read as a `T`.
    pub fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, String> {
        self.get(name)?
            .ok_or_else(|| format!("--{name} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_flags_and_words() {
        let words = ["--calls", "12", "--stream", "tower"].map(str::to_owned);
        let args = Args::parse(words, &["stream"]).expect("well formed");
        assert_eq!(args.or("calls", 1), Ok(12));
        assert_eq!(args.or("rounds", 7), Ok(7));
        assert!(args.flag("stream"));
        assert_eq!(args.words(), ["tower"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let args = Args::parse(["--calls", "many"].map(str::to_owned), &[]).expect("well formed");
        assert!(
            args.or("calls", 1)
                .is_err_and(|error| error.starts_with("--calls many:"))
        );
        assert_eq!(
            args.required::<u8>("pid"),
            Err("--pid is missing".to_owned())
        );
        assert!(Args::parse(["--pid".to_owned()], &[]).is_err());
    }
}
