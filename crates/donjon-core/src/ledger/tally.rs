//! How many attempts of a call were sent, and for how many more there is room kept: one word, so that
//! whoever asks for room is never told of a moment that was not.
//!
//! It stands by itself, so that the model checker can build it without the rest of the crate.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use Ordering::{AcqRel, Acquire, Relaxed};

/// The lower half counts what was sent, the upper half what is reserved and not sent yet.
#[derive(Debug)]
pub(super) struct Tally(AtomicU64);

const SENT: u64 = 1;
const RESERVED: u64 = 1 << 32;

impl Tally {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub(super) fn sent(&self) -> u32 {
        self.0.load(Relaxed) as u32
    }

    /// Those that were sent, and those that may be at any moment.
    pub(super) fn promised(&self) -> u32 {
        promised(self.0.load(Relaxed))
    }

    /// Keeps room for one more if, with those that were promised before, there is some.
    pub(super) fn reserve(&self, fits: impl Fn(u32) -> bool) -> bool {
        let more = |word| fits(promised(word)).then(|| word + RESERVED);
        self.0.fetch_update(AcqRel, Relaxed, more).is_ok()
    }

    /// One was sent that no room was kept for.
    pub(super) fn send(&self) {
        self.0.fetch_add(SENT, Relaxed);
    }

    /// One was sent that room was kept for.
    fn spend(&self) {
        // The sum of both halves stays the same in one step.
        self.0.fetch_sub(RESERVED - SENT, AcqRel);
    }

    /// The room is needed no more.
    pub(super) fn release(&self) {
        self.0.fetch_sub(RESERVED, AcqRel);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
const fn promised(word: u64) -> u32 {
    (word as u32).saturating_add((word >> 32) as u32)
}

/// Whether the room that was kept for an attempt is still there: it is used or released, whichever
/// comes first, and only once.
#[derive(Debug)]
pub(super) struct Room(AtomicBool);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicBool::new(false))
    }
}

impl Room {
    /// There is room from now on.
    pub(super) fn keep(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_kept(&self) -> bool {
        self.0.load(Acquire)
    }

    /// An attempt is sent that may use it.
    pub(super) fn send(&self, tally: &Tally) {
        if self.0.swap(false, AcqRel) {
            tally.spend();
        } else {
            tally.send();
        }
    }

    /// Whoever kept it is done.
    pub(super) fn release(&self, tally: &Tally) {
        if self.0.swap(false, AcqRel) {
            tally.release();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_counts_until_it_is_sent_or_released() {
        let tally = Tally::new();
        let up_to = |most| tally.reserve(|promised| promised < most);
        assert!(up_to(2) && up_to(2) && !up_to(2));
        tally.release();
        let room = Room::default();
        room.keep();
        room.send(&tally);
        room.send(&tally);
        room.release(&tally);
        assert_eq!((tally.sent(), tally.promised()), (2, 2));
    }
}

/// The interleavings of a few threads, by the model checker:
/// `RUSTFLAGS="--cfg loom" cargo test -p donjon-core --lib --release tally::model`.
#[cfg(all(test, loom))]
mod model {
    use loom::{model::Builder, sync::Arc, thread};

    use super::*;

    const MOST: u32 = 2;

    fn check(work: impl Fn() + Send + Sync + 'static) {
        let mut model = Builder::new();
        model.preemption_bound = Some(3);
        model.check(work);
    }

    /// Reserves one, and sends it if it could.
    fn line(tally: &Tally) -> u32 {
        let may = tally.reserve(|promised| promised < MOST);
        if may {
            let room = Room::default();
            room.keep();
            room.send(tally);
        }
        u32::from(may)
    }

    #[test]
    fn two_lines_never_send_more_than_the_call_may() {
        check(|| {
            let tally = Arc::new(Tally::new());
            tally.send();
            let others = [tally.clone(), tally.clone()];
            let others = others.map(|tally| thread::spawn(move || line(&tally)));
            let mut sent = 1 + line(&tally);
            for other in others {
                sent += other.join().expect("no panic");
            }
            assert_eq!((sent, tally.sent(), tally.promised()), (MOST, MOST, MOST));
        });
    }

    /// A leaf sends while whoever drives it lets go.
    #[test]
    fn room_is_used_or_released_and_not_both() {
        check(|| {
            let tally = Arc::new(Tally::new());
            assert!(tally.reserve(|promised| promised < MOST));
            let room = Arc::new(Room::default());
            room.keep();
            let leaf = {
                let (tally, room) = (tally.clone(), room.clone());
                thread::spawn(move || room.send(&tally))
            };
            room.release(&tally);
            // Whatever came first, no more is promised than one, and what is left is free.
            assert!(tally.promised() <= 1);
            leaf.join().expect("no panic");
            assert_eq!((tally.sent(), tally.promised()), (1, 1));
        });
    }

    /// Room that one line gives back is had by one other.
    #[test]
    fn what_is_given_back_is_given_out_once() {
        check(|| {
            let tally = Arc::new(Tally::new());
            tally.send();
            assert!(tally.reserve(|promised| promised < MOST));
            let others = [tally.clone(), tally.clone()];
            let others = others.map(|tally| thread::spawn(move || line(&tally)));
            tally.release();
            let mut sent = 1;
            for other in others {
                sent += other.join().expect("no panic");
            }
            assert!(sent <= MOST);
            assert_eq!((sent, sent), (tally.sent(), tally.promised()));
        });
    }
}
