//! The caller leaves: the exchange upstream ends at once, nobody else is asked, and the neighbours
//! do not notice.

use std::time::Duration;

use donjon_testkit::upstream::{End, Failure, Script, Upstream};
use futures_util::future::join_all;
use http::Method;
use tokio::time::{sleep, timeout};

use crate::{
    config::figure,
    support::{
        ANTHROPIC, CHAT, Caller, Gate, MESSAGES, OPENAI, SOON, always, chat, config, messages,
        provider, seen, steady,
    },
};

/// When the caller leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// Once the upstream has its request, before anything came back.
    BeforeTheHead,
    /// Once this much text was read.
    After(&'static str),
}

/// Lets a caller leave, and sees to it that the upstream's only call ends there.
async fn leave(path: &str, stream: bool, script: Script, leaves: Leaves) {
    let what = format!("{path} {stream} {leaves:?} {script:?}");
    for kind in [OPENAI, ANTHROPIC] {
        let first = always(script.clone()).await;
        let spare = steady().await;
        let targets = [(kind, &first), (kind, &spare)];
        let gate = Gate::open(&config(&targets, 3, "")).await;
        let mut caller = Caller::connect(&gate).await;
        let body = match path {
            MESSAGES => messages(stream),
            _ => chat(stream),
        };
        match leaves {
            Leaves::BeforeTheHead => {
                let answer = tokio::spawn(caller.start(Method::POST, path, body.into()));
                seen(&first, |seen| seen.in_progress == 1).await;
                caller.leave().await;
                assert!(answer.await.expect("no panic").is_err(), "{what}");
            }
            Leaves::After(text) => {
                let mut answer = caller.post(path, body).await;
                answer.until(text).await;
                caller.leave().await;
            }
        }
        let seen = seen(&first, |seen| seen.in_progress == 0).await;
        assert_eq!(seen.calls[0].end(), Some(End::PeerLeft), "{what}");
        // The gateway goes on, on the connections that are left.
        spare.push(Script::answer("still here"));
        first.push(Failure::invalid_api_key());
        let answer = gate.post(CHAT, chat(false)).await;
        assert!(
            answer.text().contains("still here"),
            "{what}: {}",
            answer.text()
        );
        assert_eq!((first.count(), spare.count()), (2, 1), "{what}");
    }
}

#[tokio::test]
async fn before_the_head_of_a_whole_answer() {
    for path in [CHAT, MESSAGES] {
        for script in [Script::hang(), Script::headers_then_hang()] {
            leave(path, false, script, Leaves::BeforeTheHead).await;
        }
    }
}

#[tokio::test]
async fn before_the_first_token_of_a_stream() {
    for path in [CHAT, MESSAGES] {
        for script in [
            Script::hang(),
            Script::headers_then_hang(),
            Script::words(9).role_then_silence(),
            Script::words(9).pings(usize::MAX, Duration::from_millis(5)),
        ] {
            leave(path, true, script, Leaves::BeforeTheHead).await;
        }
    }
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    for path in [CHAT, MESSAGES] {
        for script in [
            Script::words(9).stall_after(3, None),
            Script::words(5_000).gap(Duration::from_millis(2)),
        ] {
            leave(path, true, script, Leaves::After("w2 ")).await;
        }
    }
}

