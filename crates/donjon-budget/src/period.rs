//! The periods of budgets: which one a moment is in, and when it ends.

use std::{
    fmt,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    time::Duration,
};

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, Weekday},
    tz::TimeZone,
};

use crate::ring::SLOTS;

/// Over which time a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Period {
    /// A day of the calendar, in the time zone of the budgets.
    Day,
    /// A week of the calendar that begins with this day.
    Week(Day),
    /// A month of the calendar.
    Month,
    /// Whatever span of this length ends now: from a minute to a year. It slides in 64 steps.
    Rolling(Duration),
}

/// The first day of a week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the days of the week")]
pub enum Day {
    #[default]
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day => f.write_str("day"),
            Self::Week(Day::Monday) => f.write_str("week"),
            Self::Week(day) => write!(f, "week from {day:?}"),
            Self::Month => f.write_str("month"),
            Self::Rolling(length) => write!(f, "rolling {length:?}"),
        }
    }
}

const SECOND: u64 = 1_000_000_000;
/// A cached number has 24 bits below the second at which its period ends.
const NUMBER_BITS: u32 = 24;

/// Numbers the periods of one limit, one after another, and knows when they begin. Time is in
/// nanoseconds since 1970.
#[derive(Debug)]
pub(crate) struct Calendar {
    period: Period,
    zone: TimeZone,
    /// The bounds of a period that was asked for, in seconds: when it begins, and when it ends with
    /// its number. Two threads may leave those of two periods that follow each other; then a
    /// moment of the first is taken for one of the second, which happens at the very turn.
    from: AtomicU64,
    until_number: AtomicU64,
}

impl Calendar {
    pub(crate) fn new(period: Period, zone: TimeZone) -> Self {
        Self {
            period,
            zone,
            from: AtomicU64::new(0),
            until_number: AtomicU64::new(0),
        }
    }

    pub(crate) const fn period(&self) -> Period {
        self.period
    }

    /// The number of the period, or of the step of a rolling one, that `now` is in.
    #[inline]
    pub(crate) fn slot(&self, now: u64) -> u64 {
        if let Period::Rolling(length) = self.period {
            return now / step(length);
        }
        let seconds = now / SECOND;
        let cached = self.until_number.load(Acquire);
        if self.from.load(Acquire) <= seconds && seconds < cached >> NUMBER_BITS {
            return cached & ((1 << NUMBER_BITS) - 1);
        }
        self.look_up(seconds)
    }

    #[cold]
    fn look_up(&self, seconds: u64) -> u64 {
        let number = self.number(self.date(seconds));
        let from = self.begins(number);
        let until = self.begins(number + 1);
        self.from.store(from, Release);
        self.until_number
            .store(until << NUMBER_BITS | number, Release);
        number
    }

    /// When period or step `slot` is over for whoever was charged in it.
    pub(crate) fn over_at(&self, slot: u64) -> u64 {
        match self.period {
            Period::Rolling(length) => (slot + SLOTS + 1).saturating_mul(step(length)),
            _ => self.begins(slot + 1).saturating_mul(SECOND),
        }
    }

    /// Where the amount of `slot` is kept, in the place of that of an earlier one.
    pub(crate) const fn cell(&self, slot: u64) -> u64 {
        match self.period {
            Period::Rolling(_) => slot % (SLOTS + 1),
            _ => 0,
        }
    }

    /// When step `slot` of a rolling period begins.
    pub(crate) fn step_begins(&self, slot: u64) -> u64 {
        match self.period {
            Period::Rolling(length) => slot.saturating_mul(step(length)),
            _ => self.begins(slot).saturating_mul(SECOND),
        }
    }

    /// When the period that `now` is in began: for a rolling one, its length ago.
    pub(crate) fn began_at(&self, now: u64) -> u64 {
        match self.period {
            Period::Rolling(length) => now.saturating_sub(step(length) * SLOTS),
            _ => self.begins(self.slot(now)).saturating_mul(SECOND),
        }
    }

    fn date(&self, seconds: u64) -> Date {
        let at = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        self.zone.to_datetime(at.unwrap_or(Timestamp::MAX)).date()
    }

    /// Periods are numbered from 1970 on. What is earlier is taken for it.
    fn number(&self, date: Date) -> u64 {
        let number = match self.period {
            Period::Week(first) => (days(date) - i64::from(offset(first))).div_euclid(7),
            Period::Month => (i64::from(date.year()) - 1970) * 12 + i64::from(date.month()) - 1,
            _ => days(date),
        };
        u64::try_from(number).unwrap_or(0)
    }

    /// The second at which period `number` begins: the first moment of its first day.
    fn begins(&self, number: u64) -> u64 {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let first = match self.period {
            Period::Week(first) => date(number * 7 + i64::from(offset(first))),
            Period::Month => {
                let year = i16::try_from(1970 + number / 12).ok();
                let month = i8::try_from(1 + number % 12).ok();
                year.zip(month)
                    .and_then(|(year, month)| Date::new(year, month, 1).ok())
            }
            _ => date(number),
        };
        // Where clocks are put forward at midnight, the day begins at one.
        let begins = first.and_then(|date| self.zone.to_timestamp(date.at(0, 0, 0, 0)).ok());
        let second = begins.map(|begins| begins.as_second());
        second.map_or(MOST_SECONDS, |second| u64::try_from(second).unwrap_or(0))
    }
}

/// Some 30,000 years on, and few enough bits to stand beside a number.
const MOST_SECONDS: u64 = (1 << (64 - NUMBER_BITS)) - 1;

