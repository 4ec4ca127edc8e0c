//! What single flight costs its members, beside tower-resilience's coalesce in the same run.
//!
//! `cargo bench -p donjon-benches --bench flight -- [--rounds N] [PART-OF-A-NAME …]`. The call takes two polls. The leader's row is a
//! call that nobody joins, from asking to its answer, the leaf included. The follower's is what each of sixteen adds who join it, from
//! asking to their answers. Each figure is the median of its rounds, in processor time, which go round-robin over all rows. Both find
//! their key by the same hash of the whole request.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use donjon_benches::alloc::{self, Counting};
use donjon_benches::args::Args;
use donjon_benches::clock;
use donjon_cache::flight::SingleFlightLayer;
use donjon_cache::{CacheKey, Scope};
use donjon_core::{ChatCompletion, Completion, Head, LlmError, LlmRequest, LlmResponse, Message};
use tower::{Layer, Service};
use tower_resilience::coalesce::CoalesceLayer;

#[global_allocator]
static ALLOC: Counting = Counting;

const GROUPS: u32 = 2_000;
const FOLLOWERS: usize = 16;

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let rounds: usize = args.or("rounds", if args.flag("bench") { 31 } else { 1 })?;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build();
    let _entered = runtime.as_ref().map_err(ToString::to_string)?.enter();
    let mut rows = vec![
        row("no layer", Leaf::whole(), 0),
        row("donjon single flight", ours(), FOLLOWERS),
        row("tower-resilience coalesce", theirs(), FOLLOWERS),
    ];
    if !args.words().is_empty() {
        rows.retain(|row| args.words().iter().any(|part| row.name.contains(part)));
    }
    for _ in 0..rounds {
        for row in &mut rows {
            for at in 0..row.groups.len() {
                let took = row.time(at);
                row.groups[at].took.push(took);
            }
        }
    }
    println!(
        "{:<28} {:>10} {:>12} {:>12} {:>14}",
        "", "leader ns", "allocations", "follower ns", "allocations"
    );
    for row in &mut rows {
        let (leader, leads) = row.figures(0);
        print!("{:<28} {leader:>10.0} {leads:>12.1}", row.name);
        if row.groups.len() > 1 {
            let (all, made) = row.figures(1);
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let followers = FOLLOWERS as f64;
            let (each, makes) = ((all - leader) / followers, (made - leads) / followers);
            print!(" {each:>12.0} {makes:>14.1}");
        }
        println!();
    }
    Ok(())
}

/// A leader with no followers, and one with some.
struct Row {
    name: &'static str,
    groups: Vec<Group>,
}

struct Group {
    call: Box<dyn Fn()>,
    took: Vec<f64>,
}

impl Row {
    fn time(&self, at: usize) -> f64 {
        let began = clock::cpu();
        for _ in 0..GROUPS {
            (self.groups[at].call)();
        }
        (clock::cpu() - began).as_secs_f64() * 1e9 / f64::from(GROUPS)
    }

    /// Nanoseconds and allocations of a group.
    fn figures(&mut self, at: usize) -> (f64, f64) {
        let group = &mut self.groups[at];
        group.took.sort_by(f64::total_cmp);
        let median = group.took[group.took.len() / 2];
        alloc::start();
        for _ in 0..100 {
            (group.call)();
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let made = alloc::stop() as f64;
        (median, made / 100.0)
    }
}

fn row<S>(name: &'static str, service: S, followers: usize) -> Row
where
    S: Service<LlmRequest> + Clone + 'static,
{
    let request = LlmRequest::chat("m", [Message::user("What is a donjon, and who needs one?")]);
    let group = |members: usize| {
        let (service, request) = (service.clone(), request.clone());
        let call = move || fly(&service, &request, members);
        Group {
            call: Box::new(call),
            took: Vec::new(),
        }
    };
    let mut groups = vec![group(1)];
    if followers > 0 {
        groups.push(group(1 + followers));
    }
    Row { name, groups }
}

/// All ask, then all are polled until they have their answers.
fn fly<S: Service<LlmRequest> + Clone>(service: &S, request: &LlmRequest, members: usize) {
    let mut cx = Context::from_waker(Waker::noop());
    LANDED.set(false);
    let mut leader = std::pin::pin!(ask(service, request));
    assert!(leader.as_mut().poll(&mut cx).is_pending());
    // One allocation for all of them, in which they lie without a box each.
    let followers = (1..members).map(|_| ask(service, request));
    let mut followers: Pin<Box<[_]>> = followers.collect::<Box<[_]>>().into();
    each(followers.as_mut(), |follower| {
        assert!(follower.poll(&mut cx).is_pending());
    });
    LANDED.set(true);
    WAKER.take().expect("the leader waits").wake();
    assert!(black_box(leader.poll(&mut cx)).is_ready());
    each(followers.as_mut(), |follower| {
        assert!(black_box(follower.poll(&mut cx)).is_ready());
    });
}

fn ask<S: Service<LlmRequest> + Clone>(service: &S, request: &LlmRequest) -> S::Future {
    let mut cx = Context::from_waker(Waker::noop());
    let mut service = service.clone();
    assert!(service.poll_ready(&mut cx).is_ready());
    service.call(request.clone())
}

fn each<F>(all: Pin<&mut [F]>, mut what: impl FnMut(Pin<&mut F>)) {
    #[expect(unsafe_code, reason = "there is no other way into a pinned slice")]
    // SAFETY: nothing is moved out of the slice, and each is handed on pinned.
    for one in unsafe { all.get_unchecked_mut() } {
        #[expect(unsafe_code, reason = "as above")]
        // SAFETY: as above.
        what(unsafe { Pin::new_unchecked(one) });
    }
}

fn ours() -> impl Service<LlmRequest> + Clone + 'static {
    SingleFlightLayer::default().layer(Leaf::whole())
}

fn theirs() -> impl Service<LlmRequest> + Clone + 'static {
    let key = |request: &LlmRequest| CacheKey::of(request, Scope::Tenant);
    // Its answers must be clones of one: the parts of ours are.
    CoalesceLayer::new(key).layer(Leaf {
        make: |head, completion| (head, completion),
        answer: answer(),
    })
}

thread_local! {
    /// Whether the call that waits has its answer.
    static LANDED: Cell<bool> = const { Cell::new(false) };
    /// Of the call that waits.
    static WAKER: Cell<Option<Waker>> = const { Cell::new(None) };
}

/// A model that answers when it is let.
struct Leaf<R> {
    make: fn(Head, Completion) -> R,
    answer: (Head, Completion),
}

impl<R> Clone for Leaf<R> {
    fn clone(&self) -> Self {
        Self {
            make: self.make,
            answer: self.answer.clone(),
        }
    }
}

fn answer() -> (Head, Completion) {
    (
        Head::new("m"),
        ChatCompletion::text("m", "A keep; nobody.").into(),
    )
}

impl Leaf<LlmResponse> {
    fn whole() -> Self {
        let make = |head, completion: Completion| LlmResponse::complete(head, completion);
        Self {
            make,
            answer: answer(),
        }
    }
}

impl<R> Service<LlmRequest> for Leaf<R> {
    type Response = R;
    type Error = LlmError;
    type Future = Flying<R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Flying<R> {
        Flying { leaf: self.clone() }
    }
}

struct Flying<R> {
    leaf: Leaf<R>,
}

impl<R> Future for Flying<R> {
    type Output = Result<R, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !LANDED.get() {
            WAKER.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let (head, completion) = self.leaf.answer.clone();
        Poll::Ready(Ok((self.leaf.make)(head, completion)))
    }
}
