//! The interleavings of a few threads, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p donjon-budget --lib --release model`.

use loom::{model::Builder, sync::Arc, thread};

use super::*;

fn check(scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(scenario);
}

fn spawn<T: 'static>(
    cell: &Arc<Cell>,
    work: impl FnOnce(&Cell) -> T + 'static,
) -> thread::JoinHandle<T> {
    let cell = cell.clone();
    thread::spawn(move || work(&cell))
}

#[test]
fn reservations_never_exceed_the_limit() {
    check(|| {
        let cell = Arc::new(Cell::new());
        let others = [(); 2].map(|()| spawn(&cell, |c| c.reserve(2, 4, 7).is_ok()));
        let mut got = u64::from(cell.reserve(2, 4, 7).is_ok());
        for other in others {
            got += u64::from(other.join().expect("no panic"));
        }
        assert_eq!((got, cell.used(7)), (2, 4));
    });
}

/// While the period turns, what is charged stands in one period and never exceeds the limit there.
#[test]
fn a_charge_at_the_turn_is_in_one_period() {
    check(|| {
        let cell = Arc::new(Cell::new());
        let old = cell.reserve(1, 1, 7).expect("room");
        let late = spawn(&cell, |c| c.reserve(1, 1, 7));
        let next = spawn(&cell, |c| c.reserve(1, 1, 8));
        let settled = cell.settle(1, 0, old);
        let late = late.join().expect("no panic");
        let next = next.join().expect("no panic");
        let in_next = u64::from(late == Ok(8)) + u64::from(next == Ok(8));
        assert_eq!(in_next, 1, "one of them has the whole of the next period");
        assert!(
            late != Ok(7) || settled.is_some(),
            "room came from what was given back"
        );
        assert_eq!(cell.used(8), 1);
    });
}

/// What is given back late does not reach the next period.
#[test]
fn a_late_settlement_does_not_touch_the_next_period() {
    check(|| {
        let cell = Arc::new(Cell::new());
        let at = cell.reserve(3, 4, 7).expect("room");
        let settles = spawn(&cell, move |c| c.settle(3, 1, at));
        let charges = spawn(&cell, |c| c.reserve(4, 4, 8));
        settles.join().expect("no panic");
        assert_eq!(charges.join().expect("no panic"), Ok(8));
        assert_eq!(cell.used(8), 4);
    });
}

/// After so many periods that the tag comes again, two who come at once are both charged.
#[test]
fn the_first_after_a_long_time_are_both_charged() {
    check(|| {
        let cell = Arc::new(Cell::new());
        cell.reserve(3, 4, 44).expect("room");
        let other = spawn(&cell, |c| c.reserve(2, 4, 300).is_ok());
        let mine = cell.reserve(1, 4, 300).is_ok();
        let other = other.join().expect("no panic");
        assert!(mine && other);
        assert_eq!(cell.used(300), 3);
    });
}
