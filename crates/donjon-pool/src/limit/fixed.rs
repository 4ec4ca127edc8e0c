//! A limit that stays.

use std::time::Duration;

use super::{Limit, Sample};

/// A limit that is what it was set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed(
    /// How many slots there are.
    pub u32,
);

impl Limit for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }

    fn set(&mut self, limit: u32, _: Duration) {
        self.0 = limit;
    }

    fn sample(&mut self, _: &Sample) {}
}
