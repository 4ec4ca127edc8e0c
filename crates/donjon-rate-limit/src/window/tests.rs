//! The window against a log of every charge.

use proptest::prelude::*;

use super::*;

/// Every charge, and nothing clever.
#[derive(Default)]
struct Log {
    charges: Vec<(u64, u64)>,
}

impl Log {
    /// What was charged in the `SLOTS + 1` sub-windows that end with `slot`.
    fn used(&self, slot: u64) -> u64 {
        let first = slot.saturating_sub(SLOTS);
        let live = self.charges.iter().filter(|(at, _)| *at >= first);
        live.map(|(_, n)| n).sum()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Reserve(u64),
    Force(u64),
    Refund(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![0..4_u64, 0..80_u64, 0..10_000_u64].prop_map(Step::Pass),
        6 => (0..60_u64).prop_map(Step::Reserve),
        1 => (0..150_u64).prop_map(Step::Force),
        3 => (any::<usize>(), 0..70_u64).prop_map(|(which, n)| Step::Refund(which, n)),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_a_log_of_every_charge(
        start in prop_oneof![0..200_u64, Just(u64::from(u32::MAX))],
        steps in prop::collection::vec(step(), 1..400),
    ) {
        const LIMIT: u64 = 100;
        let window = Window::new(start);
        let mut log = Log::default();
        let mut now = start;
        for step in steps {
            match step {
                Step::Pass(slots) => now += slots,
                Step::Reserve(n) => {
                    let fits = log.used(now) + n <= LIMIT;
                    let got = window.reserve(n, LIMIT, now);
                    prop_assert_eq!(got.is_some(), fits);
                    match got {
                        Some(slot) => log.charges.push((slot, n)),
                        None => {
                            let at = window.fits_at(n, LIMIT);
                            prop_assert!(at > now);
                            prop_assert!(log.used(at) + n <= LIMIT, "it fits then");
                            prop_assert!(log.used(at - 1) + n > LIMIT, "and not before");
                        }
                    }
                }
                Step::Force(n) => log.charges.push((window.force(n, now), n)),
                Step::Refund(which, n) => {
                    if !log.charges.is_empty() {
                        let at = which % log.charges.len();
                        // Charges of one sub-window stand in one cell: take from the last one.
                        let (slot, most) = log.charges[at];
                        let n = n.min(most);
                        let live = slot + SLOTS >= window.head();
                        prop_assert_eq!(window.refund(n, slot), live && n > 0);
                        if live {
                            log.charges[at].1 -= n;
                        }
                    }
                }
            }
            window.turn(now);
            prop_assert_eq!(window.used(), log.used(now));
        }
    }

    /// Whatever is charged until a time is gone at that time, or after a window.
    #[test]
    fn what_is_charged_until_a_time_goes_then(ahead in 0..200_u64, n in 1..50_u64) {
        let window = Window::new(1_000);
        window.force_until(n, 1_000 + ahead);
        let goes = 1_000 + ahead.clamp(1, CELLS);
        window.turn(goes - 1);
        prop_assert_eq!(window.used(), n);
        window.turn(goes);
        prop_assert_eq!(window.used(), 0);
    }
}

#[test]
fn a_saturating_caller_gets_all_but_one_sub_window_of_it() {
    let window = Window::new(0);
    let mut got = 0;
    let windows = 1_000;
    for slot in 0..SLOTS * windows {
        while window.reserve(1, 100, slot).is_some() {
            got += 1;
        }
    }
    assert!(got * 1_000 >= 100 * windows * 984, "{got}");
}

#[test]
fn counts_are_wide_and_do_not_overflow() {
    let window = Window::new(0);
    assert!(window.reserve(MOST, MOST, 0).is_some());
    assert!(window.reserve(1, MOST, 0).is_none());
    assert!(window.reserve(u64::MAX, u64::MAX, 0).is_none());
    for _ in 0..10 {
        window.force(u64::MAX, 0);
    }
    assert_eq!(window.used(), MOST, "a sub-window holds no more");
    window.turn(CELLS);
    assert_eq!(window.used(), 0);
}

#[test]
fn more_than_the_limit_fits_after_so_many_turns() {
    let window = Window::new(0);
    assert_eq!(window.fits_at(10, 10), 0);
    window.reserve(10, 10, 0);
    assert_eq!(window.fits_at(1, 10), CELLS);
    assert_eq!(window.fits_at(10, 10), CELLS);
    assert_eq!(window.fits_at(11, 10), 2 * CELLS);
    assert_eq!(window.fits_at(95, 10), 10 * CELLS);
}

#[test]
fn threads_never_exceed_the_limit_and_leave_nothing() {
    let window = Window::new(0);
    let left = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let window = &window;
                scope.spawn(move || {
                    for turn in 0..20_000_u64 {
                        let slot = turn / 16;
                        if let Some(at) = window.reserve(1 + turn % 3, 8, slot) {
                            assert!(window.used() <= 8);
                            if (turn + thread) % 4 > 0 {
                                window.refund(1 + turn % 3, at);
                            }
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        window.head()
    });
    window.turn(left + 2 * CELLS);
    assert_eq!(window.used(), 0);
}
