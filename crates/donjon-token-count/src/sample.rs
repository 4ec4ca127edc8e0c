//! How much is counted at once, and counting a part for the whole of what is beyond.

use crate::{count::Count, tokenizer::Tokenizer};

/// How much of what nobody has counted yet is counted in one call, so that no call is held up by the
/// counting of a long prompt: the rest of that prompt is counted by samples.
///
/// With the default, 64 KiB and 16 samples of 2 KiB, the counting of a prompt takes at most some 2 ms of any
/// language, code or data, with the vocabularies of OpenAI and with estimates. Letters of several scripts in
/// turn, which no language has, take up to a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sampling {
    /// How many bytes of a prompt are counted in full; what is remembered costs none.
    pub above: usize,
    /// How many samples are taken of the rest, evenly; each has 2 KiB. With fewer than four, or where the rest is not
    /// twice as long as that many, all of it is counted: too few say nothing of their error.
    pub samples: usize,
}

impl Sampling {
    /// Counts `above` bytes of a prompt in full, and takes 16 samples of the rest.
    pub const fn above(above: usize) -> Self {
        Self { above, samples: 16 }
    }

    /// Takes so many samples.
    #[must_use]
    pub const fn samples(mut self, samples: usize) -> Self {
        self.samples = samples;
        self
    }
}

/// 64 KiB in full, 16 samples of the rest.
impl Default for Sampling {
    fn default() -> Self {
        Self::above(64 << 10)
    }
}

/// The size of a sample, in bytes.
pub(crate) const SAMPLE: usize = 2_048;
/// Of less than so many samples it cannot be said how much they differ; then all is counted.
const FEWEST: usize = 4;
/// The least error that is stated, in thousandths: samples are cut where no token need end.
const LEAST: f64 = 0.01;
/// How many standard errors are stated. Beyond four, chance would have it once in 15,000 texts whose
/// samples are independent, which those of a text are not quite.
const DEVIATIONS: f64 = 4.0;

/// What is counted for one prompt, and what is left of it.
pub(crate) struct Work<'a> {
    sampling: Option<Sampling>,
    /// The bytes that may still be counted in full.
    left: usize,
    rest: Vec<&'a str>,
    bytes: usize,
}

impl<'a> Work<'a> {
    pub(crate) fn new(sampling: Option<Sampling>) -> Self {
        Self {
            left: sampling.map_or(usize::MAX, |sampling| sampling.above),
            sampling,
            rest: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether so many bytes may be counted in full; then they are.
    pub(crate) fn may(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Leaves `text` to the samples.
    pub(crate) fn later(&mut self, text: &'a str) {
        self.rest.push(text);
        self.bytes += text.len();
    }

    /// The bytes that were left to the samples.
    pub(crate) fn left_to_samples(&self) -> usize {
        self.bytes
    }

    /// The tokens of `text` in full.
    pub(crate) fn whole(&self, tokenizer: &dyn Tokenizer, text: &str) -> Count {
        match self.sampling {
            Some(_) => tokenizer.count_quickly(text),
            None => tokenizer.count(text),
        }
    }

    /// The tokens of all that was left to the samples.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub(crate) fn rest(self, tokenizer: &dyn Tokenizer) -> Count {
        let samples = self.sampling.map_or(0, |sampling| sampling.samples);
        let samples = samples.min(self.bytes / (SAMPLE * 2));
        if samples < FEWEST {
            let texts = self.rest.iter().map(|text| self.whole(tokenizer, text));
            return texts.fold(Count::ZERO, Count::plus);
        }
        let stride = self.bytes / samples;
        let (mut sum, mut squares, mut slack) = (0.0, 0.0, 0.0);
        let (mut taken, mut begin) = (0, 0);
        for text in &self.rest {
            // As many as fall into this text.
            while taken < samples && taken * stride + stride / 2 < begin + text.len() {
                let middle = taken * stride + stride / 2 - begin;
                let last = text.len().saturating_sub(SAMPLE);
                let from = boundary(text, middle.saturating_sub(SAMPLE / 2).min(last));
                let sample = &text[from..boundary(text, from + SAMPLE)];
                let counted = self.whole(tokenizer, sample);
                let rate = counted.tokens() as f64 / sample.len().max(1) as f64;
                sum += rate;
                squares += rate * rate;
                slack += f64::from(counted.error());
                taken += 1;
            }
            begin += text.len();
        }
        let n = samples as f64;
        let mean = sum / n;
        let variance = (squares / n - mean * mean).max(0.0);
        let of_mean = (variance / (n - 1.0)).sqrt() / mean.max(f64::MIN_POSITIVE);
        let error = LEAST + DEVIATIONS * of_mean + slack / n;
        Count::Estimate {
            tokens: (mean * self.bytes as f64).round() as u64,
            error: error as f32,
        }
    }
}

/// The tokens of one text by itself.
pub(crate) fn count(tokenizer: &dyn Tokenizer, text: &str, sampling: Option<Sampling>) -> Count {
    let mut work = Work::new(sampling);
    if work.may(text.len()) {
        return work.whole(tokenizer, text);
    }
    work.later(text);
    work.rest(tokenizer)
}

/// The next boundary of a character from `at` on.
fn boundary(text: &str, at: usize) -> usize {
    (at..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len())
}
