//! What a member looks for in the slot.

use std::sync::Arc;

use donjon_core::{Chunk, LlmError, LlmResponse};

use super::slot::{Found, Slot};

/// What a member looks for.
pub(super) trait Seeks: Copy {
    type Found;
    /// Makes what is found of a whole answer, where it may be that.
    const WHOLE: Option<fn(LlmResponse) -> Self::Found>;
    fn seat(self) -> u32;
    fn look(self, slot: &mut Slot) -> Option<Self::Found>;
    /// Whether that is all there is, so that the member leaves with it.
    fn is_all(found: &Self::Found) -> bool;
}

/// The head of the answer, for the member in this seat.
#[derive(Clone, Copy)]
pub(super) struct Head(pub(super) u32);

impl Seeks for Head {
    type Found = Found;
    const WHOLE: Option<fn(LlmResponse) -> Found> = Some(|answer| Found::All(Ok(answer)));

    fn seat(self) -> u32 {
        self.0
    }

    fn look(self, slot: &mut Slot) -> Option<Found> {
        slot.head(self.0)
    }

    fn is_all(found: &Found) -> bool {
        !matches!(found, Found::Stream(..))
    }
}

/// The next chunk of a stream.
#[derive(Clone, Copy)]
pub(super) struct Next(pub(super) u32);

impl Seeks for Next {
    type Found = Result<Option<Arc<Chunk>>, LlmError>;
    const WHOLE: Option<fn(LlmResponse) -> Self::Found> = None;

    fn seat(self) -> u32 {
        self.0
    }

    fn look(self, slot: &mut Slot) -> Option<Self::Found> {
        slot.next(self.0)
    }

    fn is_all(found: &Self::Found) -> bool {
        !matches!(found, Ok(Some(_)))
    }
}
