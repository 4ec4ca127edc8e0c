//! Choosing among 3, 30 and 300 targets, beside tower's balancer over as many services. A row is the whole layer: what choosing
//! costs is what it has above `donjon failover, two targets`, which chooses nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use donjon_benches::meter::Row;
use donjon_core::{KeyBy, NanoUsd};
use donjon_failover::{
    Failover, HealthPolicy, LeastBusy, LeastLatency, LowestCost, Resume, RoundRobin, Route, Sticky,
    Target, Weighted,
};
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PendingRequests};

use crate::leaf::{LEAF, Model, model, open, request, streamed_request};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("health, 3", 3, || None, true),
        row("round robin, 3", 3, || boxed(RoundRobin::new()), false),
        row("least busy, 3", 3, || boxed(LeastBusy::new()), false),
        row("lowest cost, 3", 3, || boxed(prices()), false),
    ];
    rows.extend(resume_rows());
    for count in [3, 30, 300] {
        let peer = PEERS[usize::from(count > 3) + usize::from(count > 30)];
        rows.push(
            row(
                &format!("weighted, {count}"),
                count,
                || boxed(Weighted),
                false,
            )
            .beside(peer),
        );
        rows.push(
            row(
                &format!("least latency, {count}"),
                count,
                || boxed(LeastLatency),
                false,
            )
            .beside(peer),
        );
        rows.push(
            row(
                &format!("sticky, {count}"),
                count,
                || boxed(Sticky::by(KeyBy::Tenant)),
                false,
            )
            .beside(peer),
        );
        rows.push(
            Row::above(LEAF, peer).unary_alone(move |pending| balance(count, pending), request),
        );
    }
    rows
}

const PEERS: [&str; 3] = ["tower p2c, 3", "tower p2c, 30", "tower p2c, 300"];

fn row(
    name: &str,
    count: usize,
    route: impl Fn() -> Option<Box<dyn Route>> + Clone + 'static,
    health: bool,
) -> Row {
    let make = move |pending| {
        let names = (0..count).map(|at| format!("target-{at}"));
        let targets = names.map(|name| Target::new(name.as_str(), model(pending)));
        let mut builder = Failover::builder().targets(targets);
        if let Some(route) = route() {
            builder = builder.route(Boxed(route));
        }
        if health {
            builder = builder.health(HealthPolicy::new());
        }
        builder.build().expect("a good configuration")
    };
    let streamed = make.clone();
    Row::above(LEAF, &format!("donjon failover, {name}"))
        .unary(make, request)
        .streamed(move || streamed(false), streamed_request, open)
}

/// Two targets, streams continued or not: a whole call, a chunk, and what it costs that a stream begins.
fn resume_rows() -> [Row; 5] {
    let two = |resume: Option<Resume>| {
        let targets = ["main", "spare"].map(|name| Target::new(name, model(false)));
        let builder = Failover::builder().targets(targets).resume(resume);
        builder.build().expect("a good configuration")
    };
    let (off, on) = (move || two(None), move || two(Some(Resume::new())));
    let resumes = Row::above(LEAF, "donjon failover, resume on");
    let keeps = Row::above(LEAF, "donjon failover, resume off");
    [
        keeps
            .unary_alone(move |_| off(), request)
            .streamed(off, streamed_request, open),
        resumes
            .unary_alone(move |_| on(), request)
            .streamed(on, streamed_request, open),
        Row::leaf(OPENED).unary_alone(model, streamed_request),
        Row::above(OPENED, "donjon failover, resume off, a stream begins")
            .unary_alone(move |_| off(), streamed_request),
        Row::above(OPENED, "donjon failover, resume on, a stream begins")
            .unary_alone(move |_| on(), streamed_request),
    ]
}

const OPENED: &str = "leaf, a stream begins";

fn boxed(route: impl Route + 'static) -> Option<Box<dyn Route>> {
    Some(Box::new(route))
}

fn prices() -> impl Route {
    LowestCost::new(
        |target: donjon_core::Name, _: &str, tokens: donjon_core::Estimate| {
            let cheap = i64::from(target.as_str().ends_with('1'));
            let tokens = i64::try_from(tokens.total()).unwrap_or(i64::MAX);
            Some(NanoUsd::from_nanos(tokens.saturating_mul(2 - cheap)))
        },
    )
}

/// One type for all strategies.
struct Boxed(Box<dyn Route>);

impl Route for Boxed {
    fn choose<'a>(
        &self,
        candidates: donjon_failover::Candidates<'a>,
        request: &donjon_core::LlmRequest,
    ) -> Option<donjon_failover::TargetView<'a>> {
        self.0.choose(candidates, request)
    }

    fn uses_load(&self) -> bool {
        self.0.uses_load()
    }

    fn uses_latency(&self) -> bool {
        self.0.uses_latency()
    }
}

type Member = PendingRequests<Model>;

/// Says once who is there.
struct Members(std::vec::IntoIter<Member>, usize);

impl futures_core::Stream for Members {
    type Item = Result<Change<usize, Member>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.next() {
            Some(member) => {
                self.1 += 1;
                Poll::Ready(Some(Ok(Change::Insert(self.1, member))))
            }
            None => Poll::Pending,
        }
    }
}

fn balance(count: usize, pending: bool) -> Balance<Members, donjon_core::LlmRequest> {
    let member = |_| PendingRequests::new(model(pending), CompleteOnResponse::default());
    let members: Vec<_> = (0..count).map(member).collect();
    Balance::new(Members(members.into_iter(), 0))
}
