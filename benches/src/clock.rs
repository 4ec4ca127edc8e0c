//! The clocks of the benches: real time for latencies, processor time for costs.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The present moment of the real, monotonic clock.
#[must_use]
pub fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench measures real time; no paused clock may govern it"
    )]
    Instant::now()
}

/// Processor time, user and system, that all threads of this process have used so far; nanosecond resolution.
///
/// Batches are measured by it rather than by the real clock, because time lost to other processes is not in it.
#[must_use]
pub fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(spent.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(spent.tv_nsec).unwrap_or(0))
}
