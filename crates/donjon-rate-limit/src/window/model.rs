//! The interleavings of a few threads, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p donjon-rate-limit --lib --release window::model`.

use loom::{model::Builder, sync::Arc, thread};

use super::*;

fn check(scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(scenario);
}

fn spawn<T: 'static>(
    window: &Arc<Window>,
    work: impl FnOnce(&Window) -> T + 'static,
) -> thread::JoinHandle<T> {
    let window = window.clone();
    thread::spawn(move || work(&window))
}

/// What the cells hold, live or not.
fn held(window: &Window) -> u64 {
    let cells = window.cells.iter().chain([&window.current]);
    cells.map(|cell| amount(cell.load(Acquire))).sum()
}

#[test]
fn reservations_never_exceed_the_limit() {
    check(|| {
        let window = Arc::new(Window::new(0));
        let others = [(); 2].map(|()| spawn(&window, |w| w.reserve(2, 4, 0).is_some()));
        let mut got = u64::from(window.reserve(2, 4, 0).is_some());
        for other in others {
            got += u64::from(other.join().expect("no panic"));
        }
        assert_eq!(got, 2);
        assert_eq!(window.used(), 4);
        assert_eq!(held(&window), 4);
    });
}

/// Two threads turn the ring while a third charges with an older clock: what is expired goes
/// once, what is charged stays, and stands where its window does not end too early.
#[test]
fn a_charge_is_not_lost_while_the_ring_turns() {
    check(|| {
        let window = Arc::new(Window::new(0));
        assert!(window.reserve(1, 1, 0).is_some());
        let turns = spawn(&window, |w| w.turn(CELLS));
        let charges = spawn(&window, |w| w.reserve(1, 1, CELLS - 1));
        let mine = window.reserve(1, 1, CELLS);
        turns.join().expect("no panic");
        let theirs = charges.join().expect("no panic");
        assert!(mine.is_none() || theirs.is_none(), "there is room for one");
        if let Some(at) = theirs {
            assert!(at >= CELLS, "it got what was freed then");
        }
        let live = u64::from(mine.is_some()) + u64::from(theirs.is_some());
        assert_eq!(window.used(), live);
        assert_eq!(held(&window), live);
    });
}

/// A refund reaches what was charged, or nothing.
#[test]
fn a_refund_does_not_reach_the_next_turn() {
    check(|| {
        let window = Arc::new(Window::new(0));
        let at = window.reserve(1, 2, 0).expect("room");
        let refunds = spawn(&window, move |w| w.refund(1, at));
        let charges = spawn(&window, |w| w.reserve(2, 2, CELLS).is_some());
        window.turn(CELLS);
        let refunded = refunds.join().expect("no panic");
        let charged = charges.join().expect("no panic");
        let _ = refunded;
        assert_eq!(window.used(), if charged { 2 } else { 0 });
        assert_eq!(held(&window), window.used());
    });
}

/// What is charged last is moved into its cell by the first charge of a later sub-window.
#[test]
fn a_refund_reaches_what_is_being_moved() {
    check(|| {
        let window = Arc::new(Window::new(0));
        let at = window.reserve(2, 3, 0).expect("room");
        let moves = spawn(&window, |w| w.reserve(1, 3, 1).is_some());
        let refunds = spawn(&window, move |w| w.refund(1, at));
        window.refund(1, at);
        refunds.join().expect("no panic");
        assert!(moves.join().expect("no panic"), "there is room for it");
        assert_eq!(window.used(), 1);
        assert_eq!(held(&window), 1);
        assert_eq!(amount(window.owed.load(Acquire)), 0);
    });
}

/// And is gone with its sub-window, whoever moves it, however late.
#[test]
fn what_is_owed_goes_with_its_sub_window() {
    check(|| {
        let window = Arc::new(Window::new(0));
        let at = window.reserve(2, 4, 0).expect("room");
        let moves = spawn(&window, |w| w.reserve(1, 4, 1).is_some());
        let refunds = spawn(&window, move |w| w.refund(1, at));
        window.turn(CELLS);
        refunds.join().expect("no panic");
        assert!(moves.join().expect("no panic"), "there is room for it");
        window.turn(CELLS);
        assert_eq!(window.used(), 1);
        assert_eq!(held(&window), 1);
    });
}

#[test]
fn what_two_give_back_can_be_had_again() {
    check(|| {
        let window = Arc::new(Window::new(0));
        let one = window.reserve(1, 2, 0).expect("room");
        let other = window.reserve(1, 2, 0).expect("room");
        let gives = spawn(&window, move |w| w.refund(1, one));
        let takes = spawn(&window, |w| w.reserve(1, 2, 0).is_some());
        window.refund(1, other);
        gives.join().expect("no panic");
        let taken = takes.join().expect("no panic");
        assert_eq!(window.used(), u64::from(taken));
        assert!(window.reserve(2 - u64::from(taken), 2, 0).is_some());
    });
}
