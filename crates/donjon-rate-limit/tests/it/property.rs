//! Whatever comes in whatever order: never over any limit in any window, first come first served, and
//! everything given back in the end.

use std::time::Duration;

use donjon_core::{ErrorKind, Estimate, LlmRequest, Usage};
use donjon_rate_limit::{Limit, RateLimitLayer};
use donjon_testkit::{Script, ScriptedLlm, SeenCall};
use proptest::prelude::*;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{MINUTE, SECOND, SLOT, around, request, send};

/// One caller.
#[derive(Clone, Debug)]
struct Caller {
    comes_after: Duration,
    input: u64,
    output: u64,
    /// How much of its output estimate it uses, in percent; never more than all of it.
    uses: u64,
    answers_after: Duration,
    leaves_after: Option<Duration>,
    ends: End,
    streamed: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Answer,
    Fails,
    Breaks,
}

fn caller() -> impl Strategy<Value = Caller> {
    let millis = |range| {
        any::<prop::sample::Index>()
            .prop_map(move |at| Duration::from_millis(at.index(range) as u64))
    };
    let ends = prop_oneof![4 => Just(End::Answer), 1 => Just(End::Fails), 1 => Just(End::Breaks)];
    (
        prop_oneof![3 => millis(50), 2 => millis(3_000), 1 => millis(100_000)],
        0..400_u64,
        0..400_u64,
        0..=100_u64,
        prop_oneof![millis(10), millis(5_000), millis(90_000)],
        prop::option::weighted(
            0.3,
            prop_oneof![millis(10), millis(20_000), millis(200_000)],
        ),
        ends,
        any::<bool>(),
    )
        .prop_map(
            |(comes_after, input, output, uses, answers_after, leaves_after, ends, streamed)| {
                Caller {
                    comes_after,
                    input,
                    output,
                    uses,
                    answers_after,
                    leaves_after,
                    ends,
                    streamed,
                }
            },
        )
}

/// The number of a call, as its model is called.
fn number(request: &LlmRequest) -> usize {
    request.model().parse().expect("a number")
}

fn model(callers: Vec<Caller>) -> ScriptedLlm {
    ScriptedLlm::from_fn(move |request: &LlmRequest| {
        let caller = &callers[number(request)];
        let usage = Usage::new(caller.input, caller.output * caller.uses / 100);
        match caller.ends {
            End::Answer => Script::words(2)
                .usage(usage)
                .head_after(caller.answers_after),
            End::Fails => Script::fail(ErrorKind::ServerError).head_after(caller.answers_after),
            // Fewer bytes than its estimate allows for are streamed.
            End::Breaks => Script::words(2)
                .head_after(caller.answers_after)
                .fail_after(0, ErrorKind::StreamBroken),
        }
    })
    .commits()
}

/// What a call counts for: what it was charged until it ended, what it used afterwards.
fn counted(caller: &Caller, call: &SeenCall, now: Instant) -> (u64, u64) {
    let estimate = caller.input + caller.output;
    let ended = call.ended_at.is_some_and(|at| at <= now);
    match caller.ends {
        _ if !ended => (1, estimate),
        End::Answer if caller.leaves_after.is_none() => {
            (1, caller.input + caller.output * caller.uses / 100)
        }
        // It was sent, and its tokens are settled by estimates; the least that it may count for.
        End::Answer | End::Fails | End::Breaks => (1, 0),
    }
}

async fn run(callers: Vec<Caller>) -> Result<(), TestCaseError> {
    const REQUESTS: u64 = 10;
    const TOKENS: u64 = 2_000;
    let model = model(callers.clone());
    let builder = RateLimitLayer::builder()
        .limit(Limit::requests(REQUESTS).per_minute())
        .limit(Limit::tokens(TOKENS).per_minute())
        .limit(Limit::requests(4).per(SECOND * 5));
    let (service, handle) = around(&model, builder);
    let mut tasks = JoinSet::new();
    for (number, caller) in callers.iter().cloned().enumerate() {
        sleep(caller.comes_after).await;
        let service = service.clone();
        tasks.spawn(async move {
            let mut request = request().with_model(number.to_string());
            request.call.estimate = Some(Estimate::new(caller.input, caller.output));
            if caller.streamed {
                request = request.streamed();
            }
            let call = async {
                if let Ok(answer) = send(&service, request).await {
                    let _ = answer.collect().await;
                }
            };
            match caller.leaves_after {
                Some(after) => drop(timeout(after, call).await),
                None => call.await,
            }
        });
        // Each comes before the next.
        tokio::task::yield_now().await;
    }
    while let Some(done) = tasks.join_next().await {
        prop_assert!(done.is_ok());
    }
    let calls = model.calls();

    // First come, first served.
    let numbers: Vec<_> = calls.iter().map(|call| number(&call.request)).collect();
    prop_assert!(numbers.is_sorted(), "{numbers:?}");

    // At each call, what was admitted in the window that ends there is within the limits.
    for (at, last) in calls.iter().enumerate() {
        for (window, most, tokens_too) in [(MINUTE, REQUESTS, true), (SECOND * 5, 4, false)] {
            let (mut requests, mut tokens) = (0, 0);
            for call in calls[..=at]
                .iter()
                .filter(|call| last.at - call.at < window)
            {
                let (more, most) = counted(&callers[number(&call.request)], call, last.at);
                requests += more;
                tokens += most;
            }
            prop_assert!(requests <= most, "{requests} requests in {window:?}");
            prop_assert!(!tokens_too || tokens <= TOKENS, "{tokens} tokens");
        }
    }

    // Nobody waits, and what was not used is given back.
    prop_assert_eq!(handle.waiting(), 0);
    prop_assert_eq!(model.in_progress(), 0);
    sleep(MINUTE + SLOT).await;
    for standing in handle.peek(&donjon_core::Key::Global) {
        prop_assert_eq!(standing.used, 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_over_any_limit(callers in prop::collection::vec(caller(), 1..60)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(run(callers))?;
    }
}
