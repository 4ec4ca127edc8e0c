//! A row: so many calls of something, and what they cost.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use donjon_benches::{alloc, clock};
use donjon_core::{Identity, LlmRequest, Message};
use tokio::runtime::Runtime;
use tower::Service;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    Time,
    Allocations,
}

type Batch = Box<dyn FnMut(Take, &Runtime) -> f64>;

pub(crate) struct Row {
    name: String,
    hashed: Option<usize>,
    batch: Batch,
}

impl Row {
    /// Makes the requests of a batch, and then calls `each` with one after the other.
    pub(crate) fn new<R, T, F>(
        name: &str,
        (size, bytes): (&str, usize),
        request: impl Fn() -> R + 'static,
        mut each: impl FnMut(R) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = T>,
        R: 'static,
        T: 'static,
    {
        let calls = if bytes > 10_000 { 32 } else { 256 };
        let batch = move |take, runtime: &Runtime| {
            let requests: Vec<R> = (0..calls).map(|_| request()).collect();
            runtime.block_on(async {
                if take == Take::Allocations {
                    alloc::start();
                }
                let began = clock::cpu();
                for request in requests {
                    std::hint::black_box(each(request).await);
                }
                let took = clock::cpu() - began;
                let all = match take {
                    Take::Time => took.as_secs_f64() * 1e9,
                    Take::Allocations => {
                        f64::from(u32::try_from(alloc::stop()).expect("a small number"))
                    }
                };
                all / f64::from(calls)
            })
        };
        Self {
            name: format!("{size}: {name}"),
            hashed: None,
            batch: Box::new(batch),
        }
    }

    /// The same of a service. It is readied before each call.
    pub(crate) fn service<S, R, T>(
        name: &str,
        size: (&str, usize),
        service: S,
        request: impl Fn() -> R + 'static,
        read: fn(S::Response) -> T,
    ) -> Self
    where
        S: Service<R, Response: 'static, Error: std::fmt::Debug> + Clone + 'static,
        T: Future + 'static,
        R: 'static,
    {
        let cell = std::rc::Rc::new(std::cell::RefCell::new(service));
        Self::new(name, size, request, move |request| {
            let cell = cell.clone();
            async move {
                let ready = poll_fn(|cx| cell.borrow_mut().poll_ready(cx)).await;
                ready.expect("it is ready");
                let call = cell.borrow_mut().call(request);
                read(call.await.expect("an answer")).await;
            }
        })
    }

    /// How many bytes of text go through a hash.
    pub(crate) fn hashing(mut self, bytes: usize) -> Self {
        self.hashed = Some(bytes);
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    pub(crate) fn hashed(&self) -> Option<f64> {
        self.hashed.map(|bytes| bytes as f64)
    }

    pub(crate) fn take(&mut self, take: Take, runtime: &Runtime) -> f64 {
        (self.batch)(take, runtime)
    }
}

/// The text of a prompt.
pub(crate) fn text(bytes: usize) -> String {
    "Which tower of a castle is the donjon, and why? "
        .chars()
        .cycle()
        .take(bytes)
        .collect()
}

/// What is asked again and again.
pub(crate) fn known(bytes: usize) -> impl Fn() -> LlmRequest + Clone {
    let request = chat(text(bytes));
    move || request.clone()
}

/// What nobody asked before.
pub(crate) fn new(bytes: usize) -> impl Fn() -> LlmRequest + Clone {
    move || chat(text(bytes) + &number().to_string())
}

/// Never the same twice.
pub(crate) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

fn chat(text: String) -> LlmRequest {
    LlmRequest::chat("gpt-4o-mini", [Message::user(text)])
        .on_behalf_of(Identity::builder().tenant("acme").build())
}
