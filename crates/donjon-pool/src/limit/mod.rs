//! How many slots there may be: what learns it from calls. Pure, with time passed in.

mod aimd;
mod fixed;
mod gradient;
mod window;

use std::{fmt, ops::RangeInclusive, time::Duration};

pub use aimd::Aimd;
pub use fixed::Fixed;
pub use gradient::Gradient;

use crate::{error::ConfigError, slots::MAX_SIZE};

/// Learns from calls how many slots there may be.
///
/// It hears of one call at a time. A sample may be skipped while another one is heard, but none that
/// tells of an overload is lost.
pub trait Limit: fmt::Debug + Send {
    /// How many slots there may be now; at least 1.
    fn limit(&self) -> u32;

    /// Somebody sets the limit by hand: it goes on from there.
    fn set(&mut self, limit: u32, now: Duration);

    /// Whether it cares for first tokens; where it does not, they are not looked up. Default yes.
    fn wants_first_token(&self) -> bool {
        true
    }

    /// What a call showed.
    fn sample(&mut self, sample: &Sample);
}

/// What a call showed. Times count from some moment in the past.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Now.
    pub at: Duration,
    /// When the call was given its slot.
    pub admitted_at: Duration,
    /// How many slots were in use then, its own included; less those that are held for calls which
    /// wait further in and were not sent yet, as far as can be told from this call.
    pub in_flight: u32,
    /// How it went.
    pub signal: Signal,
}

impl Sample {
    /// What a call showed.
    pub const fn new(at: Duration, admitted_at: Duration, in_flight: u32, signal: Signal) -> Self {
        Self {
            at,
            admitted_at,
            in_flight,
            signal,
        }
    }
}

/// How a call went, as far as it says something about the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// Its first token came after this time.
    FirstToken(Duration),
    /// It was dropped for another one that was faster, after this time without a first token.
    NoTokenAfter(Duration),
    /// It succeeded, and nothing is known of its first token: the answer came whole.
    Success,
    /// It ended in an overload error or a timeout.
    Overload,
}

/// Bounds of an adaptive limit and where it starts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    initial: u32,
    least: u32,
    most: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            initial: 8,
            least: 1,
            most: 1_000,
        }
    }
}

impl Bounds {
    fn set_between(&mut self, bounds: RangeInclusive<u32>) {
        self.least = *bounds.start();
        self.most = *bounds.end();
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Self {
            initial,
            least,
            most,
        } = *self;
        if least == 0 || least > most || most > MAX_SIZE {
            return Err(ConfigError::Bounds { least, most });
        }
        if !(least..=most).contains(&initial) {
            return Err(ConfigError::Initial {
                initial,
                least,
                most,
            });
        }
        Ok(())
    }

    fn clamp(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.least), f64::from(self.most))
    }
}

/// How much is left of the limit after a cut: a part of it.
fn check_backoff(backoff: f64) -> Result<(), ConfigError> {
    // What is not a number is in no range.
    if (0.1..1.0).contains(&backoff) {
        Ok(())
    } else {
        Err(ConfigError::Backoff(backoff))
    }
}

/// The limit as whole slots.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between the bounds, which are whole numbers from 1"
)]
fn whole(limit: f64) -> u32 {
    limit.round() as u32
}
