//! By weight.

use std::sync::atomic::Ordering::Relaxed;

use donjon_core::LlmRequest;

use super::{Candidates, Route, TargetView};

/// Gives each target its share by weight, spread evenly: 5, 1, 1 is `a a b a c a a` and never five in a
/// row. The manner is that of nginx's smooth weighted round robin.
///
/// At each choice every candidate is credited with its weight, and the one that has most pays for all.
/// Calls that choose at once may take the same one; what was paid stays right, so that the shares are
/// those of the weights all the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weighted;

impl Route for Weighted {
    fn choose<'a>(&self, candidates: Candidates<'a>, _: &LlmRequest) -> Option<TargetView<'a>> {
        let mut total = 0;
        let mut best: Option<(i64, TargetView<'a>)> = None;
        for target in candidates.iter() {
            let weight = i64::from(target.weight());
            total += weight;
            let credit = target.state.credit.fetch_add(weight, Relaxed) + weight;
            if best.is_none_or(|(most, _)| credit > most) {
                best = Some((credit, target));
            }
        }
        let (_, chosen) = best?;
        chosen.state.credit.fetch_sub(total, Relaxed);
        Some(chosen)
    }

    fn uses_load(&self) -> bool {
        false
    }

    fn uses_latency(&self) -> bool {
        false
    }
}
