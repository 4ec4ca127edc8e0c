//! A threshold that follows the usual level of failures.

use super::is_share;
use crate::{
    error::ConfigError,
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

/// A failure rate that is too high for this target: so many deviations above its usual level.
///
/// A circuit learns the level from blocks of calls while it is closed: their mean failure rate and
/// its variance, each block counting for less than the one after it (exponentially weighted). It
/// opens when the rate in the window reaches the mean plus the given number of standard deviations,
/// which are taken no smaller than chance alone makes them for so many calls. A block that made the
/// circuit open is not learned from, so that an outage does not become the usual level; a slow change
/// for the worse does, up to the ceiling.
///
/// Until ten blocks were learned from the ceiling is the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    floor: f64,
    ceiling: f64,
    deviations: f64,
    memory: u32,
}

impl Adaptive {
    /// Three deviations, a floor of 0.2, a ceiling of 0.8, a memory of 100 blocks.
    pub const fn new() -> Self {
        Self {
            floor: 0.2,
            ceiling: 0.8,
            deviations: 3.0,
            memory: 100,
        }
    }

    /// Sets the failure rate below which it never opens, however rare failures usually are.
    #[must_use]
    pub const fn floor(mut self, rate: f64) -> Self {
        self.floor = rate;
        self
    }

    /// Sets the failure rate from which on it always opens, however common failures usually are.
    #[must_use]
    pub const fn ceiling(mut self, rate: f64) -> Self {
        self.ceiling = rate;
        self
    }

    /// Sets how many standard deviations above the usual level are too many.
    #[must_use]
    pub const fn deviations(mut self, deviations: f64) -> Self {
        self.deviations = deviations;
        self
    }

    /// Sets how many blocks are remembered, roughly, from 1 to 10,000. A block is as many calls as
    /// the minimum of calls, at least 20.
    #[must_use]
    pub const fn memory(mut self, blocks: u32) -> Self {
        self.memory = blocks;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (floor, ceiling) = (self.floor, self.ceiling);
        if !(is_share(floor) && is_share(ceiling) && floor <= ceiling) {
            return Err(ConfigError::AdaptiveBounds { floor, ceiling });
        }
        if !(self.deviations > 0.0 && self.deviations.is_finite()) {
            return Err(ConfigError::AdaptiveDeviations(self.deviations));
        }
        if !(1..=10_000).contains(&self.memory) {
            return Err(ConfigError::AdaptiveMemory(self.memory));
        }
        Ok(())
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self::new()
    }
}

/// The usual level of failures of one circuit.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// Calls and failures of the block that is being counted: the upper and the lower half.
    block: AtomicU64,
    /// The level, packed.
    level: AtomicU64,
}

/// A mean, a variance and the number of blocks that they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Level {
    mean: f64,
    variance: f64,
    blocks: u16,
}

/// Below this many blocks nothing is known.
const WARM: u16 = 10;
const SCALE: f64 = (1_u32 << 24) as f64 - 1.0;

impl Level {
    /// Mean and variance are kept in 24 bits each; a variance of shares is at most a quarter.
    fn unpack(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "so many bits are meant")]
        let bits = |word: u64| f64::from(word as u32 & 0xff_ffff) / SCALE;
        Self {
            mean: bits(word >> 40),
            variance: bits(word >> 16) / 4.0,
            blocks: u16::try_from(word & 0xffff).unwrap_or(u16::MAX),
        }
    }

    fn pack(self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is from 0 to 1"
        )]
        let bits = |share: f64| (share.clamp(0.0, 1.0) * SCALE).round() as u64;
        bits(self.mean) << 40 | bits(self.variance * 4.0) << 16 | u64::from(self.blocks)
    }

    /// After Finch, "Incremental calculation of weighted mean and variance" (2009), section 9.
    fn learn(self, rate: f64, memory: u32) -> Self {
        let blocks = self.blocks.saturating_add(1);
        // The first blocks count alike.
        let weight = (2.0 / (f64::from(memory) + 1.0)).max(1.0 / f64::from(blocks));
        let difference = rate - self.mean;
        let step = weight * difference;
        Self {
            mean: self.mean + step,
            variance: (1.0 - weight) * (self.variance + difference * step),
            blocks,
        }
    }
}

