//! What a model costs.

use std::sync::Arc;

use donjon_core::{NanoUsd, Usage};

use super::PriceError;

/// How a request is served, where the provider asks another price for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceTier {
    /// As the list says.
    #[default]
    Standard,
    /// Some time later, for less.
    Batch,
    /// With less priority than others, for less.
    Flex,
    /// With more priority than others, for more.
    Priority,
}

impl ServiceTier {
    /// The tier of this name in a request or an answer (`service_tier`).
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "batch" => Self::Batch,
            "flex" => Self::Flex,
            // OpenAI's name for it since 2026-07.
            "priority" | "fast" => Self::Priority,
            _ => Self::Standard,
        }
    }
}

/// What is paid where the prompt is long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongContext {
    /// It holds for the whole of a request whose prompt has more tokens than this.
    pub above: u64,
    /// For a million tokens of prompt.
    pub input: NanoUsd,
    /// For a million tokens of answer.
    pub output: NanoUsd,
    /// For a million tokens read from the prompt cache; `None`: as other tokens of the prompt.
    pub cache_read: Option<NanoUsd>,
    /// For a million tokens written to the prompt cache; `None`: as other tokens of the prompt.
    pub cache_write: Option<NanoUsd>,
}

impl LongContext {
    /// `input` and `output` for a million tokens each, of a request whose prompt has more than `above`.
    pub const fn new(above: u64, input: NanoUsd, output: NanoUsd) -> Self {
        Self {
            above,
            input,
            output,
            cache_read: None,
            cache_write: None,
        }
    }
}

/// What a model costs, in US dollars for a million tokens, and where that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Price {
    /// Tokens of the prompt.
    pub input: NanoUsd,
    /// Tokens of the answer.
    pub output: NanoUsd,
    /// Tokens of the prompt that were read from the provider's cache; `None`: as other ones.
    pub cache_read: Option<NanoUsd>,
    /// Tokens of the prompt that were written to the provider's cache; `None`: as other ones.
    pub cache_write: Option<NanoUsd>,
    /// Tokens of the answer that were spent on reasoning; `None`: as other ones.
    pub reasoning: Option<NanoUsd>,
    /// Tokens of the prompt that were audio; `None`: as other ones.
    pub input_audio: Option<NanoUsd>,
    /// Tokens of the answer that were audio; `None`: as other ones.
    pub output_audio: Option<NanoUsd>,
    /// Each image of the prompt, beside its tokens; default nothing.
    pub image: NanoUsd,
    /// What is paid where the prompt is long, shortest first.
    pub long_context: Vec<LongContext>,
    /// Thousandths of the price for [`ServiceTier::Batch`]; `None`: no discount is known, and the full
    /// price is taken.
    pub batch: Option<u32>,
    /// Thousandths of the price for [`ServiceTier::Flex`]; `None`: as for `batch`.
    pub flex: Option<u32>,
    /// Thousandths of the price for [`ServiceTier::Priority`]; `None`: what that costs is not known.
    pub priority: Option<u32>,
    /// The most tokens that an answer can have, reasoning included.
    pub max_output: Option<u64>,
    /// The most tokens that one image is counted as.
    pub image_tokens: Option<u64>,
    /// Where it was read.
    pub source: Option<Arc<str>>,
    /// When, as `2025-10` or `2025-10-31`.
    pub as_of: Option<Arc<str>>,
}

/// A price of more than this for a million tokens is a mistake in its unit.
const ABSURD: NanoUsd = NanoUsd::from_dollars(10_000);

impl Price {
    /// `input` and `output` for a million tokens each.
    pub fn new(input: NanoUsd, output: NanoUsd) -> Self {
        Self {
            input,
            output,
            ..Self::default()
        }
    }

    /// Sets what a million tokens read from and written to the provider's cache cost.
    #[must_use]
    pub const fn cache(mut self, read: NanoUsd, write: NanoUsd) -> Self {
        self.cache_read = Some(read);
        self.cache_write = Some(write);
        self
    }

