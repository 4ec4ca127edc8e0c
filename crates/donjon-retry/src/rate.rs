//! Adaptive rate control on the side of the client.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// How much of the rate is left after the provider said that it is too much.
const BETA: f64 = 0.7;
/// How steeply the rate grows again.
const SCALE: f64 = 0.4;
/// The weight of the latest measurement of our own rate.
const SMOOTH: f64 = 0.8;
/// The slowest that attempts are let through, in attempts a second.
const MIN_RATE: f64 = 0.5;

/// Holds attempts back to the rate that the provider lets pass.
///
/// It does nothing until the provider first says that it is too much. Then it sets the rate of all
/// attempts, first ones included, to 0.7 of what was measured, and lets it grow again along a cubic
/// curve: fast up to where it was cut, slowly around there, and fast beyond it, but never above
/// twice what is really sent. This is the client-side rate limiting of the AWS SDKs' adaptive mode
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>).
///
/// Time is passed in, counted from any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct RateControl {
    engaged: AtomicBool,
    sending: Sending,
    cubic: Mutex<Cubic>,
}

impl RateControl {
    /// Takes the turn of one attempt, and says how long it must wait for it.
    pub(crate) fn acquire(&self, now: Duration) -> Duration {
        self.sending.count(now);
        if !self.engaged.load(Relaxed) {
            return Duration::ZERO;
        }
        self.with(|cubic| cubic.acquire(now.as_secs_f64()))
    }

    /// Gives back the turn of an attempt that is not made.
    pub(crate) fn give_back(&self) {
        if self.engaged.load(Relaxed) {
            self.with(|cubic| cubic.tokens += 1.0);
        }
    }

    /// The provider said that it is too much.
    pub(crate) fn throttled(&self, now: Duration) {
        let sending = self.sending.rate(now);
        self.with(|cubic| cubic.throttled(now.as_secs_f64(), sending));
        self.engaged.store(true, Relaxed);
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&self, now: Duration) {
        if self.engaged.load(Relaxed) {
            let sending = self.sending.rate(now);
            self.with(|cubic| cubic.succeeded(now.as_secs_f64(), sending));
        }
    }

    /// Whether it holds attempts back.
    pub(crate) fn is_engaged(&self) -> bool {
        self.engaged.load(Relaxed)
    }

