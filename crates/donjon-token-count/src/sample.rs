//! Counting a part of a long text for the whole.

use crate::{count::Count, tokenizer::Tokenizer};

/// How long texts are counted by samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sampling {
    /// From how many bytes on a text is sampled.
    pub above: usize,
    /// How many samples are taken, evenly over the text; each has 2 KiB.
    pub samples: usize,
}

impl Sampling {
    /// Takes 32 samples of texts of more than `above` bytes.
    pub const fn above(above: usize) -> Self {
        Self { above, samples: 32 }
    }

    /// Takes so many samples.
    #[must_use]
    pub const fn samples(mut self, samples: usize) -> Self {
        self.samples = samples;
        self
    }
}

/// The size of a sample, in bytes.
pub(crate) const SAMPLE: usize = 2_048;
/// The least error that is stated, in thousandths: samples are cut where no token need end.
const LEAST: f64 = 0.01;
/// How many standard errors are stated. Beyond four, chance would have it once in 15,000 texts whose
/// samples are independent, which those of a text are not quite.
const DEVIATIONS: f64 = 4.0;

/// The tokens of `text`, counted by samples if it is long enough.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
pub(crate) fn count(tokenizer: &dyn Tokenizer, text: &str, sampling: Option<Sampling>) -> Count {
    let Some(sampling) = sampling.filter(|sampling| {
        text.len() > sampling.above && text.len() > sampling.samples * SAMPLE * 2
    }) else {
        return tokenizer.count(text);
    };
    let stride = text.len() / sampling.samples;
    let (mut sum, mut squares, mut slack) = (0.0, 0.0, 0.0);
    for n in 0..sampling.samples {
        let from = boundary(text, n * stride + stride / 2 - SAMPLE / 2);
        let sample = &text[from..boundary(text, from + SAMPLE)];
        let counted = tokenizer.count(sample);
        let rate = counted.tokens() as f64 / sample.len().max(1) as f64;
        sum += rate;
        squares += rate * rate;
        slack += f64::from(counted.error());
    }
    let n = sampling.samples as f64;
    let mean = sum / n;
    let variance = (squares / n - mean * mean).max(0.0);
    let of_mean = (variance / (n - 1.0).max(1.0)).sqrt() / mean.max(f64::MIN_POSITIVE);
    let error = LEAST + DEVIATIONS * of_mean + slack / n;
    Count::Estimate {
        tokens: (mean * text.len() as f64).round() as u64,
        error: error as f32,
    }
}

/// The next boundary of a character from `at` on.
fn boundary(text: &str, at: usize) -> usize {
    (at..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len())
}
