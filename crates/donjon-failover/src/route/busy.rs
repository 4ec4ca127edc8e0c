//! By calls in progress.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use donjon_core::LlmRequest;

use super::{Candidates, Route, TargetView};

/// Asks the target with the fewest calls in progress for its weight; of several the next in turn.
#[derive(Debug, Default)]
pub struct LeastBusy(AtomicUsize);

impl LeastBusy {
    /// Starts with the first.
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
}

impl Route for LeastBusy {
    fn choose<'a>(&self, candidates: Candidates<'a>, _: &LlmRequest) -> Option<TargetView<'a>> {
        let turn = self.0.fetch_add(1, Relaxed) % candidates.len();
        let mut best: Option<(f64, bool, TargetView<'a>)> = None;
        for (nth, target) in candidates.iter().enumerate() {
            let busy = f64::from(target.in_flight()) / f64::from(target.weight());
            let later = nth < turn;
            if best.is_none_or(|(least, last, _)| busy < least || (busy <= least && last && !later))
            {
                best = Some((busy, later, target));
            }
        }
        best.map(|(.., target)| target)
    }

    fn uses_latency(&self) -> bool {
        false
    }
}
