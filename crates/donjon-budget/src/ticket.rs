//! The place where a call's [`Held`] lies, so that it does not move along with the call.
//!
//! A call moves some times from its admission to its end: out of the layer, into a future, onto the answer.
//! To copy what was just written costs more than to charge it, and to allocate a place for each call
//! costs as much again. So places are used again: each thread keeps some.

use std::cell::RefCell;

use donjon_core::{Account, Settlement};

use crate::held::Held;

/// A place, and what is held there until it is settled.
pub(crate) struct Ticket(Box<Option<Held>>);

/// How many free places a thread keeps: some 14 KB. Whatever more calls are under way at once allocate theirs.
const FREE: usize = 128;

thread_local! {
    static PLACES: RefCell<Vec<Box<Option<Held>>>> = const { RefCell::new(Vec::new()) };
}

impl Ticket {
    /// Puts `held` into a place.
    #[inline]
    pub(crate) fn new(held: Held) -> Self {
        // While a thread goes away it keeps none.
        let free = PLACES.try_with(|places| places.borrow_mut().pop());
        let mut place = free.ok().flatten().unwrap_or_default();
        *place = Some(held);
        Self(place)
    }

    #[inline]
    pub(crate) fn held(&mut self) -> Option<&mut Held> {
        (*self.0).as_mut()
    }

    /// Gives the place back; what was held there is gone by then.
    #[inline]
    pub(crate) fn free(self) {
        let mut place = self.0;
        *place = None;
        let _ = PLACES.try_with(|places| {
            let mut places = places.borrow_mut();
            if places.len() < FREE {
                places.push(place);
            }
        });
    }
}

impl Account for Ticket {
    #[inline]
    fn settle(self, settlement: Settlement) {
        if let Some(held) = &*self.0 {
            held.settle(settlement);
        }
        self.free();
    }
}
