//! Estimating the tokens of a text whose tokenizer nobody has.

use crate::{count::Count, tokenizer::Tokenizer};

/// Estimates tokens by what a text is made of: words, numbers, punctuation, and the letters of each
/// script. The weights lie between those of the public encodings of 100,000 and of 200,000 tokens, and
/// the stated error reaches from the one to the other; so it is small for English and large for scripts
/// that vocabularies treat differently.
///
/// The layer corrects it by what providers report.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimator {
    name: String,
    scale: f32,
    doubt: f32,
}

impl Estimator {
    /// One called `name`, by which the layer keeps its correction.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scale: 1.0,
            doubt: 0.0,
        }
    }

    /// Sets how many tokens there are for each that the public encodings have; default 1. What is not
    /// above zero, or no number, is taken for 1.
    #[must_use]
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = if scale > 0.0 && scale.is_finite() {
            scale
        } else {
            1.0
        };
        self
    }

    /// Sets by how much more the vocabulary may differ, as a share; default 0.
    #[must_use]
    pub fn doubt(mut self, doubt: f32) -> Self {
        self.doubt = if doubt >= 0.0 { doubt } else { 0.0 };
        self
    }
}

impl Tokenizer for Estimator {
    fn name(&self) -> &str {
        &self.name
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    fn count(&self, text: &str) -> Count {
        if text.is_empty() {
            return Count::ZERO;
        }
        let Weight { tokens, slack } = weigh(text);
        let scale = f64::from(self.scale);
        let tokens = (tokens as f64 / UNIT * scale).max(1.0);
        // A text of a few words may differ by one or two whatever it says.
        let slack = slack as f64 / UNIT * scale + tokens * f64::from(self.doubt) + 2.0;
        Count::Estimate {
            tokens: tokens.round() as u64,
            error: (slack / tokens.round()) as f32,
        }
    }
}

/// Weights are in hundredths of a token.
const UNIT: f64 = 100.0;

/// Tokens, and how many more or less there may be.
#[derive(Clone, Copy, Default)]
struct Weight {
    tokens: u64,
    slack: u64,
}

impl Weight {
    fn add(&mut self, times: usize, tokens: u64, slack: u64) {
        self.tokens += times as u64 * tokens;
        self.slack += times as u64 * slack;
    }
}

/// A run of letters: a word, or several where capitals begin one in the middle.
fn word(weight: &mut Weight, letters: &[u8]) {
    weight.add(1, 100, 14);
    // Longer words are in pieces, in German more than in English.
    weight.add(letters.len().saturating_sub(4), 12, 13);
    weight.add(letters.len().saturating_sub(10), 12, 8);
    let (mut humps, mut capitals) = (0, 0);
    for pair in letters.windows(2) {
        humps += usize::from(pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
        capitals += usize::from(pair[0].is_ascii_uppercase() && pair[1].is_ascii_uppercase());
    }
    weight.add(humps, 60, 40);
    weight.add(capitals, 12, 14);
}

fn weigh(text: &str) -> Weight {
    let mut weight = Weight::default();
    let mut rest = text;
    while let Some(&first) = rest.as_bytes().first() {
        let run = |is: fn(&u8) -> bool| {
            let bytes = rest.as_bytes();
            bytes
                .iter()
                .position(|byte| !is(byte))
                .unwrap_or(bytes.len())
        };
        let length = match first {
            b'a'..=b'z' | b'A'..=b'Z' => {
                let letters = run(u8::is_ascii_alphabetic);
                word(&mut weight, &rest.as_bytes()[..letters]);
                letters
            }
            b'0'..=b'9' => {
                let digits = run(u8::is_ascii_digit);
                weight.add(digits.div_ceil(3), 100, 15);
                digits
            }
            b' ' | b'\t' | b'\r' | b'\n' => {
                let spaces = run(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
                // A single space belongs to the word after it.
                if spaces > 1 || first != b' ' {
                    weight.add(1, 90, 40);
                    weight.add(spaces / 16, 20, 20);
                    let changes = rest.as_bytes()[..spaces].windows(2);
                    let changes = changes.filter(|pair| pair[0] != pair[1]).count();
                    weight.add(changes.saturating_sub(1), 25, 25);
                }
                spaces
            }
            0..=0x7F => {
                let marks = run(|byte| {
                    byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b" \t\r\n".contains(byte)
                });
                weight.add(1, 70, 35);
                weight.add(marks - 1, 28, 28);
                marks
            }
            _ => {
                let char = rest.chars().next().unwrap_or_default();
                let (tokens, slack) = of_char(char);
                weight.add(1, tokens, slack);
                char.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    weight
}

/// The weight of a character that is not ASCII, and how much more or less it may be.
fn of_char(char: char) -> (u64, u64) {
    match char as u32 {
        // Digits of other scripts, fractions.
        _ if char.is_numeric() && !matches!(char as u32, 0x3000..=0x9FFF) => (180, 120),
        // Line ends that hardly anybody uses.
        0x80..=0x9F | 0x2028..=0x2029 => (220, 130),
        // Latin that hardly any language has.
        0x180..=0x24F => (240, 130),
        // Typographic ligatures.
        0xFB00..=0xFB06 => (300, 150),
        // Latin with marks, within words whose other letters count for themselves.
        0x80..=0x17F | 0x1E00..=0x1EFF => (40, 60),
        // Greek.
        0x370..=0x3FF | 0x1F00..=0x1FFF => (80, 40),
        // Cyrillic.
        0x400..=0x52F => (47, 18),
        // Hebrew, Arabic.
        0x590..=0x6FF => (75, 40),
        // The scripts of India.
        0x900..=0xDFF => (85, 50),
        // Thai, Lao.
        0xE00..=0xEFF => (68, 38),
        // Kana.
        0x3040..=0x30FF => (85, 25),
        // Chinese characters.
        0x4E00..=0x9FFF | 0x3400..=0x4DBF => (112, 40),
        // Hangul.
        0xAC00..=0xD7A3 => (115, 48),
        // Punctuation and wide forms.
        0x2000..=0x206F | 0x3000..=0x303F | 0xFF00..=0xFFEF => (100, 80),
        // The rest: by its bytes.
        _ => (char.len_utf8() as u64 * 68, char.len_utf8() as u64 * 38),
    }
}
