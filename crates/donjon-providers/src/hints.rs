//! What servers say of their limits in headers.
//!
//! Everything here is pure: the wall time is passed in, and whatever a server writes, nothing panics.
//! Sources: <https://platform.openai.com/docs/guides/rate-limits>,
//! <https://docs.anthropic.com/en/api/rate-limits>, RFC 9110 section 10.2.3 (`Retry-After`), and the
//! clients of OpenAI for `retry-after-ms` and `x-should-retry`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use donjon_core::{Hints, LimitHint, LimitUnit};
use http::HeaderMap;
use smallvec::SmallVec;

/// What is longer than this is taken for this.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The limits that `headers` name, or `None` if they name none.
///
/// Read are `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (OpenAI and most others, resets
/// as durations), `x-ratelimit-{limit,remaining,reset}` (OpenRouter, the reset in milliseconds since
/// 1970) and `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`
/// (resets as RFC 3339 times, counted from `now`).
pub fn limits(headers: &HeaderMap, now: SystemTime) -> Option<Hints> {
    let mut found: SmallVec<[LimitHint; 2]> = SmallVec::new();
    for (name, value) in headers {
        let name = name.as_str();
        let (unit, what) = if let Some(rest) = name.strip_prefix("x-ratelimit-") {
            let (what, unit) = rest.split_once('-').unwrap_or((rest, "requests"));
            (unit, what)
        } else if let Some(rest) = name.strip_prefix("anthropic-ratelimit-") {
            let Some(split) = rest.rsplit_once('-') else {
                continue;
            };
            split
        } else {
            continue;
        };
        let unit = match unit {
            "requests" => LimitUnit::Requests,
            "tokens" => LimitUnit::Tokens,
            "input-tokens" => LimitUnit::InputTokens,
            "output-tokens" => LimitUnit::OutputTokens,
            _ => continue,
        };
        let Ok(text) = value.to_str() else { continue };
        let (mut limit, mut remaining, mut reset) = (None, None, None);
        match what {
            "limit" => limit = count(text),
            "remaining" => remaining = count(text),
            "reset" => reset = time_until(text, now),
            _ => continue,
        }
        if limit.is_none() && remaining.is_none() && reset.is_none() {
            continue;
        }
        let at = found.iter().position(|hint| hint.unit == unit);
        let at = at.unwrap_or_else(|| {
            found.push(LimitHint::new(unit));
            found.len() - 1
        });
        let hint = &mut found[at];
        hint.limit = limit.or(hint.limit);
        hint.remaining = remaining.or(hint.remaining);
        hint.reset = reset.or(hint.reset);
    }
    (!found.is_empty()).then(|| Hints::new(found))
}

/// How long `headers` ask to wait: `retry-after-ms`, else `Retry-After` in seconds, whole or not, or
/// as an HTTP date counted from `now`.
///
/// A date that is past means now; what is negative or no number says nothing; more than a year is
/// taken for a year.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return Some(seconds(millis / 1000.0));
    }
    let text = text("retry-after")?;
    if let Some(secs) = number(text) {
        return Some(seconds(secs));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(until(at, now))
}

/// What `x-should-retry` says, if it says anything.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// A duration as OpenAI writes it: `1s`, `6m0s`, `12ms`, `1h2m3.5s`; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(secs) = number(text) {
        return Some(seconds(secs));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let figure = number(&rest[..digits])?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total = total.saturating_add(seconds(figure * scale)).min(LONGEST);
    }
    (!text.is_empty()).then_some(total)
}

/// A moment as RFC 3339 writes it: `2025-01-02T03:04:05Z`, with fractions and offsets.
pub fn rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.split('-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let clock_end = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(clock_end);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let offset = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let offset = digits(hours)? * 3600 + digits(minutes)? * 60;
            if sign == "-" { -offset } else { offset }
        }
    };
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let nanos = number(&format!("0.{fraction}"))?;
    let since =
        days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let since = Duration::from_secs(u64::try_from(since).ok()?);
    UNIX_EPOCH.checked_add(since)?.checked_add(seconds(nanos))
}

