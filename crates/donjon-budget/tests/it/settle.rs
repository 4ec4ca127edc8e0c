//! What calls are charged in the end. L3, L4, L7, L8, R7.

use std::time::Duration;

use donjon_budget::{Limit, Price};
use donjon_core::{
    ChatCompletion, ErrorKind, Head, Key, LlmError, LlmRequest, LlmResponse, NanoUsd, Origin, Usage,
};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, service_fn};

use crate::{around, builder, expecting, passes, send, standing, tokens};

fn wide() -> Limit {
    Limit::hard(NanoUsd::from_dollars(1_000))
}

#[tokio::test(start_paused = true)]
async fn the_worst_case_is_held_and_what_was_used_is_paid() {
    let script = Script::answer("hi")
        .usage(Usage::new(7, 3))
        .head_after(Duration::from_secs(1));
    let (service, handle) = around(&ScriptedLlm::new(script), builder().limit(wide()));
    let call = send(&service, expecting(100, 50));
    let mut call = std::pin::pin!(call);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert_eq!(
        standing(&handle, &wide(), &Key::Global),
        (tokens(0), tokens(150))
    );
    call.await
        .expect("an answer")
        .collect()
        .await
        .expect("whole");
    assert_eq!(
        standing(&handle, &wide(), &Key::Global),
        (tokens(10), tokens(0))
    );
    assert_eq!(handle.report().total().cost, tokens(10));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_left_or_breaks_is_paid_as_far_as_it_came() {
    let stream = || Script::tokens(["four", "more", "text"]).no_usage();
    for script in [stream(), stream().cut_after(2)] {
        let (service, handle) = around(&ScriptedLlm::new(script), builder().limit(wide()));
        let answer = send(&service, expecting(100, 50).streamed())
            .await
            .expect("it commits");
        let donjon_core::Body::Stream(mut body) = answer.body else {
            panic!("a stream");
        };
        // The role, then text.
        while let Some(chunk) = body.next_chunk().await {
            if chunk.is_err() || chunk.is_ok_and(|chunk| chunk.into_delta().text() == Some("more"))
            {
                break;
            }
        }
        drop(body);
        let (spent, reserved) = standing(&handle, &wide(), &Key::Global);
        assert_eq!(reserved, tokens(0));
        assert_eq!(
            spent,
            tokens(102),
            "the prompt, and a quarter of eight bytes"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn errors_are_free_and_given_back() {
    for kind in [
        ErrorKind::RateLimited,
        ErrorKind::ServerError,
        ErrorKind::Connect,
    ] {
        let model = ScriptedLlm::new(Script::fail(kind));
        let (service, handle) = around(&model, builder().limit(wide()));
        assert!(send(&service, expecting(100, 50)).await.is_err());
        assert_eq!(
            standing(&handle, &wide(), &Key::Global),
            (tokens(0), tokens(0)),
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_a_cache_are_free() {
    for origin in [Origin::Cache, Origin::Coalesced] {
        let leaf = service_fn(move |request: LlmRequest| async move {
            let mut answer = ChatCompletion::text("m", "hi");
            answer.usage = Some(Usage::new(7, 3));
            let mut head = Head::new(request.model().clone());
            head.origin = origin;
            Ok::<_, LlmError>(LlmResponse::complete(head, answer))
        });
        let budgets = builder().limit(wide()).build().expect("sensible");
        let service = budgets.layer().provider("p").layer(leaf);
        passes(&service, expecting(100, 50)).await;
        assert_eq!(
            standing(&budgets.handle(), &wide(), &Key::Global),
            (tokens(0), tokens(0))
        );
        assert_eq!(budgets.handle().report().total().attempts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_that_served_sets_the_price() {
    let script = Script::answer("hi").usage(Usage::new(7, 3)).model("big");
    let (service, handle) = around(&ScriptedLlm::new(script), builder().limit(wide()));
    let ten = NanoUsd::from_dollars(10);
    handle
        .set_price("p", "big", Price::new(ten, ten))
        .expect("a good price");
    passes(&service, expecting(100, 50)).await;
    assert_eq!(
        standing(&handle, &wide(), &Key::Global),
        (tokens(100), tokens(0))
    );
    assert_eq!(handle.report().by_model()["big"].cost, tokens(100));
}

/// L4: dropped at any moment, nothing stays reserved, and what was never sent costs nothing.
#[tokio::test(start_paused = true)]
async fn nothing_leaks_when_calls_are_dropped() {
    let script = Script::words(5)
        .usage(Usage::new(7, 3))
        .gap(Duration::from_millis(10));
    let (service, handle) = around(&ScriptedLlm::new(script), builder().limit(wide()));
    for after in 0..200 {
        let request = expecting(100, 50);
        let request = if after % 2 == 0 {
            request.streamed()
        } else {
            request
        };
        let call = async { send(&service, request).await?.collect().await };
        let _ = tokio::time::timeout(Duration::from_millis(after), call).await;
    }
    let (_, reserved) = standing(&handle, &wide(), &Key::Global);
    assert_eq!(reserved, tokens(0));
    assert_eq!(handle.admitted(), handle.settled());
    let (spent, _) = standing(&handle, &wide(), &Key::Global);
    assert_eq!(handle.report().total().cost, spent);
}
