//! By latency.

use donjon_core::LlmRequest;

use super::{Candidates, Route, TargetView};

/// Of two targets taken at random, asks the one that answers sooner: latency, a peak EWMA of the time to
/// the first token (of whole answers where none is streamed), times the calls in progress. The manner is
/// that of tower's `PeakEwma` and power of two choices.
///
/// Two at random rather than the best of all, so that not everybody goes to the same one at once. What
/// was never measured counts as quick, and what was measured fades, so that every target is asked now and
/// then.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLatency;

/// In milliseconds: below that, calls in progress decide.
const FLOOR: f32 = 1.0;

impl Route for LeastLatency {
    #[inline]
    fn choose<'a>(
        &self,
        candidates: Candidates<'a>,
        request: &LlmRequest,
    ) -> Option<TargetView<'a>> {
        let count = candidates.len();
        if count < 2 {
            return candidates.get(0);
        }
        let one = fastrand::usize(..count);
        let other = (one + 1 + fastrand::usize(..count - 1)) % count;
        let (one, other) = (candidates.get(one)?, candidates.get(other)?);
        Some(if cost(other, request) < cost(one, request) {
            other
        } else {
            one
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a cost need not be exact")]
fn cost(target: TargetView<'_>, request: &LlmRequest) -> f32 {
    let latency = target.latency(request).unwrap_or(0.0).max(FLOOR);
    latency * (target.in_flight() as f32 + 1.0)
}
