//! The interleavings of a few threads, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p donjon-budget --lib --release ring::model`.

use loom::{model::Builder, sync::Arc, thread};

use super::*;

fn check(scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(scenario);
}

fn spawn<T: 'static>(
    ring: &Arc<Ring>,
    work: impl FnOnce(&Ring) -> T + 'static,
) -> thread::JoinHandle<T> {
    let ring = ring.clone();
    thread::spawn(move || work(&ring))
}

/// What the cells hold, live or not.
fn held(ring: &Ring) -> u64 {
    let cells = ring.cells.iter();
    cells.map(|cell| amount(cell.load(Acquire))).sum()
}

#[test]
fn reservations_never_exceed_the_limit() {
    check(|| {
        let ring = Arc::new(Ring::new(0));
        let others = [(); 2].map(|()| spawn(&ring, |w| w.reserve(2, 4, 0).is_some()));
        let mut got = u64::from(ring.reserve(2, 4, 0).is_some());
        for other in others {
            got += u64::from(other.join().expect("no panic"));
        }
        assert_eq!(got, 2);
        assert_eq!(ring.used(), 4);
        assert_eq!(held(&ring), 4);
    });
}

/// Two threads turn the ring while a third charges with an older clock: what is expired goes
/// once, what is charged stays, and stands where its ring does not end too early.
#[test]
fn a_charge_is_not_lost_while_the_ring_turns() {
    check(|| {
        let ring = Arc::new(Ring::new(0));
        assert!(ring.reserve(1, 1, 0).is_some());
        let turns = spawn(&ring, |w| w.turn(CELLS));
        let charges = spawn(&ring, |w| w.reserve(1, 1, CELLS - 1));
        let mine = ring.reserve(1, 1, CELLS);
        turns.join().expect("no panic");
        let theirs = charges.join().expect("no panic");
        assert!(mine.is_none() || theirs.is_none(), "there is room for one");
        if let Some(at) = theirs {
            assert!(at >= CELLS, "it got what was freed then");
        }
        let live = u64::from(mine.is_some()) + u64::from(theirs.is_some());
        assert_eq!(ring.used(), live);
        assert_eq!(held(&ring), live);
    });
}

/// A refund reaches what was charged, or nothing.
#[test]
fn a_refund_does_not_reach_the_next_turn() {
    check(|| {
        let ring = Arc::new(Ring::new(0));
        let at = ring.reserve(1, 2, 0).expect("room");
        let refunds = spawn(&ring, move |w| w.refund(1, at));
        let charges = spawn(&ring, |w| w.reserve(2, 2, CELLS).is_some());
        ring.turn(CELLS);
        let refunded = refunds.join().expect("no panic");
        let charged = charges.join().expect("no panic");
        let _ = refunded;
        assert_eq!(ring.used(), if charged { 2 } else { 0 });
        assert_eq!(held(&ring), ring.used());
    });
}

#[test]
fn what_two_give_back_can_be_had_again() {
    check(|| {
        let ring = Arc::new(Ring::new(0));
        let one = ring.reserve(1, 2, 0).expect("room");
        let other = ring.reserve(1, 2, 0).expect("room");
        let gives = spawn(&ring, move |w| w.refund(1, one));
        let takes = spawn(&ring, |w| w.reserve(1, 2, 0).is_some());
        ring.refund(1, other);
        gives.join().expect("no panic");
        let taken = takes.join().expect("no panic");
        assert_eq!(ring.used(), u64::from(taken));
        assert!(ring.reserve(2 - u64::from(taken), 2, 0).is_some());
    });
}
