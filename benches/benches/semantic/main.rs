//! What a call costs that the semantic tier compares with so many questions of 384 numbers each, and what one sum after another costs.
//!
//! `cargo bench -p donjon-benches --bench semantic -- [--rounds N]`. The whole call, which is near none of them, leaf and all; the
//! embedding only copies its vector. Each figure is the median of its rounds, in processor time.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use donjon_benches::args::Args;
use donjon_benches::clock;
use donjon_cache::semantic::SemanticLayer;
use donjon_core::{
    CacheDirective, ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message,
};
use tower::{Layer, Service, service_fn};

const NUMBERS: usize = 384;
const CALLS: u32 = 20;

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let rounds: usize = args.or("rounds", if args.flag("bench") { 31 } else { 1 })?;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build();
    let _entered = runtime.as_ref().map_err(ToString::to_string)?.enter();
    println!(
        "{:<12} {:>12} {:>22}",
        "questions", "µs a call", "µs, one sum, no layer"
    );
    for questions in [1_000_u64, 10_000] {
        let embedding = service_fn(|text: Arc<str>| {
            let seed = text.parse().unwrap_or(0);
            ready(Ok::<_, LlmError>(vector(seed)))
        });
        let model = service_fn(|request: LlmRequest| {
            let answer = ChatCompletion::text(request.model().clone(), "A keep.");
            ready(Ok::<_, LlmError>(LlmResponse::complete(
                Head::new("m"),
                answer,
            )))
        });
        let layer = SemanticLayer::builder(embedding).build();
        let layer = layer.map_err(|error| error.to_string())?;
        let mut service = layer.layer(model);
        for n in 0..questions {
            ask(&mut service, n, false)?;
        }
        assert_eq!(layer.handle().entries() as u64, questions, "all are kept");
        let kept: Vec<f32> = (0..questions).flat_map(vector).collect();
        let asked = vector(u64::MAX);
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let began = clock::cpu();
            for n in 0..CALLS {
                // What is not kept leaves their number as it is.
                ask(&mut service, u64::MAX - u64::from(n), true)?;
            }
            ours.push(clock::cpu() - began);
            let began = clock::cpu();
            for _ in 0..CALLS {
                black_box(one_sum(black_box(&asked), black_box(&kept)));
            }
            plain.push(clock::cpu() - began);
        }
        assert_eq!(layer.handle().hits(), 0, "none is near");
        let [ours, plain] = [ours, plain].map(|mut took| {
            took.sort_unstable();
            took[took.len() / 2].as_secs_f64() * 1e6 / f64::from(CALLS)
        });
        println!("{questions:<12} {ours:>12.1} {plain:>22.1}");
    }
    Ok(())
}

fn ask(
    service: &mut impl Service<LlmRequest, Response = LlmResponse, Error = LlmError>,
    n: u64,
    lost: bool,
) -> Result<(), String> {
    let mut request = LlmRequest::chat("m", [Message::user(n.to_string())]);
    let mut directive = CacheDirective::default();
    directive.no_store = lost;
    request.set_cache(directive);
    let mut call = pin!(service.call(request));
    let answer = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    match answer {
        std::task::Poll::Ready(Ok(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn vector(seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..NUMBERS).map(|_| random.f32() - 0.5).collect()
}

/// The nearest, as one would write it.
fn one_sum(asked: &[f32], kept: &[f32]) -> f32 {
    let kept = kept.chunks_exact(NUMBERS);
    let near = kept.map(|kept| asked.iter().zip(kept).map(|(a, b)| a * b).sum::<f32>());
    near.fold(f32::MIN, f32::max)
}
