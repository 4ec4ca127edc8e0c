//! When to retry, and how long to wait before it.

use std::time::Duration;

use donjon_core::{Call, ErrorKind, Health, LlmError};
use tokio::time::Instant;

use crate::{
    backoff::{Backoff, scale},
    error::ConfigError,
};

/// What differs for one kind of error; what is not set here is as for all others.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KindPolicy {
    max_attempts: Option<u32>,
    backoff: Option<Backoff>,
}

impl KindPolicy {
    /// Nothing differs yet.
    pub const fn new() -> Self {
        Self {
            max_attempts: None,
            backoff: None,
        }
    }

    /// Sets how many attempts a target gets, the first included, as long as they fail so; at
    /// least 1, and 1 for no retry.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Sets the backoff after an error of this kind.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }
}

/// How many attempts, and how long between them.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
}

/// The rules for every kind of error, checked.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    rule: Rule,
    kinds: Vec<(ErrorKind, Rule)>,
    most_attempts: u32,
    pub(crate) total_attempts: Option<u32>,
    pub(crate) max_parked: usize,
}

impl Policy {
    pub(crate) fn new(
        rule: Rule,
        kinds: &[(ErrorKind, KindPolicy)],
        total_attempts: Option<u32>,
        max_parked: usize,
    ) -> Result<Self, ConfigError> {
        let kinds = kinds.iter().map(|(kind, policy)| {
            let max_attempts = policy.max_attempts.unwrap_or(rule.max_attempts);
            let backoff = policy.backoff.as_ref().unwrap_or(&rule.backoff).clone();
            let rule = Rule {
                max_attempts,
                backoff,
            };
            (*kind, rule)
        });
        let kinds: Vec<_> = kinds.collect();
        let mut most_attempts = 0;
        for rule in kinds.iter().map(|(_, rule)| rule).chain([&rule]) {
            if rule.max_attempts == 0 {
                return Err(ConfigError::ZeroMaxAttempts);
            }
            rule.backoff.check()?;
            most_attempts = most_attempts.max(rule.max_attempts);
        }
        if total_attempts == Some(0) {
            return Err(ConfigError::ZeroTotalAttempts);
        }
        if max_parked == 0 {
            return Err(ConfigError::ZeroMaxParked);
        }
        Ok(Self {
            rule,
            kinds,
            most_attempts,
            total_attempts,
            max_parked,
        })
    }

    /// The rule for errors of `kind`; the last one given for it counts.
    pub(crate) fn rule(&self, kind: ErrorKind) -> &Rule {
        let own = self.kinds.iter().rev().find(|(of, _)| *of == kind);
        own.map_or(&self.rule, |(_, rule)| rule)
    }

    /// How many attempts there can be whatever goes wrong.
    pub(crate) fn most_attempts(&self) -> u32 {
        self.most_attempts
    }
}

/// Why an error was handed on and not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUp {
    /// The same target must not be asked again after such an error.
    NotRetryable,
    /// The attempts are used up, or what is left is reserved for targets that were not tried yet.
    Exhausted,
    /// The wait cannot end before the call's deadline.
    Deadline,
    /// The wait is longer than the call's patience, and a target was not tried yet.
    Patience,
    /// Too many calls are waiting already.
    Parked,
    /// The budget of retries is spent.
    Budget,
    /// Retries are switched off.
    Disabled,
}

impl GiveUp {
    /// Every reason, for tables and figures.
    pub const ALL: &'static [Self] = &[
        Self::NotRetryable,
        Self::Exhausted,
        Self::Deadline,
        Self::Patience,
        Self::Parked,
        Self::Budget,
        Self::Disabled,
    ];

    /// The word for it in figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::Exhausted => "exhausted",
            Self::Deadline => "deadline",
            Self::Patience => "patience",
            Self::Parked => "parked",
            Self::Budget => "budget",
            Self::Disabled => "disabled",
        }
    }
}

/// How long the server asks to be left alone: `Retry-After` in any of its forms, else, where `health`
/// says that the target has too much to do, the latest reset of the limits that are used up. After
/// other errors a limit that happens to be used up is not what failed. A wait of zero says nothing,
/// so that a server that always says so is not asked again at once, and hides nothing else that it
/// says.
pub(crate) fn hint(error: &LlmError, health: Health, now: Instant) -> Option<Duration> {
    let told = error.retry_after().filter(|wait| !wait.is_zero());
    told.or_else(|| {
        let hints = error.hints().filter(|_| health == Health::Overload)?;
        let age = now.saturating_duration_since(hints.received_at);
        let used_up = hints.limits.iter().filter(|l| l.remaining == Some(0));
        let reset = used_up.filter_map(|limit| limit.reset).max()?;
        let wait = reset.saturating_sub(age);
        (!wait.is_zero()).then_some(wait)
    })
}

