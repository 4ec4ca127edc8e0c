//! Many calls to targets whose faults come and go.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon::{Preset, failover::Resume};
use donjon_testkit::upstream::{Failure, Script, Upstream};
use tokio::time::{Instant, sleep};

use super::{
    faults::{Then, WORDS, faults, words},
    front::{Front, Mode, Reply},
    preset,
};
use crate::{Http, always};

const SOON: Duration = Duration::from_millis(10);

fn good() -> Script {
    Script::words(WORDS)
}

/// An upstream whose `n`th call is answered by `script(n)`.
fn nth<S: Into<Script>>(script: impl Fn(usize) -> S + Send + Sync + 'static) -> Upstream {
    let calls = AtomicUsize::new(0);
    Upstream::builder()
        .respond(move |_| script(calls.fetch_add(1, Relaxed)).into())
        .in_memory()
}

/// So many calls, one `every` so long after the other's end, half of them streamed.
async fn calls(
    preset: Preset<Http>,
    upstreams: &[Upstream],
    n: usize,
    every: Duration,
) -> Vec<Reply> {
    let stack = preset.build().expect("a good configuration");
    let front = Front::new(&stack);
    let mut replies = Vec::with_capacity(n);
    for call in 0..n {
        replies.push(front.ask(Mode::ALL[call % 2]).await);
        sleep(every).await;
    }
    for upstream in upstreams {
        upstream.wait_for(|seen| seen.in_progress == 0).await;
    }
    replies
}

fn whole(replies: &[Reply]) -> usize {
    let whole = replies.iter().filter(|reply| reply.is_whole(&words(WORDS)));
    whole.count()
}

#[tokio::test(start_paused = true)]
async fn a_target_that_flaps_costs_nobody_an_answer() {
    let down: [fn() -> Script; 3] = [
        Script::reset,
        || Failure::server_error().into(),
        || Failure::overloaded().into(),
    ];
    for down in down {
        for period in [1, 2, 5, 20] {
            let flapping = nth(move |n| if n / period % 2 == 0 { down() } else { good() });
            let upstreams = [flapping, always(good())];
            let replies = calls(preset(&upstreams), &upstreams, 60, SOON).await;
            assert_eq!(whole(&replies), 60, "{period}");
            let attempts: usize = upstreams.iter().map(Upstream::count).sum();
            assert!(attempts <= 60 * 4, "{attempts}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn targets_that_flap_in_turns_serve_together() {
    let began = Instant::now();
    let of = move |own: u64| {
        nth(move |_| match began.elapsed().as_secs() % 2 == own {
            true => Failure::server_error().into(),
            false => good(),
        })
    };
    let upstreams = [of(0), of(1)];
    // Half of their calls fail, which is enough to open both circuits: then nobody would be asked.
    let preset = preset(&upstreams).breaker(None);
    let replies = calls(preset, &upstreams, 100, Duration::from_millis(300)).await;
    assert_eq!(whole(&replies), 100);
}

#[tokio::test(start_paused = true)]
async fn a_dead_target_is_hardly_asked_any_more() {
    let upstreams = [always(Script::reset()), always(good())];
    let replies = calls(preset(&upstreams), &upstreams, 200, SOON).await;
    assert_eq!(whole(&replies), 200);
    // Its circuit opens.
    assert!(upstreams[0].count() < 60, "{}", upstreams[0].count());
    let longest = replies[150..].iter().map(|reply| reply.ended_after).max();
    assert!(longest.expect("there are some").as_millis() < 100);
}

#[tokio::test(start_paused = true)]
async fn a_limited_target_is_passed_over_until_its_hint_is_over() {
    let limited = nth(|n| match n % 10 {
        9 => Script::from(Failure::rate_limited()).retry_after(30),
        _ => good(),
    });
    let upstreams = [limited, always(good())];
    let replies = calls(preset(&upstreams), &upstreams, 200, SOON).await;
    assert_eq!(whole(&replies), 200);
    let longest = replies.iter().map(|reply| reply.ended_after).max();
    assert!(
        longest.expect("there are some").as_secs() < 2,
        "nobody waits"
    );
}

#[tokio::test(start_paused = true)]
async fn in_any_weather_an_answer_is_whole_or_says_that_it_is_not() {
    let cuts: Vec<_> = faults()
        .iter()
        .filter_map(|fault| match fault.then(Mode::Streamed) {
            Then::Shown(shown) => Some(words(shown)),
            _ => None,
        })
        .collect();
    for resumed in [false, true] {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(7)));
        let storm = || {
            let (all, random) = (faults(), random.clone());
            nth(move |_| {
                let n = random.lock().expect("not poisoned").usize(..all.len());
                (all[n].script)()
            })
        };
        let upstreams = [storm(), storm(), always(good())];
        let preset = preset(&upstreams).breaker(None);
        let preset = preset.resume(resumed.then(Resume::new));
        let replies = calls(preset, &upstreams, 400, SOON).await;
        let mut seen = [0; 3];
        for (call, reply) in replies.iter().enumerate() {
            let cut = call % 2 == 1 && cuts.iter().any(|shown| reply.is_cut(shown));
            let sort = [reply.is_whole(&words(WORDS)), cut, reply.is_error(400)];
            let which = sort.iter().position(|is| *is);
            seen[which.unwrap_or_else(|| panic!("{reply:?}"))] += 1;
            assert!(reply.ended_after.as_secs() < 120);
        }
        // A stream that is continued reaches the good one in the end.
        let few = if resumed { seen[1] == 0 } else { seen[1] > 20 };
        assert!(seen[0] > 200 && few && seen[2] > 20, "{seen:?}");
        let attempts: usize = upstreams.iter().map(Upstream::count).sum();
        assert!(attempts <= 400 * 5);
    }
}
