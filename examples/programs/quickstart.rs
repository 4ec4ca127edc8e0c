//! A few hundred calls through a storm of faults: what a bare client delivers, and what the preset
//! stack delivers in the same weather.
//!
//! ```console
//! cargo run --release --example quickstart
//! ```
//!
//! The models are scripted, in this process: no key, no network. A `donjon::providers::Provider`
//! takes the place of a `ScriptedLlm` as it is. The timeouts are a hundredth of what a real
//! provider needs, so that all of it takes a few seconds.

#![expect(clippy::print_stdout, reason = "a program")]

use std::collections::{BTreeMap, BTreeSet};
use std::{error::Error, fmt::Display, sync::atomic, time::Duration};

use donjon::{
    Body, ErrorKind, LlmError, LlmRequest, LlmService, Message, Preset, failover::Target,
    retry::Backoff, retry::RetryLayer, timeout::TimeoutLayer,
};
use donjon_testkit::{Script, ScriptedLlm};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

const CALLS: u32 = 400;
const AT_ONCE: usize = 32;
/// The user gives up then, whatever is between them and the model.
const USER_LEAVES_AFTER: Duration = ms(1_000);
const ANSWER: &str = "A donjon is the great tower of a castle, which stands when the walls do not.";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Nothing but the model.
    let alone = stormy();
    let bare = run("bare client", alone.clone()).await?;

    // The preset: deadline → failover → (retry → timeout → commit → model) for each target.
    let (main, spare) = (stormy(), ScriptedLlm::new(healthy(15)));
    let retry = RetryLayer::builder().backoff(Backoff::exponential(ms(10)));
    let timeouts = TimeoutLayer::builder();
    let timeouts = timeouts.first_token(ms(60)).response(ms(150));
    let stack = Preset::new()
        .total_timeout(ms(900))
        .patience(ms(100)) // no longer wait while the spare is untried
        .retry(retry.build()?)
        .timeout(timeouts.build()?)
        .target(Target::new("main", main.clone()))
        .target(Target::new("spare", spare.clone()))
        .build()?;
    let kept = run("preset stack", stack.clone()).await?;

    println!("\n{CALLS} calls, half of them streamed");
    row("", "bare client", "preset stack");
    let endings: BTreeSet<_> = bare.endings.keys().chain(kept.endings.keys()).collect();
    for ending in endings {
        let count = |of: &Delivered| of.endings.get(ending).copied().unwrap_or(0);
        row(ending, count(&bare), count(&kept));
    }
    for p in [50, 99] {
        let name = format!("first token after, p{p} ms");
        row(&name, bare.first_token(p), kept.first_token(p));
    }
    row("attempts at the model", alone.count(), main.count());
    row("attempts at the spare", "-", spare.count());
    let (retries, failovers) = (stack.retry().retries(), stack.failover().failovers());
    println!("\nThe stack made {retries} retries and {failovers} failovers. What is cut after its");
    println!("first token was shown already; more of the stack's calls come that far.");
    Ok(())
}

/// A model of which nearly every second attempt goes wrong. Attempt by attempt it is the same
/// weather for whoever asks.
fn stormy() -> ScriptedLlm {
    let attempts = atomic::AtomicU64::new(0);
    ScriptedLlm::from_fn(move |_| {
        let attempt = attempts.fetch_add(1, atomic::Ordering::Relaxed);
        let limited = Script::fail(ErrorKind::RateLimited).status(429);
        match fastrand::Rng::with_seed(attempt).u32(..100) {
            0..12 => limited.retry_after(ms(40)),
            12..16 => limited.retry_after(Duration::from_secs(30)),
            16..26 => Script::fail(ErrorKind::ServerError).status(500),
            26..30 => healthy(5).fail_after(0, ErrorKind::Overloaded), // after the head
            30..36 => healthy(5).role_then_silence(),
            36..40 => Script::hang(),
            40..45 => healthy(5).cut_after(6),
            _ => healthy(5),
        }
    })
}

fn healthy(first_token: u64) -> Script {
    let script = Script::answer(ANSWER).gap(ms(1));
    script.first_token_after(ms(first_token))
}

/// What the users of one model got.
#[derive(Default)]
struct Delivered {
    endings: BTreeMap<String, u32>,
    first_tokens: Vec<Duration>,
}

impl Delivered {
    /// Of the streams in which one came; those who waited in vain are not in it.
    fn first_token(&self, percent: usize) -> u128 {
        let last = self.first_tokens.len().saturating_sub(1);
        let wait = self.first_tokens.get(last * percent / 100);
        wait.map_or(0, Duration::as_millis)
    }
}

fn row(name: &str, bare: impl Display, kept: impl Display) {
    println!("{name:46}{bare:>12}{kept:>14}");
}

async fn run(name: &str, model: impl LlmService + Clone) -> Result<Delivered, Box<dyn Error>> {
    let bar = ProgressBar::new(CALLS.into()).with_prefix(name.to_owned());
    let style = "{prefix:12} {bar:40} {pos}/{len} in {elapsed}";
    bar.set_style(ProgressStyle::with_template(style)?);
    let began = Instant::now();
    let calls = (0..CALLS).map(|number| call(model.clone(), number % 2 == 0));
    let mut calls = stream::iter(calls).buffer_unordered(AT_ONCE);
    let mut delivered = Delivered::default();
    while let Some((ending, first_token)) = calls.next().await {
        *delivered.endings.entry(ending).or_default() += 1;
        delivered.first_tokens.extend(first_token);
        bar.inc(1);
    }
    delivered.first_tokens.sort_unstable();
    bar.finish();
    if bar.is_hidden() {
        let took = began.elapsed().as_millis();
        println!("{name}: {CALLS} calls in {took} ms");
    }
    Ok(delivered)
}

/// One call as its user sees it: how it ended, and when the first token came.
async fn call(model: impl LlmService, streamed: bool) -> (String, Option<Duration>) {
    let mut request = LlmRequest::chat("keep-1", [Message::user("What is a donjon?")]);
    if streamed {
        request = request.streamed();
    }
    let (began, mut shown, mut first_token) = (Instant::now(), String::new(), None);
    let whole = timeout(USER_LEAVES_AFTER, async {
        match model.oneshot(request).await.map_err(Into::into)?.body {
            Body::Complete(answer) => shown.extend(answer.as_chat().map(|chat| chat.first_text())),
            Body::Stream(mut chunks) => {
                while let Some(chunk) = chunks.try_next().await? {
                    if let Some(text) = chunk.text() {
                        first_token.get_or_insert_with(|| began.elapsed());
                        shown.push_str(text);
                    }
                }
            }
        }
        Ok::<_, LlmError>(())
    });
    let ending = match whole.await {
        Ok(Ok(())) if shown == ANSWER => "answered whole".to_owned(),
        Ok(Ok(())) => "answered short, and not told".to_owned(),
        Ok(Err(error)) if shown.is_empty() => format!("error: {}", error.kind()),
        Ok(Err(error)) => format!("cut after the first token: {}", error.kind()),
        Err(_) => "unfinished when the user left".to_owned(),
    };
    (ending, first_token)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
