//! The law of state.

use std::fmt::Debug;

use donjon_core::LlmService;

use super::{Law, leaf::leaf};
use crate::ScriptedLlm;

/// Checks [`Law::StateIsShared`] with a probe that leaves a trace in the layer's state and tells
/// what it found: it must find something else in another service of the same layer, and in a clone.
///
/// `layer` puts the *same* layer around whatever model it is given. `probe` gets a service of it
/// that nobody has readied, and the model below that service.
///
/// ```
/// use donjon_testkit::contract;
/// use std::{cell::RefCell, future::poll_fn, task::Poll};
/// use tower::{Layer, Service, limit::GlobalConcurrencyLimitLayer};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
/// # runtime.expect("a runtime").block_on(async {
/// // One permit for all that the layer is put around: whoever is readied first has it.
/// let layer = GlobalConcurrencyLimitLayer::new(1);
/// let kept = RefCell::new(Vec::new());
/// contract::state_is_shared(
///     |leaf| layer.layer(leaf),
///     async |mut service, _leaf| {
///         let readied = poll_fn(|cx| Poll::Ready(service.poll_ready(cx).is_ready())).await;
///         kept.borrow_mut().push(service);
///         readied
///     },
/// )
/// .await;
/// # });
/// ```
///
/// # Panics
///
/// When the law is broken.
pub async fn state_is_shared<S, T>(
    layer: impl Fn(ScriptedLlm) -> S,
    probe: impl AsyncFn(S, ScriptedLlm) -> T,
) where
    S: LlmService + Clone,
    T: PartialEq + Debug,
{
    let law = Law::StateIsShared;
    let (one, other) = (leaf(), leaf());
    let first = layer(one.clone());
    let second = layer(other.clone());
    let clone = first.clone();
    let found = probe(first, one.clone()).await;
    for (who, service, leaf) in [
        ("another service of the same layer", second, other),
        ("a clone", clone, one),
    ] {
        let again = probe(service, leaf).await;
        if found == again {
            law.broken(&format!("{who} found {again:?} as the first service had"));
        }
    }
}