/// How much later than the server asked for a retry may come, so that not all come at once.
const SPREAD: f64 = 0.1;

/// What a call allows of waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    left: Duration,
    longest: Duration,
}

impl Allowance {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            left: call.time_left(),
            longest: call.longest_wait(),
        }
    }

    /// Refuses a wait that the deadline or the patience does not allow. One that ends with the
    /// deadline leaves nothing for the attempt.
    pub(crate) fn check(self, wait: Duration) -> Result<Duration, GiveUp> {
        if wait >= self.left {
            Err(GiveUp::Deadline)
        } else if wait > self.longest {
            Err(GiveUp::Patience)
        } else {
            Ok(wait)
        }
    }

    /// A wait for `hint` or up to a tenth longer, as far as that is allowed; never shorter.
    pub(crate) fn check_hint(self, hint: Duration, random: f64) -> Result<Duration, GiveUp> {
        let spread = hint.saturating_add(scale(hint, SPREAD * random));
        self.check(spread).or_else(|_| self.check(hint))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use donjon_core::{Hints, LimitHint, LimitUnit};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(remaining: u64, reset: Duration) -> LimitHint {
        let mut limit = LimitHint::new(LimitUnit::Requests);
        limit.remaining = Some(remaining);
        limit.reset = Some(reset);
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_used_up_is_a_hint() {
        let hint = |error: &LlmError, now| hint(error, Health::Overload, now);
        let error = LlmError::new(ErrorKind::RateLimited, "");
        let now = Instant::now();
        assert_eq!(hint(&error, now), None);
        let hints = Hints::new([limit(0, SECOND * 5), limit(0, SECOND * 7)]);
        let used_up = error.clone().with_hints(hints);
        assert_eq!(hint(&used_up, now), Some(SECOND * 7));
        assert_eq!(hint(&used_up, now + SECOND * 3), Some(SECOND * 4));
        assert_eq!(hint(&used_up, now + SECOND * 9), None, "that is past");
        let told = used_up.clone().with_retry_after(SECOND);
        assert_eq!(hint(&told, now), Some(SECOND), "it said so itself");
        let zero = used_up.with_retry_after(Duration::ZERO);
        assert_eq!(hint(&zero, now), Some(SECOND * 7), "zero hides nothing");
        let left = error.clone().with_hints(Hints::new([limit(1, SECOND)]));
        assert_eq!(hint(&left, now), None);
        assert_eq!(hint(&error.with_retry_after(Duration::ZERO), now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_counts_only_where_the_target_has_too_much_to_do() {
        let now = Instant::now();
        let hints = Hints::new([limit(0, SECOND * 3_600)]);
        let error = LlmError::new(ErrorKind::ServerError, "").with_hints(hints);
        let told = error.clone().with_retry_after(SECOND);
        for health in [Health::Fault, Health::Neutral] {
            assert_eq!(hint(&error, health, now), None);
            assert_eq!(hint(&told, health, now), Some(SECOND), "for every kind");
        }
    }

    #[test]
    fn a_hint_is_spread_later_and_never_earlier() {
        let open = Allowance {
            left: Duration::MAX,
            longest: Duration::MAX,
        };
        for random in [0.0, 0.3, 0.999_999] {
            let wait = open.check_hint(SECOND * 10, random).expect("allowed");
            assert!((SECOND * 10..=SECOND * 11).contains(&wait), "{wait:?}");
        }
        assert_eq!(
            open.check_hint(Duration::MAX, 1.0),
            Err(GiveUp::Deadline),
            "for ever"
        );
        let tight = Allowance {
            left: Duration::from_millis(10_200),
            longest: Duration::from_millis(10_200),
        };
        assert_eq!(tight.check_hint(SECOND * 10, 0.9), Ok(SECOND * 10));
        assert_eq!(tight.check_hint(SECOND * 11, 0.0), Err(GiveUp::Deadline));
        let impatient = Allowance {
            left: SECOND * 60,
            longest: SECOND * 2,
        };
        assert_eq!(impatient.check_hint(SECOND * 2, 0.5), Ok(SECOND * 2));
        assert_eq!(impatient.check_hint(SECOND * 3, 0.5), Err(GiveUp::Patience));
        assert_eq!(impatient.check(SECOND * 60), Err(GiveUp::Deadline));
    }
}
