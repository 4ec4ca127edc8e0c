//! By cost.

use donjon_core::{Content, Estimate, LlmRequest, NanoUsd, Prompt};

use super::{Candidates, Route, TargetView};

/// What a target charges. Any `Fn(Name, &str, Estimate) -> Option<NanoUsd>` is one.
pub trait Prices: Send + Sync {
    /// What `target` charges for so many tokens of `model`, its own name for it; `None` if that is not
    /// known.
    fn cost(&self, target: donjon_core::Name, model: &str, tokens: Estimate) -> Option<NanoUsd>;
}

impl<F> Prices for F
where
    F: Fn(donjon_core::Name, &str, Estimate) -> Option<NanoUsd> + Send + Sync,
{
    fn cost(&self, target: donjon_core::Name, model: &str, tokens: Estimate) -> Option<NanoUsd> {
        self(target, model, tokens)
    }
}

/// Asks the target that charges least for the call: its price for the tokens that the call is expected to
/// use. One whose price is not known is asked last, and of several that cost the same the first.
///
/// The tokens are those of [`Call::estimate`](donjon_core::Call::estimate); where nobody has counted, a
/// token for every four bytes of text, and of the answer as many as it may have, or 512.
#[derive(Clone, Debug)]
pub struct LowestCost<P>(P);

impl<P: Prices> LowestCost<P> {
    /// By these prices.
    pub const fn new(prices: P) -> Self {
        Self(prices)
    }
}

impl<P: Prices> Route for LowestCost<P> {
    fn choose<'a>(
        &self,
        candidates: Candidates<'a>,
        request: &LlmRequest,
    ) -> Option<TargetView<'a>> {
        let tokens = request.call.estimate.unwrap_or_else(|| guess(request));
        let cost = |target: &TargetView<'a>| {
            let model = target.state.models.get(request.model());
            let model = model.unwrap_or(request.model());
            let cost = self.0.cost(target.name(), model, tokens);
            (cost.is_none(), cost.map_or(0, NanoUsd::nanos))
        };
        candidates.iter().min_by_key(cost)
    }

    fn uses_load(&self) -> bool {
        false
    }

    fn uses_latency(&self) -> bool {
        false
    }
}

/// What a request may use where nobody has counted.
pub(crate) fn guess(request: &LlmRequest) -> Estimate {
    let Prompt::Chat(chat) = request.prompt() else {
        return Estimate::new(512, 0);
    };
    let bytes = |content: &Content| match content {
        Content::Text(text) => text.len(),
        Content::Parts(parts) => {
            let texts = parts.iter().filter_map(|part| part.text.as_deref());
            texts.map(str::len).sum()
        }
    };
    let contents = chat.messages.iter().filter_map(|m| m.content.as_ref());
    let input: usize = contents.map(bytes).sum();
    Estimate::new(input as u64 / 4, chat.output_limit().unwrap_or(512))
}
