//! tower's own layers. None of them looks into a response, so a stream costs nothing with them.

use std::future::Ready;
use std::time::Duration;

use donjon_benches::meter::Row;
use tower::limit::{ConcurrencyLimit, RateLimit, rate::Rate};
use tower::load_shed::LoadShed;
use tower::retry::{Policy, Retry};
use tower::timeout::Timeout;

use crate::leaf::{LEAF, model, request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::above(LEAF, "tower timeout")
            .unary(|pending| Timeout::new(model(pending), LONG), request),
        Row::above(LEAF, "tower concurrency limit").unary(
            |pending| ConcurrencyLimit::new(model(pending), MANY),
            request,
        ),
        Row::above(LEAF, "tower retry")
            .unary(|pending| Retry::new(Never::Keeps, model(pending)), request),
        Row::above(LEAF, "tower retry, keeping no request").unary(
            |pending| Retry::new(Never::KeepsNothing, model(pending)),
            request,
        ),
        // Neither `Clone` nor shareable without a buffer: one task only.
        Row::above(LEAF, "tower rate limit").unary_alone(
            |pending| RateLimit::new(model(pending), Rate::new(u64::MAX, LONG)),
            request,
        ),
        Row::above(LEAF, "tower load shed").unary(|pending| LoadShed::new(model(pending)), request),
        Row::above(LEAF, "tower timeout, retry, concurrency limit").unary(
            |pending| {
                Timeout::new(
                    Retry::new(Never::Keeps, ConcurrencyLimit::new(model(pending), MANY)),
                    LONG,
                )
            },
            request,
        ),
    ]
}

const LONG: Duration = Duration::from_secs(3_600);
const MANY: usize = 1_024;

/// A policy that never retries.
#[derive(Clone, Copy)]
enum Never {
    /// Keeps a copy of the request until the answer is there, as a policy that might retry must.
    Keeps,
    /// Keeps none: what tower's retry costs by itself.
    KeepsNothing,
}

impl<R: Clone, T, E> Policy<R, T, E> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut R, _: &mut Result<T, E>) -> Option<Self::Future> {
        None
    }

    fn clone_request(&mut self, request: &R) -> Option<R> {
        match self {
            Self::Keeps => Some(request.clone()),
            Self::KeepsNothing => None,
        }
    }
}
