//! The place where a call's [`Held`] lies, so that it does not move along with the call.
//!
//! A call moves some times from its admission to its end: out of the layer, into a future, onto the answer.
//! To copy what was just written costs more than to charge it, and to allocate a place for each call
//! costs as much again. So places are used again: each thread keeps some.

use std::cell::RefCell;

use donjon_core::{Account, Settlement};

use crate::held::Held;

/// A place, and what is held there until it is settled.
pub(crate) struct Ticket(Box<Held>);

/// How many free places a thread keeps: some 14 KB. Whatever more calls are under way at once allocate theirs.
const FREE: usize = 128;

thread_local! {
    #[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
    static PLACES: RefCell<Vec<Box<Held>>> = const { RefCell::new(Vec::new()) };
}

impl Ticket {
    /// A place where nothing is held yet.
    #[inline]
    pub(crate) fn new() -> Self {
        // While a thread goes away it keeps none.
        let free = PLACES.try_with(|places| places.borrow_mut().pop());
        Self(free.ok().flatten().unwrap_or_default())
    }

    /// What is held, to be filled where it lies.
    #[inline]
    pub(crate) fn held(&mut self) -> &mut Held {
        &mut self.0
    }

    /// Gives the place back; what was held there is gone by then.
    #[inline]
    pub(crate) fn free(mut self) {
        self.0.clear();
        let _ = PLACES.try_with(|places| {
            let mut places = places.borrow_mut();
            if places.len() < FREE {
                places.push(self.0);
            }
        });
    }
}

impl Account for Ticket {
    #[inline]
    fn settle(self, settlement: Settlement) {
        self.0.settle(settlement);
        self.free();
    }
}
