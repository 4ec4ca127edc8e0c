//! What tenants and providers are limited to, as the provider sees it.

use std::time::Duration;

use donjon_testkit::upstream::{Script, Usage};
use futures_util::future::join_all;
use http::Method;
use tokio::time::{Instant, sleep};

use crate::support::{
    ANTHROPIC, Answer, CHAT, Caller, Gate, OPENAI, always, chat, config, seen, waiting,
};

const SECOND: Duration = Duration::from_secs(1);
/// A limit comes due in sub-windows.
const SUB_WINDOW: Duration = Duration::from_nanos(1_000_000_000 / 64 + 1);

fn thousand_tokens() -> Script {
    Script::answer("served").usage(Usage::new(900, 100))
}

async fn ask(gate: &Gate, tenant: &'static str) -> Answer {
    let mut caller = Caller::connect(gate).await.of(tenant);
    caller.post(CHAT, chat(false)).await.read().await
}

/// R12.
#[tokio::test]
async fn a_tenant_over_its_tokens_waits_its_turn_where_it_stands_and_holds_up_nobody() {
    let (first, second) = (
        always(thousand_tokens()).await,
        always(thousand_tokens()).await,
    );
    let targets = [(OPENAI, &first), (ANTHROPIC, &second)];
    let more = "[tenants.limits]\ntokens_per_second = 2000";
    let gate = Gate::open(&config(&targets, 1, more)).await;
    let busy = async {
        let all = join_all((0..6).map(|_| ask(&gate, "busy"))).await;
        assert!(all.iter().all(|answer| answer.status == 200));
        Instant::now()
    };
    let idle = async {
        seen(&first, |seen| !seen.calls.is_empty()).await;
        let answer = ask(&gate, "idle").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Instant::now()
    };
    let began = Instant::now();
    let (busy, idle) = tokio::join!(busy, idle);
    assert!(busy - began >= 2 * SECOND, "2000 a second, not before");
    assert!(idle < busy, "another tenant is untouched");
    assert_eq!((first.count(), second.count()), (7, 0));
}

#[tokio::test]
async fn where_the_wait_does_not_fit_it_is_told_exactly_when_to_come_back() {
    let (first, second) = (
        always(thousand_tokens()).await,
        always(thousand_tokens()).await,
    );
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let more = "[tenants.limits]\ntokens_per_second = 1000\nmax_wait = \"1ms\"";
    let gate = Gate::open(&config(&targets, 1, more)).await;
    let began = Instant::now();
    assert_eq!(ask(&gate, "busy").await.status, 200);
    let refused = ask(&gate, "busy").await;
    let told = Instant::now();
    if told - began >= SECOND {
        // The machine was so busy that the limit had come due again.
        return;
    }
    assert_eq!(refused.status, 429, "{}", refused.text());
    let header = |name| refused.header(name).expect("when").parse::<u64>();
    let after = Duration::from_millis(header("retry-after-ms").expect("milliseconds"));
    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    assert_eq!(header("retry-after"), Ok(whole));
    assert!(told + after >= began + SECOND, "{after:?} is too early");
    let latest = SECOND + SUB_WINDOW + Duration::from_millis(1);
    assert!(after <= latest, "{after:?} is too late");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(ask(&gate, "idle").await.status, 200, "another tenant");
    sleep(after).await;
    assert_eq!(ask(&gate, "busy").await.status, 200, "as it was told");
    assert_eq!((first.count(), second.count()), (3, 0));
}

/// What a full pool sheds was not sent, and so was not charged.
#[tokio::test]
async fn a_call_that_is_shed_is_refunded() {
    let only = always(Script::hang()).await;
    let more = "[providers.t0.pool]\nsize = 1\nmax_queued = 1\n\
                [tenants.limits]\nrequests_per_minute = 3\nwait = false";
    let gate = Gate::open(&config(&[(OPENAI, &only)], 1, more)).await;
    let mut first = Caller::connect(&gate).await.of("a");
    let held = tokio::spawn(first.start(Method::POST, CHAT, chat(false).into()));
    seen(&only, |seen| seen.in_progress == 1).await;
    let mut second = Caller::connect(&gate).await.of("a");
    let waits = tokio::spawn(second.start(Method::POST, CHAT, chat(false).into()));
    waiting(&gate, "t0", 1.0).await;
    // The third of three, again and again.
    for _ in 0..5 {
        let shed = ask(&gate, "a").await;
        assert_eq!(shed.status, 503, "{}", shed.text());
    }
    second.leave().await;
    waits.abort();
    waiting(&gate, "t0", 0.0).await;
    let mut third = Caller::connect(&gate).await.of("a");
    let waits = tokio::spawn(third.start(Method::POST, CHAT, chat(false).into()));
    waiting(&gate, "t0", 1.0).await;
    let shed = ask(&gate, "a").await;
    assert_eq!(shed.status, 503, "the one that left was refunded too");
    assert_eq!(only.count(), 1, "nobody else was sent");
    first.leave().await;
    third.leave().await;
    held.abort();
    waits.abort();
}

/// The limit is the last gate that waits: what it admits is sent at once.
#[tokio::test]
async fn behind_a_full_pool_the_provider_sees_no_more_than_the_rate() {
    const SIZE: usize = 3;
    const RATE: usize = 20;
    let takes = Duration::from_millis(20);
    let only = always(Script::answer("served").headers_after(takes)).await;
    let more = "[providers.t0.pool]\nsize = 3\n\
                [providers.t0.limits]\nrequests_per_second = 20";
    let gate = Gate::open(&config(&[(OPENAI, &only)], 1, more)).await;
    let began = Instant::now();
    let all = join_all((0..3 * RATE).map(|_| ask(&gate, "a"))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    assert_eq!(only.peak(), SIZE, "the pool is full");
    let mut at: Vec<_> = only.calls().iter().map(|call| call.request.at).collect();
    at.sort_unstable();
    // However late they come, no more than are in the pool were let through before.
    for more in at.windows(RATE + SIZE + 1) {
        let apart = more[RATE + SIZE] - more[0];
        assert!(apart >= SECOND, "{} in {apart:?}", more.len());
    }
    for (seconds, first) in at.chunks(RATE).enumerate() {
        let seconds = u32::try_from(seconds).expect("few");
        assert!(first[0] >= began + seconds * SECOND);
    }
}
