//! A provider that is down for a while, with steady traffic before the gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use donjon_testkit::upstream::{Failure, Script, Upstream};
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::support::{CHAT, Caller, Gate, OPENAI, SOON, chat, config, steady, waiting};

/// Between two probes; a tenth of it is jitter.
const INTERVAL: Duration = Duration::from_millis(10);
const AT_LEAST: Duration = Duration::from_millis(9);
const BREAKER: &str =
    "[breaker]\nconsecutive_failures = 3\nprobes = 1\nopen = \"10ms\"\nmax_open = \"10ms\"\n";
const MS: Duration = Duration::from_millis(1);

/// Answers 503 while the switch is on.
pub(crate) async fn switched(down: &Arc<AtomicBool>) -> Upstream {
    let down = down.clone();
    let builder = Upstream::builder().respond(move |_| {
        if down.load(SeqCst) {
            Script::from(Failure::service_unavailable())
        } else {
            Script::answer("served")
        }
    });
    builder.start().await.expect("a free port")
}

/// Asks again and again on one connection for so long, and lets `look` see the target of each answer
/// and when it was asked.
async fn ask(gate: &Gate, how_long: Duration, mut look: impl FnMut(&str, Instant)) {
    let mut caller = Caller::connect(gate).await;
    let until = Instant::now() + how_long;
    while Instant::now() < until {
        let asked = Instant::now();
        let answer = caller.post(CHAT, chat(false)).await.read().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        look(answer.header("x-donjon-target").expect("served"), asked);
        sleep(MS).await;
    }
}

/// A minute at a hundredth of its length.
#[tokio::test]
async fn a_provider_that_is_down_sees_one_probe_an_interval_and_serves_within_one_of_its_recovery()
{
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down).await, steady().await);
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let gate = Gate::open(&config(&targets, 1, BREAKER)).await;
    let mut caller = Caller::connect(&gate).await;
    for _ in 0..3 {
        let answer = caller.post(CHAT, chat(false)).await.read().await;
        assert_eq!(answer.header("x-donjon-target"), Some("t1"));
    }
    assert_eq!(first.count(), 3, "these opened the circuit");

    let began = Instant::now();
    let traffic = (0..8).map(|_| {
        ask(&gate, 60 * INTERVAL, |target, _| {
            assert_eq!(target, "t1", "every call is served by the fallback");
        })
    });
    join_all(traffic).await;
    let took = began.elapsed();
    let mut at: Vec<_> = first.calls().iter().map(|call| call.request.at).collect();
    at.sort_unstable();
    // Each is answered before the delay begins after which the next may come, however busy the
    // machine is.
    for two in at[2..].windows(2) {
        let apart = two[1] - two[0];
        assert!(apart >= AT_LEAST, "two probes within {apart:?}");
    }
    let probes = at.len() - 3;
    let most = took.as_nanos() / AT_LEAST.as_nanos() + 1;
    assert!(probes >= 2 && probes as u128 <= most, "{probes} of {most}");

    // Nobody asks at the moment, so the circuit opened last before this.
    down.store(false, SeqCst);
    let well = Instant::now();
    let mut later = 0;
    ask(&gate, 20 * INTERVAL, |target, asked| {
        if asked >= well + INTERVAL {
            later += 1;
            assert_eq!(target, "t0", "after {:?}", asked - well);
        }
    })
    .await;
    assert!(later > 0);
}

/// A provider that lets nobody have an answer until it is told to fail.
struct Held {
    addr: std::net::SocketAddr,
    fail: watch::Sender<bool>,
    seen: Arc<AtomicUsize>,
}

impl Held {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr = listener.local_addr().expect("it listens");
        let (fail, fails) = watch::channel(false);
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, fails.clone(), count.clone()));
            }
        });
        Self { addr, fail, seen }
    }

    /// One request, and its answer when it may fail.
    async fn serve(
        mut stream: TcpStream,
        mut fails: watch::Receiver<bool>,
        seen: Arc<AtomicUsize>,
    ) {
        let mut read = Vec::new();
        while !read.ends_with(b"}") {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        seen.fetch_add(1, SeqCst);
        let answer =
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        if fails.wait_for(|fails| *fails).await.is_ok() {
            stream.write_all(answer.as_bytes()).await.ok();
        }
    }
}

/// Asks so many times at once on one connection; the targets that served.
async fn burst(gate: &Gate, calls: usize) -> Vec<String> {
    let stream = TcpStream::connect(gate.addr).await.expect("it listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("a connection");
    tokio::spawn(connection);
    let one = || {
        let mut sender = sender.clone();
        async move {
            let request = Request::post(format!("http://gateway{CHAT}"))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(chat(false))))
                .expect("a good request");
            sender.ready().await.expect("it is open");
            let (head, body) = sender
                .send_request(request)
                .await
                .expect("sent")
                .into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            assert_eq!(head.status, StatusCode::OK, "{body:?}");
            let target = head.headers["x-donjon-target"].to_str();
            target.expect("a name").to_owned()
        }
    };
    join_all((0..calls).map(|_| one())).await
}

/// R13, with the clock of [`BREAKER`]: what is parked when the circuit opens goes to the fallback.
#[tokio::test]
async fn five_hundred_calls_parked_when_the_circuit_opens_go_to_the_fallback() {
    const SIZE: usize = 4;
    let (first, second) = (Held::start().await, steady().await);
    let targets = [(OPENAI, &second), (OPENAI, &second)];
    let more = "[failover]\npatience = \"1m\"\n\
                [providers.t0.pool]\nsize = 4\nmax_queued = 1000\n\
                [providers.t1.pool]\nsize = 32\nmax_queued = 1000\n";
    let text = config(&targets, 1, &format!("{BREAKER}{more}"));
    let second_url = second.base_url();
    let text = text.replacen(&second_url, &format!("http://{}/v1", first.addr), 1);
    let gate = Gate::open(&text).await;

    let calls = join_all((0..4).map(|_| burst(&gate, 126)));
    let fail = async {
        waiting(&gate, "t0", 500.0).await;
        assert_eq!(first.seen.load(SeqCst), SIZE);
        first.fail.send_replace(true);
        Instant::now()
    };
    let (all, failed) = timeout(SOON, async { tokio::join!(calls, fail) })
        .await
        .expect("all are served");
    let took = failed.elapsed();
    let all: Vec<_> = all.into_iter().flatten().collect();
    assert_eq!(all.len(), 504);
    assert!(all.iter().all(|target| target == "t1"), "{all:?}");
    assert_eq!(second.count(), 504);
    // Those that were out when it opened, those whom the first two failures made room for, and the
    // probes.
    let reached = first.seen.load(SeqCst);
    let probes = took.as_nanos() / AT_LEAST.as_nanos() + 1;
    assert!(
        (SIZE..=SIZE + 2 + probes as usize).contains(&reached),
        "{reached} in {took:?}"
    );
    assert!(reached < 252, "{reached}");
}
