//! The pool, with slots that are never used up, beside the concurrency limits of its peers.

use donjon_benches::meter::Row;
use donjon_core::KeyBy;
use donjon_pool::{Aimd, Gradient, PoolBuilder, PoolLayer};
use tower::Layer;

use crate::leaf::{LEAF, model, open, request, streamed_request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("fixed", || PoolLayer::builder().size(MANY)).beside("tower concurrency limit"),
        row("AIMD", || {
            PoolLayer::builder().aimd(Aimd::new().initial(MANY).between(1..=MANY))
        })
        .beside("tower-resilience bulkhead"),
        row("gradient", || {
            PoolLayer::builder().gradient(Gradient::new().initial(MANY).between(1..=MANY))
        })
        .beside("tower-resilience bulkhead"),
        row("by model", || {
            PoolLayer::builder().size(MANY).key_by(KeyBy::Model)
        })
        .beside("liter-llm in-flight limit"),
    ]
}

const MANY: u32 = 1_024;

fn row(name: &str, build: impl Fn() -> PoolBuilder + Clone + 'static) -> Row {
    let make = move |pending| {
        let layer = build().build().expect("a good configuration");
        layer.layer(model(pending))
    };
    let streamed = make.clone();
    Row::above(LEAF, &format!("donjon pool, {name}"))
        .unary(make, request)
        .streamed(move || streamed(false), streamed_request, open)
}