    /// What `usage` with so many images costs; `None` if this tier has no known price.
    ///
    /// The exact sum of all parts is rounded up once, to a whole billionth of a dollar: providers
    /// bill sums, and no token is free by rounding.
    pub fn cost(&self, usage: &Usage, images: u64, tier: ServiceTier) -> Option<NanoUsd> {
        let rates = self.rates(usage.input);
        let text = usage
            .input
            .saturating_sub(usage.cache_read)
            .saturating_sub(usage.cache_write)
            .saturating_sub(usage.input_audio);
        let said = usage
            .output
            .saturating_sub(usage.reasoning)
            .saturating_sub(usage.output_audio);
        let parts = [
            (rates.input, text),
            (rates.cache_read, usage.cache_read),
            (rates.cache_write, usage.cache_write),
            (self.input_audio.unwrap_or(rates.input), usage.input_audio),
            (rates.output, said),
            (self.reasoning.unwrap_or(rates.output), usage.reasoning),
            (
                self.output_audio.unwrap_or(rates.output),
                usage.output_audio,
            ),
        ];
        Some(total(&parts, self.image, images, self.thousandths(tier)?))
    }

    /// The most that `input` tokens of prompt, with or without audio, and `output` tokens of answer can
    /// cost: at the dearest price that may apply.
    pub fn worst_case(
        &self,
        input: u64,
        output: u64,
        images: u64,
        audio: bool,
        tier: ServiceTier,
    ) -> Option<NanoUsd> {
        let of = |rates: &Rates| {
            let mut prompt = rates.input.max(rates.cache_write).max(rates.cache_read);
            if audio {
                prompt = prompt.max(self.input_audio.unwrap_or(prompt));
            }
            let mut answer = rates.output.max(self.reasoning.unwrap_or(rates.output));
            // Whoever is not asked for audio gives none; whoever hears some may.
            if audio || self.output_audio.is_some() {
                answer = answer.max(self.output_audio.unwrap_or(answer));
            }
            (prompt, answer)
        };
        let (mut prompt, mut answer) = of(&self.rates(0));
        for long in &self.long_context {
            if input > long.above {
                let (p, a) = of(&Rates::long(long));
                prompt = prompt.max(p);
                answer = answer.max(a);
            }
        }
        let parts = [(prompt, input), (answer, output)];
        Some(total(&parts, self.image, images, self.thousandths(tier)?))
    }

    fn rates(&self, input: u64) -> Rates {
        match self.long_context.iter().rfind(|long| input > long.above) {
            Some(long) => Rates::long(long),
            None => Rates {
                input: self.input,
                output: self.output,
                cache_read: self.cache_read.unwrap_or(self.input),
                cache_write: self.cache_write.unwrap_or(self.input),
            },
        }
    }

    fn thousandths(&self, tier: ServiceTier) -> Option<u32> {
        match tier {
            ServiceTier::Standard => Some(1_000),
            ServiceTier::Batch => Some(self.batch.unwrap_or(1_000)),
            ServiceTier::Flex => Some(self.flex.unwrap_or(1_000)),
            ServiceTier::Priority => self.priority,
        }
    }

