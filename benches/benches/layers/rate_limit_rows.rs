//! Donjon's rate limit, beside governor's decisions in front of the same leaf. Limits are never reached.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use donjon_benches::meter::Row;
use donjon_core::{Identity, KeyBy, LlmError, LlmRequest, LlmResponse};
use donjon_rate_limit::{Limit, RateLimitBuilder, RateLimitLayer};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota};
use tower::{Layer, Service};

use crate::leaf::{LEAF, Model, model, request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("donjon rate limit", request, requests).beside("governor"),
        row("donjon rate limit, learning", request, || {
            requests().learn(true)
        })
        .beside("tower rate limit"),
        row("donjon rate limit, requests and tokens", request, || {
            requests().limit(Limit::tokens(u64::MAX))
        })
        .beside("tower-resilience rate limiter"),
        row("donjon rate limit, a key for each task", own_key, keyed)
            .beside("governor, a key for each task"),
        row("donjon rate limit, one key of many", request, keyed)
            .beside("governor, one key of many"),
        Row::above(LEAF, "governor").unary(
            |pending| Direct {
                inner: model(pending),
                limiter: Arc::new(DefaultDirectRateLimiter::direct(quota())),
            },
            request,
        ),
        Row::above(LEAF, "governor, a key for each task").unary(governor_keyed, own_key),
        Row::above(LEAF, "governor, one key of many").unary(governor_keyed, request),
    ]
}

/// More than is ever asked for.
fn requests() -> RateLimitBuilder {
    RateLimitLayer::builder()
        .limit(Limit::requests(u64::MAX))
        .learn(false)
}

fn keyed() -> RateLimitBuilder {
    requests().key_by(KeyBy::Tenant)
}

fn row(name: &str, ask: fn() -> LlmRequest, build: fn() -> RateLimitBuilder) -> Row {
    let make = move |pending| {
        let layer = build().build().expect("a good configuration");
        layer.layer(model(pending))
    };
    Row::above(LEAF, name).unary(make, ask)
}

/// A request of a tenant of its own.
fn own_key() -> LlmRequest {
    static TENANTS: AtomicU64 = AtomicU64::new(0);
    let tenant = format!("tenant-{}", TENANTS.fetch_add(1, Relaxed) % 1_000);
    request().on_behalf_of(Identity::builder().tenant(tenant).build())
}

fn quota() -> Quota {
    Quota::per_second(NonZeroU32::MAX)
}

/// governor's decision before a call.
#[derive(Clone)]
struct Direct {
    inner: Model,
    limiter: Arc<DefaultDirectRateLimiter>,
}

#[derive(Clone)]
struct Keyed {
    inner: Model,
    limiter: Arc<DefaultKeyedRateLimiter<Arc<str>>>,
}

fn governor_keyed(pending: bool) -> Keyed {
    Keyed {
        inner: model(pending),
        limiter: Arc::new(DefaultKeyedRateLimiter::keyed(quota())),
    }
}

impl Service<LlmRequest> for Direct {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = <Model as Service<LlmRequest>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        assert!(self.limiter.check().is_ok(), "the limit is never reached");
        self.inner.call(request)
    }
}

impl Service<LlmRequest> for Keyed {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = <Model as Service<LlmRequest>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        let tenant = request.identity().tenant.as_ref().expect("a tenant");
        assert!(
            self.limiter.check_key(tenant).is_ok(),
            "the limit is never reached"
        );
        self.inner.call(request)
    }
}
