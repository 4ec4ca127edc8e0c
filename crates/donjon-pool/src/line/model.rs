//! The interleavings of a few threads, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p donjon-pool --lib --release line::model`.

use std::{future::poll_fn, task::Waker};

use loom::{
    future::block_on,
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use super::*;

const SEATS: Seats = Seats {
    most: 8,
    evict: false,
};

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(check);
}

fn guest() -> Guest {
    Guest {
        priority: 1,
        tenant: None,
        weight: 1,
    }
}

/// Slots, and how many hold one.
struct Site {
    line: Line,
    inside: AtomicUsize,
    most: usize,
}

impl Site {
    fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(limit, Duration::MAX),
            inside: AtomicUsize::new(0),
            most: limit as usize,
        })
    }

    fn enter(&self) -> Option<(Place, std::sync::Arc<Seat>)> {
        if self.line.try_take(0).is_some() {
            return None;
        }
        match self
            .line
            .enter(0, guest(), Duration::ZERO, SEATS, |_, _| None::<()>)
        {
            Entered::Admitted(_) => None,
            Entered::Waits(place, seat) => Some((place, seat)),
            Entered::Refused(()) => unreachable!("nobody is refused"),
        }
    }

    /// Takes a slot, however long it takes, works, and gives it back.
    fn work(&self) {
        if let Some((_, seat)) = self.enter() {
            let told = block_on(poll_fn(|cx| seat.poll(cx.waker())));
            assert_eq!(told, Told::Admitted);
        }
        let inside = self.inside.fetch_add(1, SeqCst) + 1;
        assert!(inside <= self.most, "{inside} of {}", self.most);
        self.inside.fetch_sub(1, SeqCst);
        self.line.give_back(|| Duration::ZERO);
    }

    /// Asks for a slot, and leaves at once where there is none.
    fn leave(&self) {
        match self.enter() {
            None => self.line.give_back(|| Duration::ZERO),
            Some((place, seat)) => {
                let _ = seat.poll(Waker::noop());
                if !self.line.leave(&place) && seat.told() == Some(Told::Admitted) {
                    self.line.give_back(|| Duration::ZERO);
                }
            }
        }
    }

    fn assert_free(&self) {
        let word = self.line.read();
        assert_eq!((word.in_use(), word.waits()), (0, false));
        assert!(lock(&self.line.queue).is_empty());
    }
}

fn spawn(site: &Arc<Site>, work: fn(&Site)) -> thread::JoinHandle<()> {
    let site = site.clone();
    thread::spawn(move || work(&site))
}

/// Whoever waits gets a slot (else they would wait for ever, which the checker reports), and never
/// are there more inside than slots.
#[test]
fn no_wake_up_is_lost_and_the_limit_holds() {
    model(|| {
        let site = Site::new(1);
        let others = [spawn(&site, Site::work), spawn(&site, Site::work)];
        site.work();
        for other in others {
            other.join().expect("no panic");
        }
        site.assert_free();
    });
}

#[test]
fn one_who_leaves_takes_nothing_along() {
    model(|| {
        let site = Site::new(1);
        let others = [spawn(&site, Site::leave), spawn(&site, Site::work)];
        site.work();
        for other in others {
            other.join().expect("no panic");
        }
        site.assert_free();
    });
}

#[test]
fn a_slot_given_to_one_who_leaves_goes_on_to_the_next() {
    model(|| {
        let site = Site::new(1);
        assert!(site.enter().is_none());
        let others = [spawn(&site, Site::leave), spawn(&site, Site::work)];
        site.line.give_back(|| Duration::ZERO);
        for other in others {
            other.join().expect("no panic");
        }
        site.assert_free();
    });
}

#[test]
fn growth_reaches_those_who_wait() {
    model(|| {
        let site = Site::new(1);
        assert!(site.enter().is_none());
        let grows = spawn(&site, |site| {
            site.line.set_limit(2, Duration::ZERO);
        });
        let waits = {
            let site = site.clone();
            thread::spawn(move || {
                if let Some((_, seat)) = site.enter() {
                    block_on(poll_fn(|cx| seat.poll(cx.waker())));
                }
            })
        };
        grows.join().expect("no panic");
        waits.join().expect("no panic");
        assert_eq!(site.line.read().in_use(), 2);
        site.line.give_back(|| Duration::ZERO);
        site.line.give_back(|| Duration::ZERO);
        site.assert_free();
    });
}

#[test]
fn what_is_beyond_a_limit_that_shrinks_is_given_back_first() {
    model(|| {
        let site = Site::new(2);
        assert!(site.enter().is_none());
        assert!(site.enter().is_none());
        let shrinks = spawn(&site, |site| {
            site.line.set_limit(1, Duration::ZERO);
        });
        let gives = spawn(&site, |site| site.line.give_back(|| Duration::ZERO));
        let seat = site.enter();
        shrinks.join().expect("no panic");
        gives.join().expect("no panic");
        let word = site.line.read();
        assert!(word.in_use() >= 1 && word.in_use() <= 2);
        // The last one: whoever waits has its slot.
        site.line.give_back(|| Duration::ZERO);
        if let Some((_, seat)) = seat {
            assert_eq!(seat.told(), Some(Told::Admitted));
        }
        site.line.give_back(|| Duration::ZERO);
        site.assert_free();
    });
}
