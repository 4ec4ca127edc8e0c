//! How the cost of a call through a layer that keeps keys apart grows with their number: the whole call, leaf and all, of a key
//! that is known and chosen at random.
//!
//! `cargo bench -p donjon-benches --bench keys -- [--rounds N] [--most N] [PART-OF-A-NAME …]`. Requests are made beforehand, a few
//! at a time and not measured, so that each brings a key whose name was just read, as one from a network does. Each figure is the
//! median of its rounds, which go round-robin over all rows.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use donjon_benches::args::Args;
use donjon_benches::clock;
use donjon_circuit_breaker::BreakerLayer;
use donjon_core::{
    ChatCompletion, Completion, Head, Identity, KeyBy, LlmError, LlmRequest, LlmResponse, Message,
};
use donjon_pool::PoolLayer;
use donjon_rate_limit::{Limit, RateLimitLayer};
use tower::{Layer, Service};

/// How many requests are made at a time.
const BATCH: usize = 32;
const BATCHES: usize = 500;
const KEYS: [usize; 4] = [10, 1_000, 100_000, 1_000_000];

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let rounds: usize = args.or("rounds", if args.flag("bench") { 21 } else { 1 })?;
    let most: usize = args.or("most", if args.flag("bench") { 1_000_000 } else { 1_000 })?;
    let chosen = |name: &str| {
        let words = args.words();
        words.is_empty() || words.iter().any(|part| name.contains(part))
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build();
    let _entered = runtime.as_ref().map_err(ToString::to_string)?.enter();
    let mut rows = Vec::new();
    for keys in KEYS.into_iter().filter(|keys| *keys <= most) {
        let all = [
            row("leaf", keys, leaf()),
            row("pool", keys, {
                let layer = PoolLayer::builder().size(100).key_by(KeyBy::Tenant);
                let layer = layer.max_keys(2 * most).build();
                layer.expect("a good configuration").layer(leaf())
            }),
            row("breaker", keys, {
                let layer = BreakerLayer::builder().key_by(KeyBy::Tenant);
                let layer = layer.max_keys(2 * most).build();
                layer.expect("a good configuration").layer(leaf())
            }),
            row("rate limit", keys, {
                let limit = Limit::requests(1_000_000_000).per_second();
                let layer = RateLimitLayer::builder().limit(limit).key_by(KeyBy::Tenant);
                let layer = layer.max_keys(2 * most).build();
                layer.expect("a good configuration").layer(leaf())
            }),
        ];
        rows.extend(all.into_iter().filter(|row| chosen(row.name)));
    }
    for row in &mut rows {
        (row.call)(None);
    }
    for _ in 0..rounds {
        for row in &mut rows {
            let took = (row.call)(Some(&mut row.dice));
            row.took.push(took);
        }
    }
    println!(
        "{:<12} {:>10} {:>10} {:>8}",
        "", "keys", "ns a call", "growth"
    );
    rows.sort_by_key(|row| (row.name, row.keys));
    let mut first = ("", 1.0);
    for row in &mut rows {
        row.took.sort_unstable();
        let took = row.took[row.took.len() / 2].as_secs_f64() * 1e9;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let each = took / (BATCH * BATCHES) as f64;
        if first.0 != row.name {
            first = (row.name, each);
        }
        println!(
            "{:<12} {:>10} {each:>10.1} {:>8.2}",
            row.name,
            row.keys,
            each / first.1
        );
    }
    Ok(())
}

/// Makes calls and says how long they took.
type Call = Box<dyn FnMut(Option<&mut fastrand::Rng>) -> Duration>;

struct Row {
    name: &'static str,
    keys: usize,
    dice: fastrand::Rng,
    /// Calls every key once, or keys at random and says how long that took.
    call: Call,
    took: Vec<Duration>,
}

fn row<S>(name: &'static str, keys: usize, mut service: S) -> Row
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + 'static,
{
    let prompt = LlmRequest::chat("gpt-4o-mini", [Message::user("Which?")]);
    let request = move |key: usize| {
        let identity = Identity::builder().tenant(format!("tenant-{key:08}"));
        prompt.clone().on_behalf_of(identity.build())
    };
    Row {
        name,
        keys,
        dice: fastrand::Rng::with_seed(7),
        call: Box::new(move |dice| {
            let Some(dice) = dice else {
                for key in 0..keys {
                    call(&mut service, request(key));
                }
                return Duration::ZERO;
            };
            let mut took = Duration::ZERO;
            let mut requests = Vec::with_capacity(BATCH);
            for _ in 0..BATCHES {
                requests.extend((0..BATCH).map(|_| request(dice.usize(0..keys))));
                let start = clock::now();
                for request in requests.drain(..) {
                    call(&mut service, request);
                }
                took += start.elapsed();
            }
            took
        }),
        took: Vec::new(),
    }
}

fn call<S>(service: &mut S, request: LlmRequest)
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let future = pin!(service.call(request));
    match future.poll(&mut cx) {
        Poll::Ready(answer) => assert!(black_box(answer).is_ok()),
        Poll::Pending => unreachable!("nothing is ever used up"),
    }
}

/// Answers at once.
#[derive(Clone)]
struct Leaf(Completion);

fn leaf() -> Leaf {
    Leaf(ChatCompletion::text("gpt-4o-mini", "The keep.").into())
}

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        request.call.dispatch();
        let head = Head::new(request.model().clone());
        ready(Ok(LlmResponse::complete(head, self.0.clone())))
    }
}
