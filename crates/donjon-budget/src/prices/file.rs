//! The format of a list of prices: JSON, prices as decimal texts so that they are exact.

use std::sync::Arc;

use donjon_core::NanoUsd;
use serde::{Deserialize, de::IgnoredAny};

use super::{LongContext, Price, PriceError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) prices: Vec<Entry>,
}

/// One entry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) provider: String,
    pub(super) model: String,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    input: Box<str>,
    output: Box<str>,
    cache_read: Option<Box<str>>,
    cache_write: Option<Box<str>>,
    reasoning: Option<Box<str>>,
    input_audio: Option<Box<str>>,
    output_audio: Option<Box<str>>,
    image: Option<Box<str>>,
    #[serde(default)]
    long_context: Vec<Long>,
    /// Multipliers in thousandths.
    batch: Option<u32>,
    flex: Option<u32>,
    priority: Option<u32>,
    max_output: Option<u64>,
    image_tokens: Option<u64>,
    source: Option<Arc<str>>,
    as_of: Option<Arc<str>>,
    /// Where what the source says was read, for whoever checks the list.
    #[serde(rename = "seen")]
    _seen: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    above: u64,
    input: Box<str>,
    output: Box<str>,
    cache_read: Option<Box<str>>,
    cache_write: Option<Box<str>>,
}

impl Entry {
    pub(super) fn price(&self) -> Result<Price, PriceError> {
        let read = |text: &str| {
            dollars(text).ok_or_else(|| PriceError::NotAPrice {
                model: self.model.clone(),
                text: text.into(),
            })
        };
        let may = |text: &Option<Box<str>>| text.as_deref().map(read).transpose();
        let long = self.long_context.iter().map(|long| {
            Ok(LongContext {
                above: long.above,
                input: read(&long.input)?,
                output: read(&long.output)?,
                cache_read: may(&long.cache_read)?,
                cache_write: may(&long.cache_write)?,
            })
        });
        Ok(Price {
            input: read(&self.input)?,
            output: read(&self.output)?,
            cache_read: may(&self.cache_read)?,
            cache_write: may(&self.cache_write)?,
            reasoning: may(&self.reasoning)?,
            input_audio: may(&self.input_audio)?,
            output_audio: may(&self.output_audio)?,
            image: may(&self.image)?.unwrap_or_default(),
            long_context: long.collect::<Result<_, PriceError>>()?,
            batch: self.batch,
            flex: self.flex,
            priority: self.priority,
            max_output: self.max_output,
            image_tokens: self.image_tokens,
            source: self.source.clone(),
            as_of: self.as_of.clone(),
        })
    }
}

/// Reads a decimal number of dollars exactly.
fn dollars(text: &str) -> Option<NanoUsd> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || places.len() > 9 || !all_digits(whole) || !all_digits(places) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let places: i64 = format!("{places:0<9}").parse().ok()?;
    let nanos = whole.checked_mul(1_000_000_000)?.checked_add(places)?;
    Some(NanoUsd::from_nanos(if negative { -nanos } else { nanos }))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly() {
        for (text, nanos) in [
            ("2.50", 2_500_000_000),
            ("0.075", 75_000_000),
            ("10", 10_000_000_000),
            ("0.000000001", 1),
            ("-1.5", -1_500_000_000),
        ] {
            assert_eq!(dollars(text), Some(NanoUsd::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            ".5",
            "1e3",
            "0.0000000001",
            "1,5",
            "NaN",
            " 1",
            "99999999999",
        ] {
            assert_eq!(dollars(text), None, "{text}");
        }
    }
}