/// A limit's reset, in whichever form.
fn time_until(text: &str, now: SystemTime) -> Option<Duration> {
    match number(text.trim()) {
        // So many seconds ahead would be decades: it is a moment since 1970.
        Some(moment) if moment >= 1e11 => Some(until(
            UNIX_EPOCH.checked_add(seconds_long(moment / 1000.0))?,
            now,
        )),
        Some(moment) if moment >= 1e9 => {
            Some(until(UNIX_EPOCH.checked_add(seconds_long(moment))?, now))
        }
        Some(secs) => Some(seconds(secs)),
        None => match rfc3339(text) {
            Some(at) => Some(until(at, now)),
            None => duration(text),
        },
    }
}

fn until(at: SystemTime, now: SystemTime) -> Duration {
    at.duration_since(now).unwrap_or_default().min(LONGEST)
}

/// A number that is not negative, infinite or none.
fn number(text: &str) -> Option<f64> {
    // What Rust reads beyond figures ("nan", "inf", "+1") no server means.
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.parse().ok().filter(|figure: &f64| !figure.is_nan())
}

fn count(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn digits(text: &str) -> Option<i64> {
    let valid = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

fn seconds(secs: f64) -> Duration {
    seconds_long(secs).min(LONGEST)
}

fn seconds_long(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}

/// Days from 1970-01-01 in the Gregorian calendar, with years that begin in March, so that the leap
/// day is the last of them.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let before_1970 = 719_468;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - before_1970
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
                (HeaderName::from_static(name), value)
            })
            .collect()
    }

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn durations() {
        let secs = Duration::from_secs;
        for (text, expected) in [
            ("1s", Some(secs(1))),
            ("6m0s", Some(secs(360))),
            ("12ms", Some(Duration::from_millis(12))),
            ("1h2m3.5s", Some(Duration::from_millis(3_723_500))),
            ("1m4.172s", Some(Duration::from_millis(64_172))),
            ("2d", Some(secs(172_800))),
            ("7", Some(secs(7))),
            ("0.25", Some(Duration::from_millis(250))),
            ("99999999h", Some(LONGEST)),
            ("", None),
            ("s", None),
            ("1", Some(secs(1))),
            ("1x", None),
            ("1s2", None),
            ("-1s", None),
            ("1..2s", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn moments() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(at(0))),
            ("2024-02-29T12:30:01Z", Some(at(1_709_209_801))),
            ("2025-01-01T00:00:00+01:30", Some(at(1_735_684_200))),
            (
                "2025-01-01T00:00:00.5Z",
                Some(at(1_735_689_600) + Duration::from_millis(500)),
            ),
            ("2025-13-01T00:00:00Z", None),
            ("2025-01-01", None),
            ("2025-01-01T00:00:00", None),
            ("yesterday", None),
        ] {
            assert_eq!(rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn retry_after_in_every_form() {
        let now = at(784_111_777);
        let read = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs), now);
        let secs = Duration::from_secs;
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("retry-after", "2")]), Some(secs(2)));
        assert_eq!(
            read(&[("retry-after", "1.5")]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            read(&[("retry-after-ms", "250")]),
            Some(Duration::from_millis(250))
        );
        let both = [("retry-after", "9"), ("retry-after-ms", "8500")];
        assert_eq!(read(&both), Some(Duration::from_millis(8500)));
        let unreadable = [("retry-after", "9"), ("retry-after-ms", "soon")];
        assert_eq!(read(&unreadable), Some(secs(9)));
        let date = "Sun, 06 Nov 1994 08:49:47 GMT";
        assert_eq!(read(&[("retry-after", date)]), Some(secs(10)));
        let past = "Sun, 06 Nov 1994 08:49:27 GMT";
        assert_eq!(read(&[("retry-after", past)]), Some(Duration::ZERO));
        for nonsense in ["-1", "NaN", "inf", "", "+3", "1e", "é"] {
            assert_eq!(read(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        for huge in ["1e300", "99999999999999999999999", "1e999"] {
            assert_eq!(read(&[("retry-after", huge)]), Some(LONGEST), "{huge}");
        }
    }

    #[test]
    fn limits_of_openai() {
        let headers = headers(&[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("x-ratelimit-limit-req-minute", "7"),
            ("date", "now"),
        ]);
        let hints = limits(&headers, at(0)).expect("hints");
        assert_eq!(hints.limits.len(), 2);
        let tokens = hints.of(LimitUnit::Tokens).expect("tokens");
        assert_eq!(
            (tokens.limit, tokens.remaining),
            (Some(150_000), Some(149_984))
        );
        assert_eq!(tokens.reset, Some(Duration::from_secs(360)));
        let requests = hints.of(LimitUnit::Requests).expect("requests");
        assert_eq!((requests.limit, requests.remaining), (Some(60), Some(59)));
        assert_eq!(requests.reset, Some(Duration::from_secs(1)));
    }

    #[test]
    fn limits_of_openrouter_and_anthropic() {
        let openrouter = headers(&[
            ("x-ratelimit-limit", "20"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1741305600000"),
        ]);
        let hints = limits(&openrouter, at(1_741_305_590)).expect("hints");
        let requests = hints.of(LimitUnit::Requests).expect("requests");
        assert_eq!((requests.limit, requests.remaining), (Some(20), Some(0)));
        assert_eq!(requests.reset, Some(Duration::from_secs(10)));

        let anthropic = headers(&[
            ("anthropic-ratelimit-input-tokens-limit", "30000"),
            ("anthropic-ratelimit-input-tokens-remaining", "12000"),
            (
                "anthropic-ratelimit-input-tokens-reset",
                "2025-01-01T00:00:30Z",
            ),
            ("anthropic-ratelimit-output-tokens-remaining", "x"),
        ]);
        let hints = limits(&anthropic, at(1_735_689_600)).expect("hints");
        assert_eq!(hints.limits.len(), 1);
        let input = hints.of(LimitUnit::InputTokens).expect("input tokens");
        assert_eq!((input.limit, input.remaining), (Some(30_000), Some(12_000)));
        assert_eq!(input.reset, Some(Duration::from_secs(30)));
        assert!(limits(&HeaderMap::new(), at(0)).is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), secs in any::<u64>()) {
            let now = UNIX_EPOCH.checked_add(Duration::from_secs(secs)).unwrap_or(UNIX_EPOCH);
            let _ = (duration(&text), rfc3339(&text), time_until(&text, now));
        }

        #[test]
        fn no_time_like_text_panics(text in "[0-9.eEnaifTZ:+\\-hmsdµ ]{0,40}", secs in 0_u64..4_000_000_000) {
            let now = at(secs);
            let bounded = |wait: Option<Duration>| wait.is_none_or(|wait| wait <= LONGEST);
            prop_assert!(bounded(duration(&text)));
            prop_assert!(bounded(time_until(&text, now)));
            let _ = rfc3339(&text);
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"] {
                    let mut map = HeaderMap::new();
                    map.insert(name, value.clone());
                    prop_assert!(bounded(retry_after(&map, now)));
                    let _ = (limits(&map, now), should_retry(&map));
                }
            }
        }

        #[test]
        fn rfc3339_agrees_with_http_dates(secs in 0_u64..253_402_300_800) {
            let moment = at(secs);
            let http = httpdate::fmt_http_date(moment);
            let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
                .iter().position(|name| *name == &http[8..11]).expect("a month") + 1;
            let text = format!("{}-{month:02}-{}T{}Z", &http[12..16], &http[5..7], &http[17..25]);
            prop_assert_eq!(rfc3339(&text), Some(moment));
        }
    }
}
