//! Money as an integer.

use std::{fmt, iter::Sum, ops};

/// US dollars in integer billionths, so that no amount rounds to nothing.
///
/// Up to nine billion dollars either way; arithmetic saturates there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many billionths of a dollar.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// So many dollars.
    pub const fn from_dollars(dollars: i64) -> Self {
        Self(dollars.saturating_mul(1_000_000_000))
    }

    /// In billionths of a dollar.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The price of `count` tokens at this price for a million; rounded up to a whole billionth, so
    /// that no token is free by rounding.
    #[must_use]
    pub const fn per_million(self, count: u64) -> Self {
        let product = (self.0 as i128).saturating_mul(count as i128);
        let rounded = (product + 999_999).div_euclid(1_000_000);
        if rounded > i64::MAX as i128 {
            Self(i64::MAX)
        } else if rounded < i64::MIN as i128 {
            Self(i64::MIN)
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the range was checked above"
            )]
            Self(rounded as i64)
        }
    }
}

impl ops::Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl ops::AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl ops::Sub for NanoUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, ops::Add::add)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        write!(f, "{sign}${whole}.{rest:09}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_free_by_rounding() {
        // 0.05 dollars for a million tokens is 50 billionths each.
        let price = NanoUsd::from_nanos(50_000_000);
        assert_eq!(price.per_million(1).nanos(), 50);
        assert_eq!(NanoUsd::from_nanos(1).per_million(1).nanos(), 1);
        assert_eq!(price.per_million(0), NanoUsd::ZERO);
    }

    #[test]
    fn arithmetic_saturates() {
        let most = NanoUsd::from_nanos(i64::MAX);
        assert_eq!(most + NanoUsd::from_dollars(1), most);
        assert_eq!(most.per_million(u64::MAX), most);
        assert_eq!(NanoUsd::from_dollars(i64::MIN).nanos(), i64::MIN);
    }

    #[test]
    fn it_prints_every_digit() {
        assert_eq!(
            NanoUsd::from_nanos(-1_500_000_001).to_string(),
            "-$1.500000001"
        );
    }
}
