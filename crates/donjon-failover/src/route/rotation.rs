//! Those that look at no figure.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use donjon_core::LlmRequest;

use super::{Candidates, Route, TargetView};

/// Asks targets in the order in which they were configured, within their priority. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ordered;

impl Route for Ordered {
    fn choose<'a>(&self, candidates: Candidates<'a>, _: &LlmRequest) -> Option<TargetView<'a>> {
        candidates.get(0)
    }

    fn uses_load(&self) -> bool {
        false
    }

    fn uses_latency(&self) -> bool {
        false
    }
}

/// Asks one target after the other, call by call.
#[derive(Debug, Default)]
pub struct RoundRobin(AtomicUsize);

impl RoundRobin {
    /// Starts with the first.
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
}

impl Route for RoundRobin {
    fn choose<'a>(&self, candidates: Candidates<'a>, _: &LlmRequest) -> Option<TargetView<'a>> {
        let turn = self.0.fetch_add(1, Relaxed);
        candidates.get(turn % candidates.len())
    }

    fn uses_load(&self) -> bool {
        false
    }

    fn uses_latency(&self) -> bool {
        false
    }
}