    /// The rate that attempts are held to, in attempts a second; infinite until it is engaged.
    pub(crate) fn rate(&self) -> f64 {
        if self.is_engaged() {
            self.with(|cubic| cubic.rate)
        } else {
            f64::INFINITY
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Cubic) -> T) -> T {
        work(&mut self.cubic.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Measures the rate at which attempts are sent, without a lock: they are counted in spans of half
/// a second, and whoever begins a new span averages the last one in.
#[derive(Debug, Default)]
struct Sending {
    /// The number of the span in the upper half, its attempts in the lower one.
    span: AtomicU64,
    /// The bits of an `f64`, in attempts a second.
    average: AtomicU64,
}

const SPAN_SECONDS: f64 = 0.5;

impl Sending {
    fn count(&self, now: Duration) {
        let span = span_at(now);
        let seen = self.span.load(Relaxed);
        if seen >> 32 >= span {
            self.span.fetch_add(1, Relaxed);
            return;
        }
        let next = (span << 32) | 1;
        if self
            .span
            .compare_exchange(seen, next, Relaxed, Relaxed)
            .is_ok()
        {
            let rate = self.averaged(seen, span);
            self.average.store(rate.to_bits(), Relaxed);
        } else {
            self.span.fetch_add(1, Relaxed);
        }
    }

    /// The rate now; the span that is not over counts only if it is the first.
    fn rate(&self, now: Duration) -> f64 {
        let span = span_at(now);
        let seen = self.span.load(Relaxed);
        if seen >> 32 < span {
            return self.averaged(seen, span);
        }
        let average = f64::from_bits(self.average.load(Relaxed));
        if average > 0.0 {
            average
        } else {
            count(seen) / SPAN_SECONDS
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "half seconds of some years")]
    fn averaged(&self, seen: u64, span: u64) -> f64 {
        let spans = (span - (seen >> 32)) as f64;
        let latest = count(seen) / (spans * SPAN_SECONDS);
        let average = f64::from_bits(self.average.load(Relaxed));
        if average > 0.0 {
            latest * SMOOTH + average * (1.0 - SMOOTH)
        } else {
            latest
        }
    }
}

/// The number of the span at `now`; half a second each.
fn span_at(now: Duration) -> u64 {
    now.as_secs() * 2 + u64::from(now.subsec_millis() / 500)
}

#[expect(clippy::cast_precision_loss, reason = "32 bits fit")]
fn count(span: u64) -> f64 {
    (span & u64::from(u32::MAX)) as f64
}

/// The rate and its bucket. Times are in seconds.
#[derive(Debug, Default)]
struct Cubic {
    /// Attempts a second; 0 until the first throttling.
    rate: f64,
    /// The rate when it was last cut.
    last_max: f64,
    cut_at: f64,
    /// How long after a cut the curve is back where it was cut.
    plateau: f64,
    /// Attempts that may go now; below zero, those that wait for their turn.
    tokens: f64,
    filled_at: f64,
}

impl Cubic {
    fn acquire(&mut self, now: f64) -> Duration {
        self.fill(now);
        self.tokens -= 1.0;
        let wait = (-self.tokens).max(0.0) / self.rate.max(MIN_RATE);
        Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX)
    }

    fn throttled(&mut self, now: f64, sending: f64) {
        let rate = if self.rate > 0.0 {
            sending.min(self.rate)
        } else {
            sending
        };
        self.last_max = rate;
        self.cut_at = now;
        self.plateau = (self.last_max * (1.0 - BETA) / SCALE).cbrt();
        self.set_rate(now, rate * BETA);
    }

    fn succeeded(&mut self, now: f64, sending: f64) {
        let since = now - self.cut_at - self.plateau;
        let grown = SCALE * since * since * since + self.last_max;
        self.set_rate(now, grown.min(2.0 * sending));
    }

    fn set_rate(&mut self, now: f64, rate: f64) {
        self.fill(now);
        self.rate = rate.max(MIN_RATE);
        self.tokens = self.tokens.min(self.rate.max(1.0));
    }

    /// At most one second's worth is kept.
    fn fill(&mut self, now: f64) {
        let since = (now - self.filled_at).max(0.0);
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + since * self.rate).min(self.rate.max(1.0));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Sends `count` attempts at `rate` as far as it is let, and returns how many were let through
    /// within a second.
    fn send(control: &RateControl, from: f64, count: u32, rate: f64) -> u32 {
        let mut sent = 0;
        for n in 0..count {
            let now = from + f64::from(n) / rate;
            let wait = control.acquire(at(now));
            if wait < at(1.0) {
                sent += 1;
            } else {
                control.give_back();
            }
        }
        sent
    }

    #[test]
    fn it_holds_nothing_back_until_the_provider_says_so() {
        let control = RateControl::default();
        assert_eq!(send(&control, 0.0, 1_000, 100.0), 1_000);
        assert!(!control.is_engaged());
        control.succeeded(at(10.0));
        assert_eq!(control.acquire(at(10.0)), Duration::ZERO);
    }

    #[test]
    fn throttled_it_cuts_to_seven_tenths_of_what_was_sent() {
        let control = RateControl::default();
        send(&control, 0.0, 1_000, 100.0);
        control.throttled(at(10.0));
        assert!((control.rate() - 70.0).abs() < 1.0, "{}", control.rate());
        let sent = send(&control, 10.0, 1_000, 100.0);
        assert!((700..=780).contains(&sent), "{sent} in ten seconds");
        // Each further cut starts from what it is held to, not from what it was.
        control.throttled(at(20.0));
        assert!(control.rate() < 50.0, "{}", control.rate());
    }

    #[test]
    fn success_lets_it_grow_up_to_twice_what_is_sent() {
        let control = RateControl::default();
        send(&control, 0.0, 100, 10.0);
        control.throttled(at(10.0));
        let (mut before, mut now) = (control.rate(), 10.0);
        for _ in 0..30 {
            now += 0.5;
            send(&control, now, 5, 10.0);
            control.succeeded(at(now));
            assert!(
                control.rate() >= before * 0.9,
                "{} < {before}",
                control.rate()
            );
            before = control.rate();
        }
        assert!(before > 10.0 && before <= 21.0, "{before}");
    }

    #[test]
    fn it_never_stands_still() {
        let control = RateControl::default();
        control.acquire(at(0.0));
        for cut in 0..100 {
            control.throttled(at(f64::from(cut)));
        }
        assert!(control.rate() >= MIN_RATE);
        assert!(control.acquire(at(200.0)) <= at(2.0));
    }
}
