//! The headers by which a provider tells when to come back and what is left of its limits.
//!
//! Sources: RFC 9110 section 10.2.3 (`Retry-After`), <https://platform.openai.com/docs/guides/rate-limits> (`x-ratelimit-*`),
//! <https://docs.anthropic.com/en/api/rate-limits> (`anthropic-ratelimit-*`), the official SDKs (`retry-after-ms`,
//! `x-should-retry`).

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};

use super::script::Script;

/// What a rate limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quota {
    /// Requests.
    Requests,
    /// Tokens in and out.
    Tokens,
    /// Tokens in (Anthropic only).
    InputTokens,
    /// Tokens out (Anthropic only).
    OutputTokens,
}

impl Quota {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input-tokens",
            Self::OutputTokens => "output-tokens",
        }
    }
}

/// Headers, on success and on failure alike.
impl Script {
    /// Adds a header. One of the same name is replaced.
    ///
    /// # Panics
    ///
    /// On a name or a value that HTTP does not allow.
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&value))
        else {
            panic!("{name}: {value} is no HTTP header");
        };
        self.headers.insert(name, value);
        self
    }

    /// `Retry-After` in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", seconds)
    }

    /// `Retry-After` as an HTTP date (whole seconds).
    pub fn retry_after_date(self, date: SystemTime) -> Self {
        self.header("retry-after", httpdate::fmt_http_date(date))
    }

    /// `retry-after-ms`.
    pub fn retry_after_ms(self, milliseconds: u64) -> Self {
        self.header("retry-after-ms", milliseconds)
    }

    /// `x-should-retry`.
    pub fn should_retry(self, yes: bool) -> Self {
        self.header("x-should-retry", yes)
    }

    /// OpenAI's `x-ratelimit-limit-*`, `-remaining-*` and `-reset-*`; the reset as a duration such as `6m0s` or `20ms`.
    pub fn x_ratelimit(self, quota: Quota, limit: u64, remaining: u64, reset: Duration) -> Self {
        let name = quota.name();
        self.header(&format!("x-ratelimit-limit-{name}"), limit)
            .header(&format!("x-ratelimit-remaining-{name}"), remaining)
            .header(&format!("x-ratelimit-reset-{name}"), go_duration(reset))
    }

    /// Anthropic's `anthropic-ratelimit-*-limit`, `-remaining` and `-reset`; the reset as an RFC 3339 time.
    pub fn anthropic_ratelimit(
        self,
        quota: Quota,
        limit: u64,
        remaining: u64,
        reset: SystemTime,
    ) -> Self {
        let name = quota.name();
        self.header(&format!("anthropic-ratelimit-{name}-limit"), limit)
            .header(&format!("anthropic-ratelimit-{name}-remaining"), remaining)
            .header(&format!("anthropic-ratelimit-{name}-reset"), rfc3339(reset))
    }
}

/// A duration as Go prints it, to the millisecond: the form of OpenAI's resets.
fn go_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return if millis == 0 {
            "0s".into()
        } else {
            format!("{millis}ms")
        };
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let hours = if hours > 0 {
        format!("{hours}h{minutes}m")
    } else {
        String::new()
    };
    let minutes = if hours.is_empty() && minutes > 0 {
        format!("{minutes}m")
    } else {
        String::new()
    };
    let fraction = if millis > 0 {
        format!(".{millis:03}").trim_end_matches('0').to_owned()
    } else {
        String::new()
    };
    format!("{hours}{minutes}{seconds}{fraction}s")
}

/// Whole seconds, UTC; a time before 1970 counts as 1970.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hour, minute) = (days + 1, second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_as_openai_sends_them() {
        let cases = [
            (20, "20ms"),
            (0, "0s"),
            (1_000, "1s"),
            (6_500, "6.5s"),
            (360_000, "6m0s"),
            (7_322_045, "2h2m2.045s"),
        ];
        for (millis, text) in cases {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn times_look_as_anthropic_sends_them() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_772_323_200, "2026-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(
                rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                text
            );
        }
    }
}
