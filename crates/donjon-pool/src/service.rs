//! The service.

use std::{fmt, sync::Arc};

use donjon_core::{
    LlmRequest,
    shape::{Admission, Admit, Gate},
};

use crate::{permit::Permit, rooms::Rooms, wait::Wait};

/// A service of which only so many calls are in progress at a time; see the [crate](crate).
pub type Pool<S> = Gate<S, Admitter>;

/// Gives out the slots of a pool.
#[derive(Clone)]
pub struct Admitter {
    rooms: Arc<Rooms>,
}

impl Admitter {
    pub(crate) fn new(rooms: Arc<Rooms>) -> Self {
        Self { rooms }
    }
}

impl Admit for Admitter {
    type Permit = Permit;
    type Wait = Wait;

    #[inline]
    fn admit(&self, request: &mut LlmRequest) -> Admission<Permit, Wait> {
        match self.rooms.of(request) {
            Ok(room) => room.admit(request),
            Err(error) => Admission::No(error),
        }
    }
}

impl fmt::Debug for Admitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rooms.fmt(f)
    }
}