    /// Refuses what cannot be a price.
    pub(crate) fn check(&self, model: &str) -> Result<(), PriceError> {
        let long = self.long_context.iter().flat_map(|long| {
            [
                Some(long.input),
                Some(long.output),
                long.cache_read,
                long.cache_write,
            ]
        });
        let own = [
            Some(self.input),
            Some(self.output),
            self.cache_read,
            self.cache_write,
            self.reasoning,
            self.input_audio,
            self.output_audio,
            Some(self.image),
        ];
        for price in own.into_iter().chain(long).flatten() {
            if price < NanoUsd::ZERO {
                return Err(PriceError::Negative {
                    model: model.into(),
                    price,
                });
            }
            if price > ABSURD {
                return Err(PriceError::Absurd {
                    model: model.into(),
                    price,
                });
            }
        }
        let multipliers = [self.batch, self.flex, self.priority].into_iter().flatten();
        for thousandths in multipliers {
            if !(1..=100_000).contains(&thousandths) {
                return Err(PriceError::Multiplier {
                    model: model.into(),
                    thousandths,
                });
            }
        }
        if !self.long_context.is_sorted_by(|a, b| a.above < b.above) {
            return Err(PriceError::LongContext {
                model: model.into(),
            });
        }
        Ok(())
    }
}

/// What applies to one request.
struct Rates {
    input: NanoUsd,
    output: NanoUsd,
    cache_read: NanoUsd,
    cache_write: NanoUsd,
}

impl Rates {
    fn long(long: &LongContext) -> Self {
        Self {
            input: long.input,
            output: long.output,
            cache_read: long.cache_read.unwrap_or(long.input),
            cache_write: long.cache_write.unwrap_or(long.input),
        }
    }
}

fn total(parts: &[(NanoUsd, u64)], image: NanoUsd, images: u64, thousandths: u32) -> NanoUsd {
    let nanos = small_total(parts, image, images, thousandths);
    NanoUsd::from_nanos(nanos.unwrap_or_else(|| large_total(parts, image, images, thousandths)))
}

const MILLION: u64 = 1_000_000;

/// `None` where 64 bits are not enough: to divide 128 takes as long as all the rest of it.
#[inline]
fn small_total(
    parts: &[(NanoUsd, u64)],
    image: NanoUsd,
    images: u64,
    thousandths: u32,
) -> Option<i64> {
    let mut sum = 0_u64;
    if images > 0 {
        let each = u64::try_from(image.nanos()).ok()?;
        sum = each.checked_mul(images)?.checked_mul(MILLION)?;
    }
    for (price, count) in parts {
        let price = u64::try_from(price.nanos()).ok()?;
        sum = sum.checked_add(price.checked_mul(*count)?)?;
    }
    let nanos = match thousandths {
        1_000 => sum.div_ceil(MILLION),
        other => sum.checked_mul(other.into())?.div_ceil(MILLION * 1_000),
    };
    i64::try_from(nanos).ok()
}

#[cold]
fn large_total(parts: &[(NanoUsd, u64)], image: NanoUsd, images: u64, thousandths: u32) -> i64 {
    let million = i128::from(MILLION);
    let mut sum: i128 = i128::from(image.nanos()) * million * i128::from(images);
    for (price, count) in parts {
        sum = sum.saturating_add(i128::from(price.nanos()) * i128::from(*count));
    }
    let scaled = sum.saturating_mul(i128::from(thousandths));
    let unit = million * 1_000;
    let nanos = scaled.saturating_add(unit - 1).div_euclid(unit);
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_come_to_the_same(
            parts in prop::collection::vec((0_i64..20_000_000_000_000, 0_u64..10_000_000), 0..8),
            (image, images) in (0_i64..1_000_000_000, 0_u64..100),
            thousandths in prop_oneof![Just(1_000_u32), 1_u32..100_001],
        ) {
            let parts: Vec<_> = parts.into_iter().map(|(price, count)| (NanoUsd::from_nanos(price), count)).collect();
            let image = NanoUsd::from_nanos(image);
            if let Some(small) = small_total(&parts, image, images, thousandths) {
                prop_assert_eq!(small, large_total(&parts, image, images, thousandths));
            }
        }
    }

    #[test]
    fn a_tier_has_the_names_that_providers_give_it() {
        for name in ["priority", "fast"] {
            assert_eq!(ServiceTier::named(name), ServiceTier::Priority);
        }
        assert_eq!(ServiceTier::named("default"), ServiceTier::Standard);
    }
}
