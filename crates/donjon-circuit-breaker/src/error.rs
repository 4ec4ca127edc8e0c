//! What makes no sense in a configuration.

use std::{error::Error, fmt, time::Duration};

/// Why a [`BreakerLayer`](crate::BreakerLayer) cannot be built.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A window of so many calls holds from 1 to 1,000,000.
    WindowCalls(u32),
    /// A window of time is at least a millisecond long.
    WindowLength(Duration),
    /// A window of time has from 1 to 1,000 buckets, none of them shorter than a millisecond.
    WindowBuckets(u32),
    /// `failure_rate` is a share above 0, up to 1.
    FailureRate(f64),
    /// `slow_rate` is a share above 0, up to 1.
    SlowRate(f64),
    /// `slow_rate` says nothing without `slow_first_token` or `slow_answer`.
    SlowRateWithoutBound,
    /// `slow_first_token` is longer than zero.
    ZeroSlowFirstToken,
    /// `slow_answer` is longer than zero.
    ZeroSlowAnswer,
    /// `consecutive_failures` is at least 1.
    ZeroConsecutiveFailures,
    /// `minimum_calls` is at least 1.
    ZeroMinimumCalls,
    /// Nothing would ever open the circuit: every threshold is off.
    NothingOpens,
    /// `probes` is from 1 to 1,000: without any an open circuit would never close.
    Probes(u32),
    /// `probe_deadline` is at least a millisecond.
    ProbeDeadline(Duration),
    /// The shortest delay of an open circuit is longer than zero.
    ZeroOpenDelay,
    /// The factor of an open delay is a number of at least 1.
    OpenDelayFactor(f64),
    /// The jitter of an open delay is a share from 0 to 1.
    OpenDelayJitter(f64),
    /// The cap of an open delay is shorter than its base.
    OpenDelayCap {
        /// The base.
        base: Duration,
        /// The cap.
        cap: Duration,
    },
    /// `forget_after` is longer than zero.
    ZeroForgetAfter,
    /// The floor and the ceiling of an adaptive threshold are shares above 0, up to 1, in this order.
    AdaptiveBounds {
        /// The floor.
        floor: f64,
        /// The ceiling.
        ceiling: f64,
    },
    /// An adaptive threshold stands at a number of deviations above 0.
    AdaptiveDeviations(f64),
    /// An adaptive threshold remembers from 1 to 10,000 blocks.
    AdaptiveMemory(u32),
    /// `max_keys` is at least 1.
    ZeroMaxKeys,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowCalls(calls) => {
                write!(f, "window: it holds from 1 to 1,000,000 calls, not {calls}")
            }
            Self::WindowLength(length) => {
                write!(f, "window: it is at least 1 ms long, not {length:?}")
            }
            Self::WindowBuckets(buckets) => write!(
                f,
                "window: it has from 1 to 1,000 buckets of at least 1 ms, not {buckets}"
            ),
            Self::FailureRate(rate) => {
                write!(f, "failure_rate must be above 0 and at most 1, not {rate}")
            }
            Self::SlowRate(rate) => {
                write!(f, "slow_rate must be above 0 and at most 1, not {rate}")
            }
            Self::SlowRateWithoutBound => {
                f.write_str("slow_rate needs slow_first_token or slow_answer")
            }
            Self::ZeroSlowFirstToken => f.write_str("slow_first_token must be longer than zero"),
            Self::ZeroSlowAnswer => f.write_str("slow_answer must be longer than zero"),
            Self::ZeroConsecutiveFailures => f.write_str("consecutive_failures must be at least 1"),
            Self::ZeroMinimumCalls => f.write_str("minimum_calls must be at least 1"),
            Self::NothingOpens => f.write_str(
                "failure_rate, consecutive_failures and the slow bounds are all off: nothing \
                 would open the circuit",
            ),
            Self::Probes(probes) => write!(f, "probes must be from 1 to 1,000, not {probes}"),
            Self::ProbeDeadline(deadline) => {
                write!(f, "probe_deadline must be at least 1 ms, not {deadline:?}")
            }
            Self::ZeroOpenDelay => f.write_str("open_delay: its base must be longer than zero"),
            Self::OpenDelayFactor(factor) => {
                write!(f, "open_delay: its factor must be 1 or more, not {factor}")
            }
            Self::OpenDelayJitter(share) => {
                write!(f, "open_delay: its jitter must be from 0 to 1, not {share}")
            }
            Self::OpenDelayCap { base, cap } => write!(
                f,
                "open_delay: its cap {cap:?} is shorter than its base {base:?}"
            ),
            Self::ZeroForgetAfter => f.write_str("forget_after must be longer than zero"),
            Self::AdaptiveBounds { floor, ceiling } => write!(
                f,
                "adaptive: floor and ceiling must be above 0, at most 1 and in this order, not \
                 {floor} and {ceiling}"
            ),
            Self::AdaptiveDeviations(deviations) => {
                write!(f, "adaptive: deviations must be above 0, not {deviations}")
            }
            Self::AdaptiveMemory(blocks) => {
                write!(f, "adaptive: memory must be from 1 to 10,000, not {blocks}")
            }
            Self::ZeroMaxKeys => f.write_str("max_keys must be at least 1"),
        }
    }
}

impl Error for ConfigError {}
