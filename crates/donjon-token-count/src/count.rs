//! What a count is worth.

use std::fmt;

/// A number of tokens, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// So many, as the model's own tokenizer says.
    Exact(u64),
    /// About so many.
    Estimate {
        /// The most likely number.
        tokens: u64,
        /// How far the truth may lie from it, as a share of it: 0.2 means from 80 % to 120 %.
        error: f32,
    },
}

impl Count {
    /// No tokens.
    pub const ZERO: Self = Self::Exact(0);

    /// `tokens`, which may be `slack` more or less; exact where that is none.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "an error bound needs no more digits"
    )]
    pub fn within(tokens: u64, slack: u64) -> Self {
        if slack == 0 {
            return Self::Exact(tokens);
        }
        let error = (slack as f64 / tokens.max(1) as f64) as f32;
        Self::Estimate { tokens, error }
    }

    /// The most likely number.
    pub const fn tokens(self) -> u64 {
        match self {
            Self::Exact(tokens) | Self::Estimate { tokens, .. } => tokens,
        }
    }

    /// How far the truth may lie from it, as a share of it; zero where it is exact.
    pub const fn error(self) -> f32 {
        match self {
            Self::Exact(_) => 0.0,
            Self::Estimate { error, .. } => error,
        }
    }

    /// How many tokens more or less there may be.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and a bound is rounded up"
    )]
    pub fn slack(self) -> u64 {
        match self {
            Self::Exact(_) => 0,
            // Rounded before it is rounded up: 0.2 is a little more than a fifth as a float.
            Self::Estimate { tokens, error } => {
                let slack = tokens.max(1) as f64 * f64::from(error);
                ((slack * 1e4).round() / 1e4).ceil() as u64
            }
        }
    }

    /// The fewest tokens that it may be.
    pub fn least(self) -> u64 {
        self.tokens().saturating_sub(self.slack())
    }

    /// The most tokens that it may be.
    pub fn most(self) -> u64 {
        self.tokens().saturating_add(self.slack())
    }

    /// Whether it is exact.
    pub const fn is_exact(self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => Self::Exact(one.saturating_add(other)),
            _ => Self::within(
                self.tokens().saturating_add(other.tokens()),
                self.slack().saturating_add(other.slack()),
            ),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(tokens) => write!(f, "{tokens} tokens"),
            Self::Estimate { tokens, error } => {
                write!(f, "{tokens} tokens ± {:.0} %", error * 100.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_what_the_error_says() {
        let count = Count::Estimate {
            tokens: 100,
            error: 0.2,
        };
        assert_eq!((count.least(), count.most()), (80, 120));
        assert_eq!(Count::within(7, 0), Count::Exact(7));
        assert_eq!(Count::within(7, 3).slack(), 3);
        assert_eq!(Count::within(0, 3).most(), 3);
    }

    #[test]
    fn errors_add_up_as_tokens_do() {
        let sum = Count::Exact(100).plus(Count::within(50, 10));
        assert_eq!((sum.least(), sum.tokens(), sum.most()), (140, 150, 160));
        assert_eq!(Count::Exact(1).plus(Count::Exact(2)), Count::Exact(3));
        assert_eq!(sum.to_string(), "150 tokens ± 7 %");
    }
}
