//! Prices as data.

mod file;
mod price;
mod table;

use std::{error::Error, fmt};

use donjon_core::NanoUsd;

pub use price::{LongContext, Price, ServiceTier};
pub use table::PriceTable;

/// Why a price or a list of prices is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PriceError {
    /// The file cannot be read: what is wrong, and where.
    Syntax(String),
    /// A price is no decimal number of dollars with at most nine places.
    NotAPrice {
        /// Of which model.
        model: String,
        /// What stands there.
        text: String,
    },
    /// A price is less than nothing.
    Negative {
        /// Of which model.
        model: String,
        /// The price.
        price: NanoUsd,
    },
    /// A price of more than 10,000 dollars for a million tokens.
    Absurd {
        /// Of which model.
        model: String,
        /// The price.
        price: NanoUsd,
    },
    /// A multiplier is zero, or more than a hundred.
    Multiplier {
        /// Of which model.
        model: String,
        /// The multiplier.
        thousandths: u32,
    },
    /// The prices for long prompts are not in ascending order.
    LongContext {
        /// Of which model.
        model: String,
    },
    /// Two entries have the same provider and name.
    Twice {
        /// The provider.
        provider: String,
        /// The name.
        model: String,
    },
    /// The list is empty.
    Empty,
    /// The list has less than half as many entries as the one that it is to replace.
    Shrinks {
        /// How many there are.
        from: usize,
        /// How many there would be.
        to: usize,
    },
}

impl fmt::Display for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(f, "the list of prices cannot be read: {what}"),
            Self::NotAPrice { model, text } => write!(
                f,
                "{model}: {text:?} is no number of dollars with at most nine decimal places"
            ),
            Self::Negative { model, price } => write!(f, "{model}: {price} is less than nothing"),
            Self::Absurd { model, price } => {
                write!(f, "{model}: {price} for a million tokens is absurd")
            }
            Self::Multiplier { model, thousandths } => write!(
                f,
                "{model}: a multiplier of {thousandths} thousandths is not from 1 to 100,000"
            ),
            Self::LongContext { model } => {
                write!(
                    f,
                    "{model}: the prices for long prompts must ascend by `above`"
                )
            }
            Self::Twice { provider, model } => {
                write!(f, "there are two prices of {model} at {provider}")
            }
            Self::Empty => f.write_str("the list of prices is empty"),
            Self::Shrinks { from, to } => write!(
                f,
                "a list of {to} prices does not replace one of {from}: that is less than half"
            ),
        }
    }
}

impl Error for PriceError {}
