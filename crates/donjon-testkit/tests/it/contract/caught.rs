//! Each check catches its own.

use std::sync::{Arc, atomic::AtomicBool};

use donjon_core::{LlmRequest, LlmService};
use donjon_testkit::{
    ScriptedLlm,
    contract::{self, Contract, Law},
};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::broken::*;

/// Checks that these laws are broken and no other.
async fn breaks<S: LlmService + Clone + 'static>(
    laws: &[Law],
    layer: impl Fn(ScriptedLlm) -> S + Clone + 'static,
) {
    let all = Contract::new();
    let sound = laws.iter().fold(all, |contract, law| contract.except(*law));
    sound.check(layer.clone()).await;
    for law in laws {
        breaks_at(*law, layer.clone()).await;
    }
}

/// Checks that this law is broken, whatever else is.
async fn breaks_at<S: LlmService + Clone + 'static>(
    law: Law,
    layer: impl Fn(ScriptedLlm) -> S + 'static,
) {
    let others = Law::ALL.iter().filter(|other| **other != law);
    let only = others.fold(Contract::new(), |contract, other| contract.except(*other));
    let local = tokio::task::LocalSet::new();
    let check = local.run_until(async move {
        tokio::task::spawn_local(async move { only.check(layer).await }).await
    });
    let panic = check.await.expect_err("the law is broken").into_panic();
    let message = panic.downcast::<String>().expect("a message");
    let expected = format!("contract broken, {law:?}");
    assert!(message.starts_with(&expected), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_is_called_without_being_readied() {
    let laws = [Law::CallsAreReadied, Law::ClonesAreReadiedAnew];
    breaks(&laws, CallsAClone).await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_takes_itself_for_readied() {
    let layer = |leaf| RemembersReadiness(leaf, false);
    breaks(&[Law::ClonesAreReadiedAnew], layer).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_with_the_readied_service_in_hand() {
    breaks(&[Law::ReadinessIsGivenBack], SitsInItsCall::new).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_ones_own_turn_last() {
    breaks_at(Law::ReadinessIsGivenBack, SitsInPollReady::new).await;
}

#[tokio::test(start_paused = true)]
async fn readiness_that_fails() {
    let layer = |leaf| FailsReadiness(leaf, Arc::new(AtomicBool::new(false)));
    breaks_at(Law::ReadinessNeverFails, layer).await;
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_given_back_by_hand() {
    let laws = [Law::DropsGiveBack, Law::ReadinessIsGivenBack];
    breaks(&laws, |leaf| LeaksItsPermit(leaf, permits(4))).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_runs_on() {
    breaks_at(Law::DropsGiveBack, RunsOn).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_the_first_pending() {
    let layer = |leaf| ShedsOnPending(leaf, permits(64));
    breaks(&[Law::BudgetIsNoRefusal], layer).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_spins() {
    // Others are held up by it, and say so.
    for law in [Law::WaitsDoNotSpin, Law::CallsAreReadied] {
        breaks_at(law, |leaf| Spins(leaf, permits(2))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn causes_that_are_cut_off() {
    breaks(&[Law::SourcesAreKept], CutsSources).await;
    breaks(&[Law::SourcesAreKept], HidesTheKind).await;
}

#[tokio::test(start_paused = true)]
async fn chunks_that_are_swapped_or_lost() {
    breaks_at(Law::StreamsAreUnchanged, SwapsChunks).await;
    breaks(&[Law::StreamsAreUnchanged], LosesTheEnd).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_ends_below() {
    let laws = [Law::DropsGiveBack, Law::OneEndEach];
    breaks(&laws, |leaf| HoardsStreams(leaf, Arc::default())).await;
}

/// Uses a service once and tells whether it was let through.
async fn once<S: LlmService + Clone>(service: S, _: ScriptedLlm) -> bool {
    service.oneshot(LlmRequest::chat("m", [])).await.is_ok()
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "contract broken, StateIsShared")]
async fn state_of_each_service_alone() {
    contract::state_is_shared(CountsAlone::new, once).await;
}

#[tokio::test(start_paused = true)]
async fn state_that_is_shared() {
    let calls = Arc::default();
    let layer = |leaf| CountsTogether(leaf, Arc::clone(&calls));
    contract::state_is_shared(layer, once).await;
}