#[tokio::test]
async fn while_nobody_reads() {
    // So much that it does not fit into the buffers on the way: the gateway has to wait for a
    // caller who takes nothing, and the upstream for the gateway.
    let token = "x".repeat(10_000);
    let flood = Script::tokens((0..5_000).map(|_| token.clone()));
    let only = always(flood).await;
    let gate = Gate::before(&[&only]).await;
    let mut caller = Caller::connect(&gate).await;
    let mut answer = caller.post(CHAT, chat(true)).await;
    answer.until("xxx").await;
    let sent = || only.calls()[0].sent;
    // Wait until it has come to rest.
    let mut before = 0;
    while sent() != before {
        before = sent();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(
        before < 5_000,
        "all of it was read from the upstream, for nobody"
    );
    caller.leave().await;
    let seen = seen(&only, |seen| seen.in_progress == 0).await;
    assert_eq!(seen.calls[0].end(), Some(End::PeerLeft));
}

#[tokio::test]
async fn during_the_backoff() {
    let down = always(Failure::service_unavailable()).await;
    // Backoff that nobody could sit out here.
    let config = format!(
        "{}[[routes]]\nmodel = \"*\"\ntargets = [{{ provider = \"a\" }}]\n\
         [retry]\nmax_attempts = 2\nbase_delay = \"10m\"\nmax_delay = \"20m\"\n",
        provider("a", OPENAI, &down)
    );
    let gate = Gate::open(&config).await;
    let mut caller = Caller::connect(&gate).await;
    let answer = tokio::spawn(caller.start(Method::POST, CHAT, chat(false).into()));
    parked(&gate, 1.0).await;
    caller.leave().await;
    assert!(answer.await.expect("no panic").is_err());
    parked(&gate, 0.0).await;
    assert_eq!((down.count(), down.in_progress()), (1, 0));
}

/// Waits until so many calls sit in backoff.
async fn parked(gate: &Gate, calls: f64) {
    let look = async {
        while figure(&gate.get("/health").await.json(), "retry", "parked") != calls {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        timeout(SOON, look).await.is_ok(),
        "never {calls} in backoff"
    );
}

#[tokio::test]
async fn the_neighbours_live_on() {
    let slow = || Script::words(40).gap(Duration::from_millis(5));
    let only = always(slow()).await;
    let gate = Gate::before(&[&only]).await;
    let mut leaver = Caller::connect(&gate).await;
    let mut left = leaver.post(CHAT, chat(true)).await;
    left.until("w1 ").await;
    let neighbours = join_all((0..8).map(|n| {
        let (path, body) = match n % 2 {
            0 => (CHAT, chat(n % 4 < 2)),
            _ => (MESSAGES, messages(n % 4 < 2)),
        };
        gate.post(path, body)
    }));
    let leaves = async {
        // Once all of them are under way.
        seen(&only, |seen| seen.in_progress == 9).await;
        leaver.leave().await;
    };
    let (answers, ()) = tokio::join!(neighbours, leaves);
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("w39 "), "{}", answer.text());
    }
    let seen = seen(&only, |seen| seen.in_progress == 0).await;
    assert_eq!(seen.cancelled(), 1);
    assert_eq!(seen.ended(End::Completed), 8);
}

/// A linear congruential generator: the same calls in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_300_calls_of_which_a_third_was_dropped_nothing_is_held() {
    let gap = Duration::from_millis(2);
    let play = move |number: usize| match number % 12 {
        0 => Script::from(Failure::service_unavailable()),
        1 => Script::reset(),
        2 => Script::hang(),
        3 => Script::words(20).gap(gap).cut_after(9),
        4 => Script::words(20).gap(gap).stall_after(5, None),
        5 => Script::from(Failure::rate_limited()).retry_after_ms(5),
        6 => Script::words(5).first_token_after(Duration::from_millis(20)),
        7 => Script::words(0).tool_call("weather", r#"{"city":"Loches"}"#),
        8 => Script::words(9).bad_event_at(3),
        _ => Script::words(20).gap(gap),
    };
    let start = || async move {
        let builder = Upstream::builder().respond(move |request| play(request.number));
        builder.start().await.expect("a free port")
    };
    let (first, second) = (start().await, start().await);
    let targets = [(OPENAI, &first), (ANTHROPIC, &second)];
    let more = "[timeout]\nfirst_token = \"150ms\"\nidle = \"150ms\"\nresponse = \"300ms\"\ntotal = \"2s\"\n[breaker]\nenabled = false";
    let config = config(&targets, 2, more);
    let config = config.replace("api_key", "max_connections = 64\napi_key");
    let gate = Gate::open(&config).await;

    let mut random = Random(7);
    let calls = (0..300).map(|number| {
        let stream = random.below(2) == 0;
        let (path, body) = match random.below(2) {
            0 => (CHAT, chat(stream)),
            _ => (MESSAGES, messages(stream)),
        };
        let stays = number % 3 != 0;
        let patience = Duration::from_micros(random.below(60_000));
        let gate = &gate;
        async move {
            let mut caller = Caller::connect(gate).await;
            let call = async { caller.post(path, body).await.read().await };
            if stays {
                return Some(call.await);
            }
            let answer = timeout(patience, call).await.ok();
            caller.leave().await;
            answer
        }
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    assert!(answers.len() >= 200, "{}", answers.len());
    for answer in &answers {
        // Whatever came of it, it was told in full.
        match answer.status {
            200 if answer.header("content-type") == Some("application/json") => {
                assert!(answer.json()["id"].is_string(), "{}", answer.text());
            }
            200 => {
                let text = answer.text();
                let whole = text.ends_with("data: [DONE]\n\n") || text.contains("message_stop");
                assert!(whole != text.contains(r#""error":{"#), "{text}");
            }
            429 | 502..=504 => {
                assert_eq!(answer.header("x-should-retry"), Some("false"));
                assert!(answer.json()["error"]["message"].is_string());
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    for upstream in [&first, &second] {
        seen(upstream, |seen| seen.in_progress == 0).await;
    }
    parked(&gate, 0.0).await;

    first.push(Script::answer("still here"));
    let answer = gate.post(CHAT, chat(false)).await;
    assert!(answer.text().contains("still here"), "{}", answer.text());
}
