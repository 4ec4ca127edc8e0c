//! What a decision of a rate limit costs in processor time: with one and two threads, on keys of their own and on one, and with ten
//! and a million keys; beside governor in the same run.
//!
//! `cargo bench -p donjon-benches --bench limits -- [--rounds N] [--keys N] [PART-OF-A-NAME …]`. Each figure is the median of its rounds, which go round-robin over
//! all rows. Ours charges, and settles with what was charged.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::hint::{black_box, spin_loop};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use donjon_benches::args::Args;
use donjon_benches::clock;
use donjon_core::{Key, KeyBy};
use donjon_rate_limit::{Limit, RateLimitHandle, RateLimitLayer, Weight};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota};

/// Enough that the threads are at it together nearly all the time.
const CALLS: usize = 1_000_000;

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let rounds: usize = args.or("rounds", if args.flag("bench") { 21 } else { 1 })?;
    let many: usize = args.or("keys", if args.flag("bench") { 1_000_000 } else { 1_000 })?;
    let mut rows = rows(many);
    if !args.words().is_empty() {
        rows.retain(|row| args.words().iter().any(|part| row.name.contains(part)));
    }
    for _ in 0..rounds {
        for row in &mut rows {
            let took = row.run();
            row.took.push(took);
        }
    }
    println!("{:<40} {:>10} {:>14}", "", "ns a call", "calls a µs");
    for row in &mut rows {
        row.took.sort_unstable();
        let took = row.took[row.took.len() / 2].as_secs_f64() * 1e9;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (calls, threads) = (CALLS as f64, row.threads as f64);
        // Where each thread has a processor of its own.
        let each = took / calls / threads;
        println!(
            "{:<40} {each:>10.1} {:>14.2}",
            row.name,
            threads * 1e3 / each
        );
    }
    Ok(())
}

struct Row {
    name: String,
    threads: usize,
    /// Makes the call of this number on this thread.
    call: Box<dyn Fn(usize, usize) + Send + Sync>,
    took: Vec<Duration>,
}

impl Row {
    /// The processor time of all threads together.
    fn run(&self) -> Duration {
        let barrier = Barrier::new(self.threads + 1);
        let ready = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..self.threads {
                let (barrier, ready, call) = (&barrier, &ready, &self.call);
                scope.spawn(move || {
                    // Those that block in a barrier leave it one after another.
                    ready.fetch_add(1, Relaxed);
                    while ready.load(Relaxed) < self.threads {
                        spin_loop();
                    }
                    for number in 0..CALLS {
                        call(thread, number);
                    }
                    barrier.wait();
                });
            }
            let start = clock::cpu();
            barrier.wait();
            clock::cpu() - start
        })
    }
}

fn rows(many: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, threads, call: Box<dyn Fn(usize, usize) + Send + Sync>| {
        rows.push(Row {
            name: format!("{name}, {threads} thread(s)"),
            threads,
            call,
            took: Vec::new(),
        });
    };
    for threads in [1, 2] {
        add("donjon", threads, ours(&direct(), |_, _| Key::Global));
        add("governor", threads, {
            let limiter = DefaultDirectRateLimiter::direct(quota());
            Box::new(move |_, _| assert!(black_box(limiter.check()).is_ok()))
        });
        for (name, keys, hot) in [
            ("own key", 2, false),
            ("one hot key", 1, true),
            ("10 keys", 10, false),
            ("many keys", many, false),
        ] {
            let names: Arc<[Arc<str>]> =
                (0..keys).map(|n| format!("tenant-{n:08}").into()).collect();
            // Each thread has keys of its own, visited in a scattered order.
            let pick = move |thread: usize, number: usize| match (hot, keys) {
                (true, _) => 0,
                (false, 2) => thread,
                (false, _) => (number.wrapping_mul(2_654_435_761) + thread * keys / 2) % keys,
            };
            let bare = names.clone();
            add(
                &format!("nobody, {name}"),
                threads,
                Box::new(move |thread, number| drop(black_box(bare[pick(thread, number)].clone()))),
            );
            let keys = names.clone();
            let named = names.clone();
            let handle = keyed(names.len());
            for name in &*names {
                drop(handle.try_acquire(&Key::Name(name.clone()), &Weight::request()));
            }
            add(
                &format!("donjon, {name}"),
                threads,
                ours(&handle, move |thread, number| {
                    Key::Name(named[pick(thread, number)].clone())
                }),
            );
            let limiter = DefaultKeyedRateLimiter::<Arc<str>>::keyed(quota());
            for name in &*names {
                assert!(limiter.check_key(name).is_ok());
            }
            if keys.len() == 10 {
                let handle = keyed(10_000);
                let number = AtomicUsize::new(0);
                add(
                    "donjon, new keys, 10,000 kept",
                    threads,
                    ours(&handle, move |_, _| {
                        Key::name(number.fetch_add(1, Relaxed).to_string())
                    }),
                );
            }
            add(
                &format!("governor, {name}"),
                threads,
                Box::new(move |thread, number| {
                    let key = names[pick(thread, number)].clone();
                    assert!(black_box(limiter.check_key(&key)).is_ok());
                }),
            );
        }
    }
    rows
}

fn ours(
    handle: &RateLimitHandle,
    key: impl Fn(usize, usize) -> Key + Send + Sync + 'static,
) -> Box<dyn Fn(usize, usize) + Send + Sync> {
    let handle = handle.clone();
    let weight = Weight::request();
    Box::new(move |thread, number| {
        let held = handle.try_acquire(&key(thread, number), &weight);
        drop(black_box(held.expect("the limit is never reached")));
    })
}

fn direct() -> RateLimitHandle {
    let limit = Limit::requests(u64::MAX);
    let layer = RateLimitLayer::builder().limit(limit).build();
    layer.expect("a good configuration").handle()
}

fn keyed(keys: usize) -> RateLimitHandle {
    let limit = Limit::requests(u64::MAX);
    let layer = RateLimitLayer::builder().limit(limit).key_by(KeyBy::Tenant);
    let layer = layer.max_keys(keys.max(10)).build();
    layer.expect("a good configuration").handle()
}

fn quota() -> Quota {
    Quota::per_second(NonZeroU32::MAX)
}
