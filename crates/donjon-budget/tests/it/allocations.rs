//! What the admitted path costs.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_budget::{BudgetsBuilder, Limit};
use donjon_core::{
    ChatCompletion, Completion, Head, KeyBy, LlmError, LlmRequest, LlmResponse, NanoUsd, Usage,
};
use tower::{Layer, Service};

use crate::{builder, expecting, of_tenant};

/// Answers at once, with what was made before.
#[derive(Clone)]
struct Leaf {
    head: Head,
    answer: Completion,
}

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        let answer = LlmResponse::complete(self.head.clone(), self.answer.clone());
        std::future::ready(Ok(answer))
    }
}

fn allocations(builder: BudgetsBuilder, served: &str) -> u64 {
    let mut answer = ChatCompletion::text("m", "hi");
    answer.usage = Some(Usage::new(10, 10));
    let leaf = Leaf {
        head: Head::new(served),
        answer: answer.into(),
    };
    let mut request = expecting(10, 90).on_behalf_of(of_tenant("acme"));
    request.call.begin();
    let budgets = builder.build().expect("sensible");
    let mut service = budgets.layer().provider("p").layer(leaf);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = pin!(service.call(request.clone()));
        assert!(call.poll(&mut cx).is_ready());
    };
    call();
    allocation_counter::measure(call).count_total
}

fn four() -> BudgetsBuilder {
    let dollars = NanoUsd::from_dollars;
    builder()
        .sample_one_in(1)
        .limit(Limit::hard(dollars(10)))
        .limit(Limit::soft(dollars(5)))
        .limit(Limit::hard(dollars(3)).per_day().key_by(KeyBy::Tenant))
        .limit(
            Limit::hard(dollars(3))
                .rolling(std::time::Duration::from_secs(3_600))
                .key_by(KeyBy::Model),
        )
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_admitted_allocates_nothing() {
    assert_eq!(allocations(four(), "m"), 0);
    assert_eq!(
        allocations(four(), "m-2025-01-01"),
        0,
        "served under another name"
    );
}

#[cfg(feature = "file-store")]
#[tokio::test(start_paused = true)]
async fn nor_does_one_that_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = donjon_budget::FileStore::open(folder.path().join("budget")).expect("it opens");
    assert_eq!(allocations(four().store(store), "m"), 0);
}