impl Learned {
    /// Counts a call of a circuit that stays closed; whoever completes a block learns from it.
    pub(crate) fn see(&self, adaptive: &Adaptive, failed: bool, minimum_calls: u32) {
        let block = u64::from(minimum_calls.max(20));
        let one = 1 << 32 | u64::from(failed);
        let seen = self.block.fetch_add(one, Relaxed).wrapping_add(one);
        if seen >> 32 != block {
            return;
        }
        // Nobody else sees this number; what was counted since stays.
        self.block.fetch_sub(seen, Relaxed);
        let failures = u32::try_from(seen & 0xffff_ffff).unwrap_or(u32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a small number of calls")]
        let rate = f64::from(failures) / block as f64;
        let learn = |word| Some(Level::unpack(word).learn(rate, adaptive.memory).pack());
        let _ = self.level.fetch_update(AcqRel, Acquire, learn);
    }

    /// What the failure rate of so many calls must stay below.
    pub(crate) fn threshold(&self, adaptive: &Adaptive, calls: u32) -> f64 {
        let level = Level::unpack(self.level.load(Acquire));
        if level.blocks < WARM {
            return adaptive.ceiling;
        }
        let chance = level.mean * (1.0 - level.mean) / f64::from(calls.max(1));
        let deviation = level.variance.max(chance).sqrt();
        (level.mean + adaptive.deviations * deviation).clamp(adaptive.floor, adaptive.ceiling)
    }

    /// The calls that made the circuit open are not learned from.
    pub(crate) fn drop_block(&self) {
        self.block.store(0, Relaxed);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.drop_block();
        self.level.store(0, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Lets it see so many calls, of which every `nth` fails.
    fn usual(learned: &Learned, adaptive: &Adaptive, calls: u32, nth: u32) {
        for call in 1..=calls {
            learned.see(adaptive, call % nth == 0, 20);
        }
    }

    #[test]
    fn before_it_knows_anything_the_ceiling_holds() {
        let (learned, adaptive) = (Learned::default(), Adaptive::new());
        assert_eq!(learned.threshold(&adaptive, 100), 0.8);
        usual(&learned, &adaptive, 9 * 20, 10);
        assert_eq!(learned.threshold(&adaptive, 100), 0.8);
        usual(&learned, &adaptive, 20, 10);
        assert!(learned.threshold(&adaptive, 100) < 0.3);
    }

    #[test]
    fn it_stands_above_the_usual_level_and_within_its_bounds() {
        let adaptive = Adaptive::new().floor(0.05);
        let at = |nth| {
            let learned = Learned::default();
            usual(&learned, &adaptive, 100 * 20, nth);
            learned.threshold(&adaptive, 100)
        };
        // One in ten, and three deviations of what chance makes of a hundred calls: 0.1 + 3 × 0.03.
        assert!((at(10) - 0.19).abs() < 0.001, "{}", at(10));
        // One in four: 0.25 + 3 × 0.0433.
        assert!((at(4) - 0.38).abs() < 0.001, "{}", at(4));
        assert_eq!(at(u32::MAX), 0.05, "the floor");
        assert_eq!(at(1), 0.8, "the ceiling");
    }

    #[test]
    fn it_follows_a_change_and_forgets_what_was() {
        let (learned, adaptive) = (Learned::default(), Adaptive::new().memory(10));
        usual(&learned, &adaptive, 200 * 20, 20);
        let before = learned.threshold(&adaptive, 100);
        usual(&learned, &adaptive, 200 * 20, 4);
        let after = learned.threshold(&adaptive, 100);
        assert!(before < 0.2 + 0.001 && after > 0.35, "{before} {after}");
        usual(&learned, &adaptive, 400 * 20, 20);
        let again = learned.threshold(&adaptive, 100);
        assert!((again - before).abs() < 0.01, "{before} {again}");
    }

    #[test]
    fn a_level_that_varies_gives_more_room() {
        let adaptive = Adaptive::new();
        let steady = Learned::default();
        usual(&steady, &adaptive, 100 * 20, 5);
        let bursts = Learned::default();
        for block in 0..100 {
            // Now nothing fails, now two of five.
            (0..20).for_each(|call| bursts.see(&adaptive, block % 2 == 0 && call % 5 < 2, 20));
        }
        let (steady, bursts) = (
            steady.threshold(&adaptive, 100),
            bursts.threshold(&adaptive, 100),
        );
        assert!(bursts > steady + 0.2, "{steady} {bursts}");
    }

    #[test]
    fn a_level_survives_its_packing() {
        let level = Level {
            mean: 0.123_456,
            variance: 0.012_345,
            blocks: 321,
        };
        let again = Level::unpack(level.pack());
        assert!((again.mean - level.mean).abs() < 1e-6);
        assert!((again.variance - level.variance).abs() < 1e-6);
        assert_eq!(again.blocks, 321);
    }
}
