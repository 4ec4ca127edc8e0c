//! After calls that were dropped at random moments nothing is held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use donjon::{
    End, LlmError, LlmRequest, LlmResponse, Observer, Preset, Watch,
    failover::{Resume, ResumeWay, Target},
    providers::{
        OpenAi, Provider,
        transport::{HttpClient, Proxy},
    },
    watch,
};
use donjon_testkit::upstream::{Failure, Script, Upstream};
use futures_util::StreamExt;
use tower::Service;

/// Counts the calls that are under way, and the ends.
#[derive(Clone, Debug, Default)]
struct Gauge {
    held: Arc<AtomicI64>,
    ends: Arc<AtomicU64>,
}

impl Gauge {
    fn enter(&self) -> Held {
        self.held.fetch_add(1, SeqCst);
        Held(self.clone())
    }
}

struct Held(Gauge);

impl Observer for Held {
    fn end(&mut self, _: &End<'_>) {
        self.0.ends.fetch_add(1, SeqCst);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, SeqCst);
    }
}

/// Watches every attempt from inside the stack.
#[derive(Clone, Debug)]
struct Watched<S>(S, Gauge);

impl<S: Service<LlmRequest, Response = LlmResponse, Error = LlmError>> Service<LlmRequest>
    for Watched<S>
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Watch<S::Future, Held>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        let call = request.call.clone();
        watch(&call, self.0.call(request), self.1.enter())
    }
}

fn script(random: u64) -> Script {
    let gap = Duration::from_millis(2);
    match random % 10 {
        0 => Script::hang(),
        1 => Script::from(Failure::server_error()),
        2 => Script::words(20).gap(gap).cut_after(7),
        3 => Script::words(20).stall_after(5, None),
        4 => Script::reset(),
        5 => Script::from(Failure::rate_limited()).retry_after(1),
        6 => Script::words(5).first_token_after(Duration::from_millis(30)),
        _ => Script::words(10).gap(gap),
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_dropped_at_random_moments_leave_nothing() {
    drop_ten_thousand(None).await;
}

#[tokio::test(start_paused = true)]
async fn nor_do_streams_that_are_continued() {
    drop_ten_thousand(Some(Resume::new())).await;
}

async fn drop_ten_thousand(resume: Option<Resume>) {
    let seed = std::cell::Cell::new(7_u64);
    let random = move || {
        // A linear congruential generator: the same moments in every run.
        seed.set(
            seed.get()
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
        seed.get() >> 33
    };
    let upstreams: Vec<_> = (0..2)
        .map(|_| {
            Upstream::builder()
                .respond(|request| script(request.number as u64 * 7919))
                .in_memory()
        })
        .collect();
    let inner = Gauge::default();
    let outer = Gauge::default();
    // Half of the calls fail, and every circuit would open.
    let resumes = resume.is_some();
    let mut preset = Preset::new().breaker(None).resume(resume);
    let mut clients = Vec::new();
    for (at, upstream) in upstreams.iter().enumerate() {
        let client = HttpClient::builder()
            .proxy(Proxy::none())
            .max_connections_per_host(40)
            .build_with_connector(upstream.connector())
            .expect("good");
        clients.push(client.clone());
        let codec = OpenAi::compatible("http://upstream.test/v1")
            .build()
            .expect("good");
        let leaf = Watched(Provider::new(codec, client), inner.clone());
        preset = preset.target(Target::new(format!("t{at}"), leaf).continues(at == 1));
    }
    let stack = preset.build().expect("good");

    let mut started = 0_u64;
    for _ in 0..100 {
        let mut calls = Vec::new();
        for _ in 0..100 {
            let mut request = LlmRequest::chat("m", []);
            if random() % 2 == 0 {
                request = request.streamed();
            }
            let polls = Duration::from_micros(random() % 60_000);
            let watched = {
                let call = request.call.clone();
                watch(&call, stack.send(request), outer.enter())
            };
            started += 1;
            calls.push(tokio::spawn(tokio::time::timeout(polls, async move {
                if let Ok(response) = watched.await
                    && let donjon::Body::Stream(mut stream) = response.body
                {
                    while stream.next().await.is_some() {}
                }
            })));
        }
        for call in calls {
            call.await.expect("no panic").ok();
        }
    }
    assert_eq!(started, 10_000);
    assert_eq!(outer.ends.load(SeqCst), started, "one end a call");
    assert_eq!(outer.held.load(SeqCst), 0);
    assert_eq!(inner.held.load(SeqCst), 0);
    for (client, upstream) in clients.iter().zip(&upstreams) {
        upstream.wait_for(|seen| seen.in_progress == 0).await;
        let stats = client.stats();
        assert_eq!((stats.in_flight, stats.waiting), (0, 0), "{stats:?}");
    }
    assert_eq!(stack.retry().parked(), 0);
    let failover = stack.failover();
    let resumed: u64 = ResumeWay::ALL
        .iter()
        .map(|way| failover.resumed(*way))
        .sum();
    assert_eq!(resumed > 50, resumes, "{resumed} were");

    // And it still serves.
    upstreams[0].push(Script::answer("still here"));
    let response = stack
        .send(LlmRequest::chat("m", []))
        .await
        .expect("it serves");
    let answer = response
        .completion()
        .and_then(|c| c.as_chat())
        .expect("a chat")
        .first_text();
    assert_eq!(answer, "still here");
}