/// 1970-01-01 was a Thursday: by so many days after it the first week begins.
fn offset(first: Day) -> i8 {
    let first = match first {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    };
    // The latest one not after it, so that no day is before the first week.
    -Weekday::Thursday.since(first)
}

const EPOCH: Date = Date::constant(1970, 1, 1);

fn days(date: Date) -> i64 {
    date.since(EPOCH)
        .map_or(0, |span| i64::from(span.get_days()))
}

fn date(days: i64) -> Option<Date> {
    EPOCH.checked_add(i32::try_from(days).ok()?.days()).ok()
}

/// The length of a step of a rolling period.
fn step(length: Duration) -> u64 {
    let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    (nanos / SLOTS).max(1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let stamp: Timestamp = text.parse().expect("a moment");
        u64::try_from(stamp.as_nanosecond()).expect("after 1970")
    }

    fn calendar(period: Period, zone: &str) -> Calendar {
        Calendar::new(period, TimeZone::get(zone).expect("a zone"))
    }

    /// The period that holds a moment begins and ends at these.
    fn bounds(calendar: &Calendar, moment: &str) -> (String, String) {
        let now = at(moment);
        let text = |nanos: u64| {
            let nanos = i128::from(nanos);
            Timestamp::from_nanosecond(nanos)
                .expect("in range")
                .to_string()
        };
        (
            text(calendar.began_at(now)),
            text(calendar.over_at(calendar.slot(now))),
        )
    }

    fn check(period: Period, zone: &str, moment: &str, from: &str, until: &str) {
        let calendar = calendar(period, zone);
        assert_eq!(
            bounds(&calendar, moment),
            (from.into(), until.into()),
            "{zone} {moment}"
        );
        // The last nanosecond is in it, the next is in the one after.
        let slot = calendar.slot(at(moment));
        assert_eq!(calendar.slot(at(from)), slot);
        assert_eq!(calendar.slot(at(until) - 1), slot);
        assert_eq!(calendar.slot(at(until)), slot + 1);
        assert_eq!(calendar.slot(at(from) - 1), slot - 1);
    }

    #[test]
    fn a_day_has_23_hours_when_clocks_go_forward_and_25_when_they_go_back() {
        check(
            Period::Day,
            "Europe/Berlin",
            "2025-03-30T12:00:00Z",
            "2025-03-29T23:00:00Z",
            "2025-03-30T22:00:00Z",
        );
        check(
            Period::Day,
            "Europe/Berlin",
            "2025-10-26T12:00:00Z",
            "2025-10-25T22:00:00Z",
            "2025-10-26T23:00:00Z",
        );
        check(
            Period::Day,
            "America/New_York",
            "2025-11-02T12:00:00Z",
            "2025-11-02T04:00:00Z",
            "2025-11-03T05:00:00Z",
        );
        check(
            Period::Day,
            "UTC",
            "2025-03-30T12:00:00Z",
            "2025-03-30T00:00:00Z",
            "2025-03-31T00:00:00Z",
        );
    }

    #[test]
    fn a_day_that_has_no_midnight_begins_at_one() {
        // In Beirut clocks went from midnight to one.
        check(
            Period::Day,
            "Asia/Beirut",
            "2022-03-27T12:00:00Z",
            "2022-03-26T22:00:00Z",
            "2022-03-27T21:00:00Z",
        );
    }

    #[test]
    fn months_end_where_they_do() {
        check(
            Period::Month,
            "UTC",
            "2024-02-29T12:00:00Z",
            "2024-02-01T00:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Period::Month,
            "UTC",
            "2025-02-28T12:00:00Z",
            "2025-02-01T00:00:00Z",
            "2025-03-01T00:00:00Z",
        );
        check(
            Period::Month,
            "UTC",
            "2025-12-31T23:59:59Z",
            "2025-12-01T00:00:00Z",
            "2026-01-01T00:00:00Z",
        );
        check(
            Period::Month,
            "Asia/Tokyo",
            "2025-01-31T15:00:00Z",
            "2025-01-31T15:00:00Z",
            "2025-02-28T15:00:00Z",
        );
        check(
            Period::Month,
            "Europe/Berlin",
            "2025-03-15T00:00:00Z",
            "2025-02-28T23:00:00Z",
            "2025-03-31T22:00:00Z",
        );
    }

    #[test]
    fn weeks_begin_with_their_day() {
        // A Wednesday.
        check(
            Period::Week(Day::Monday),
            "UTC",
            "2025-11-19T00:00:00Z",
            "2025-11-17T00:00:00Z",
            "2025-11-24T00:00:00Z",
        );
        check(
            Period::Week(Day::Sunday),
            "UTC",
            "2025-11-19T00:00:00Z",
            "2025-11-16T00:00:00Z",
            "2025-11-23T00:00:00Z",
        );
        check(
            Period::Week(Day::Thursday),
            "UTC",
            "2025-11-19T00:00:00Z",
            "2025-11-13T00:00:00Z",
            "2025-11-20T00:00:00Z",
        );
        check(
            Period::Week(Day::Monday),
            "Europe/Berlin",
            "2025-03-30T12:00:00Z",
            "2025-03-23T23:00:00Z",
            "2025-03-30T22:00:00Z",
        );
    }

    #[test]
    fn a_rolling_period_has_64_steps() {
        let calendar = calendar(Period::Rolling(Duration::from_secs(64)), "UTC");
        assert_eq!(calendar.slot(at("1970-01-01T00:02:00.5Z")), 120);
        assert_eq!(calendar.over_at(120), at("1970-01-01T00:03:05Z"));
    }
}
