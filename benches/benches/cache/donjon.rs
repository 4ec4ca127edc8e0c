//! Donjon's cache and single flight.

use std::future::{Ready, ready};

use donjon_cache::flight::{Flights, SingleFlightLayer};
use donjon_cache::{CacheBuilder, CacheLayer, Strategy};
use donjon_core::{
    Body, ChatCompletion, Chunk, Completion, FinishReason, Head, LlmError, LlmRequest, LlmResponse,
    ResponseStream,
};
use futures_util::stream;
use tower::{Layer, Service, service_fn};

use crate::row::{Row, known, new};

/// How many chunks a stream has before its last.
const CHUNKS: usize = 31;

pub(crate) fn rows(size: (&str, usize)) -> Vec<Row> {
    let bytes = size.1;
    let streamed = known(bytes);
    let alone = |builder: CacheBuilder| builder.single_flight(None);
    let flights = SingleFlightLayer::new(Flights::default());
    vec![
        Row::service("leaf", size, model(), known(bytes), whole),
        Row::service("donjon hit", size, cached(builder()), known(bytes), whole),
        Row::service(
            "donjon hit, a stream of 32 chunks",
            size,
            cached(builder()),
            move || streamed().streamed(),
            drain,
        ),
        Row::service("donjon miss", size, cached(builder()), new(bytes), whole),
        Row::service(
            "donjon miss, no single flight",
            size,
            cached(alone(builder())),
            new(bytes),
            whole,
        ),
        Row::service(
            "donjon single flight, alone in it",
            size,
            flights.layer(model()),
            new(bytes),
            whole,
        ),
    ]
}

/// So small that entries make room for others all the time.
fn builder() -> CacheBuilder {
    CacheLayer::builder()
        .strategy(Strategy::Aggressive)
        .max_bytes(4 << 20)
        .max_entry_bytes(64 << 10)
        .single_flight(Flights::default())
}

fn cached(
    builder: CacheBuilder,
) -> impl Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone {
    builder
        .build()
        .expect("a good configuration")
        .layer(model())
}

fn model() -> impl Service<
    LlmRequest,
    Response = LlmResponse,
    Error = LlmError,
    Future = Ready<Result<LlmResponse, LlmError>>,
> + Clone
+ Send {
    let completion: Completion = ChatCompletion::text("gpt-4o-mini", "The keep.").into();
    service_fn(move |mut request: LlmRequest| {
        request.call.dispatch();
        let head = Head::new(request.model().clone());
        ready(Ok(if request.is_stream() {
            let texts = (0..CHUNKS).map(|_| Chunk::text(" keep"));
            let chunks = texts.chain([Chunk::finish(FinishReason::Stop)]).map(Ok);
            LlmResponse::stream(head, ResponseStream::new(1, stream::iter(chunks)))
        } else {
            LlmResponse::complete(head, completion.clone())
        }))
    })
}

async fn whole(answer: LlmResponse) -> Completion {
    match answer.body {
        Body::Complete(whole) => whole,
        Body::Stream(_) => panic!("a stream"),
    }
}

async fn drain(answer: LlmResponse) -> usize {
    let Body::Stream(mut stream) = answer.body else {
        panic!("not a stream");
    };
    let mut chunks = 0;
    while let Some(chunk) = stream.next_chunk().await {
        std::hint::black_box(chunk).expect("no error");
        chunks += 1;
    }
    assert_eq!(chunks, CHUNKS + 1);
    chunks
}
