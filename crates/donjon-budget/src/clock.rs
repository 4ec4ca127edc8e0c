//! What time it is, for periods.

use std::time::UNIX_EPOCH;

use donjon_core::WallClock;

/// The wall clock of the budgets.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The system's. Periods are seconds and more, so where the kernel has a coarse one, some milliseconds behind and four
    /// times as fast, it is read.
    #[default]
    System,
    Given(WallClock),
}

impl Clock {
    /// Nanoseconds since 1970.
    #[inline]
    pub(crate) fn nanos(&self) -> u64 {
        match self {
            Self::System => system(),
            Self::Given(clock) => exact(clock),
        }
    }
}

const SECOND: u64 = 1_000_000_000;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn system() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND).saturating_add(nanos)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn system() -> u64 {
    exact(&WallClock::system())
}

fn exact(clock: &WallClock) -> u64 {
    let since = clock.now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        let seconds = since.as_secs().saturating_mul(SECOND);
        seconds.saturating_add(u64::from(since.subsec_nanos()))
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_is_the_same_clock() {
        let before = exact(&WallClock::system());
        let coarse = Clock::System.nanos();
        let apart = coarse.abs_diff(before);
        assert!(apart < 5 * SECOND, "{apart} ns");
    }
}
