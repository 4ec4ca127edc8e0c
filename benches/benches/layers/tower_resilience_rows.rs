//! tower-resilience, its layers in their default modes with limits that are never reached.

use std::time::Duration;

use donjon_benches::meter::Row;
use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower::Layer;
use tower_resilience::bulkhead::BulkheadLayer;
use tower_resilience::circuitbreaker::CircuitBreakerLayer;
use tower_resilience::ratelimiter::RateLimiterLayer;
use tower_resilience::retry::RetryLayer;
use tower_resilience::timelimiter::{FixedTimeout, TimeLimiterLayer};

use crate::leaf::{LEAF, model, request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::above(LEAF, "tower-resilience time limiter")
            .unary(|pending| time_limiter().layer(model(pending)), request),
        Row::above(LEAF, "tower-resilience retry")
            .unary(|pending| retry::<LlmError>().layer(model(pending)), request),
        Row::above(LEAF, "tower-resilience bulkhead")
            .unary(|pending| bulkhead().layer(model(pending)), request),
        Row::above(LEAF, "tower-resilience circuit breaker")
            .unary(|pending| circuit_breaker().layer(model(pending)), request),
        Row::above(LEAF, "tower-resilience rate limiter")
            .unary(|pending| rate_limiter().layer(model(pending)), request),
        Row::above(LEAF, "tower-resilience, these five stacked").unary(
            |pending| {
                let limited = rate_limiter().layer(bulkhead().layer(model(pending)));
                time_limiter().layer(retry().layer(circuit_breaker().layer(limited)))
            },
            request,
        ),
    ]
}

fn time_limiter() -> TimeLimiterLayer<FixedTimeout> {
    TimeLimiterLayer::builder()
        .timeout_duration(Duration::from_secs(3_600))
        .build()
}

fn retry<E: Send + 'static>() -> RetryLayer<LlmRequest, LlmResponse, E> {
    RetryLayer::builder().max_attempts(3).build()
}

fn bulkhead() -> BulkheadLayer {
    BulkheadLayer::builder()
        .max_concurrent_calls(1_024)
        .build()
        .expect("the limit is above zero")
}

fn circuit_breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::builder()
        .build()
        .expect("the defaults are valid")
}

fn rate_limiter() -> RateLimiterLayer {
    RateLimiterLayer::builder()
        .limit_for_period(1_000_000_000)
        .refresh_period(Duration::from_secs(1))
        .build()
        .expect("limit and period are above zero")
}
