//! A store behind the memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use donjon_cache::{CacheBuilder, CacheEvent, CacheKey, Invalidate, Store, StoreFuture, Stored};
use donjon_core::{Heard, LlmRequest, Message, Origin, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::{Instant, sleep};
use tower::Service;

use crate::{SECOND, around, ask, chunks, fails, hear, plain, send, settle, written};

/// A store that can be slow, or broken.
#[derive(Clone, Default)]
struct Shelf {
    held: Arc<Mutex<HashMap<CacheKey, Stored>>>,
    slow: Option<Duration>,
    broken: bool,
}

impl Shelf {
    fn after<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut HashMap<CacheKey, Stored>) -> T + Send + 'static,
    ) -> StoreFuture<T> {
        let this = self.clone();
        Box::pin(async move {
            if let Some(slow) = this.slow {
                sleep(slow).await;
            }
            if this.broken {
                return Err("the shelf is broken".into());
            }
            Ok(work(&mut this.held.lock().expect("no panic")))
        })
    }

    fn len(&self) -> usize {
        self.held.lock().expect("no panic").len()
    }
}

impl Store for Shelf {
    fn get(&self, key: &CacheKey) -> StoreFuture<Option<Bytes>> {
        let key = *key;
        self.after(move |held| held.get(&key).map(|stored| stored.bytes.clone()))
    }

    fn put(&self, key: &CacheKey, answer: Stored) -> StoreFuture<()> {
        let key = *key;
        self.after(move |held| drop(held.insert(key, answer)))
    }

    fn invalidate(&self, which: &Invalidate) -> StoreFuture<()> {
        let which = which.clone();
        self.after(move |held| {
            held.retain(|_, stored| match &which {
                Invalidate::Tenant(tenant) => stored.identity.tenant.as_ref() != Some(tenant),
                _ => false,
            });
        })
    }
}

fn with(shelf: &Shelf) -> CacheBuilder {
    plain()
        .store(shelf.clone())
        .store_timeout(Duration::from_millis(50))
}

#[tokio::test(start_paused = true)]
async fn what_one_process_kept_another_finds() {
    let shelf = Shelf::default();
    let script = Script::words(3)
        .usage(Usage::new(5, 3))
        .tool_call("f", "{}");
    let model = ScriptedLlm::new(script);
    let (one, _) = around(&model, with(&shelf));
    let live = chunks(send(&one, ask("Hi").streamed()).await.expect("a stream")).await;
    settle().await;
    assert_eq!(shelf.len(), 1);
    tokio::time::advance(10 * SECOND).await;
    let clock = donjon_core::WallClock::from_fn({
        let began = Instant::now() - 10 * SECOND;
        move || donjon_core::WallClock::system().now() + began.elapsed()
    });
    let (other, handle) = around(&model, with(&shelf).clock(clock));
    let found = send(&other, ask("Hi").streamed()).await.expect("a stream");
    assert_eq!((found.head.origin, found.head.age), (Origin::Cache, 10));
    assert_eq!(written(&chunks(found).await), written(&live));
    assert_eq!(
        (handle.store_hits(), handle.hits(), handle.misses()),
        (1, 1, 0)
    );
    // From then on it is in memory.
    hear(&other, ask("Hi")).await;
    assert_eq!((handle.store_hits(), handle.hits()), (1, 2));
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_or_fails_costs_no_more_than_it_may() {
    let hangs = Shelf {
        slow: Some(SECOND),
        ..Shelf::default()
    };
    let slow = Shelf {
        slow: Some(Duration::from_millis(100)),
        ..Shelf::default()
    };
    let broken = Shelf {
        broken: true,
        ..Shelf::default()
    };
    for (shelf, most) in [(hangs, 50), (slow, 50), (broken, 0)] {
        let model = ScriptedLlm::new("Hello!");
        let (service, handle) = around(&model, with(&shelf));
        let mut events = handle.events().listen();
        let began = Instant::now();
        assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Upstream);
        let took = began.elapsed();
        assert!(took <= Duration::from_millis(most + 1), "{took:?}");
        // What is written waits for nobody, and nobody for it.
        assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Cache);
        assert_eq!(began.elapsed(), took);
        sleep(SECOND).await;
        let timeouts = if shelf.broken { 0 } else { 2 };
        assert_eq!(
            (handle.store_timeouts(), handle.store_errors()),
            (timeouts, 2 - timeouts)
        );
        let told = std::iter::from_fn(|| events.try_next()).filter(|event| {
            matches!(
                event,
                Heard::Event(CacheEvent::StoreTimedOut { .. } | CacheEvent::StoreFailed { .. })
            )
        });
        assert_eq!(told.count(), 2);
    }
}

/// Whatever a store says, it is an answer or a miss.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_a_miss() {
    let shelf = Shelf::default();
    let model = ScriptedLlm::new(Script::words(2));
    let (service, _) = around(&model, with(&shelf));
    chunks(
        send(&service, ask("Hi").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    settle().await;
    let (key, stored) = {
        let held = shelf.held.lock().expect("no panic");
        let (key, stored) = held.iter().next().expect("kept");
        (*key, stored.clone())
    };
    let mut misses = 0;
    for at in 0..stored.bytes.len() {
        let mut cut = stored.clone();
        let mut bytes = stored.bytes.to_vec();
        bytes.truncate(at);
        cut.bytes = bytes.into();
        let mut odd = stored.clone();
        let mut bytes = stored.bytes.to_vec();
        bytes[at] = bytes[at].wrapping_add(0x81);
        odd.bytes = bytes.into();
        for stored in [cut, odd] {
            shelf.held.lock().expect("no panic").insert(key, stored);
            let (service, handle) = around(&model, with(&shelf));
            let answer = send(&service, ask("Hi")).await.expect("an answer");
            misses += handle.misses();
            drop(answer);
        }
    }
    assert!(
        misses >= stored.bytes.len() as u64,
        "each that was cut is a miss"
    );
}

#[tokio::test(start_paused = true)]
async fn the_store_forgets_too() {
    let shelf = Shelf::default();
    let model = ScriptedLlm::new("Hello!");
    let (service, handle) = around(&model, with(&shelf));
    hear(&service, crate::of_tenant(ask("Hi"), "a")).await;
    hear(&service, crate::of_tenant(ask("Hi"), "b")).await;
    settle().await;
    assert_eq!(shelf.len(), 2);
    handle.invalidate(Invalidate::tenant("a"));
    settle().await;
    assert_eq!(shelf.len(), 1);
    handle.invalidate(Invalidate::All);
    settle().await;
    assert_eq!(shelf.len(), 0);
}

/// Mistakes are kept where they were made.
#[tokio::test(start_paused = true)]
async fn refusals_stay_in_memory() {
    let shelf = Shelf::default();
    let model = ScriptedLlm::new(Script::fail(donjon_core::ErrorKind::InvalidRequest));
    let (service, handle) = around(&model, with(&shelf).negative_ttl(SECOND));
    fails(&service, ask("Hi")).await;
    settle().await;
    assert_eq!((handle.entries(), shelf.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn embeddings_are_stored() {
    use donjon_core::{Embedding, Embeddings, Head, LlmError, LlmResponse};
    let model = tower::service_fn(|request: LlmRequest| async move {
        let mut answer = Embeddings::default();
        answer.data = vec![
            Embedding::new(0, [0.25, -1.5]),
            Embedding::new(1, [f32::MIN, 0.1]),
        ];
        answer.usage = Some(Usage::new(4, 0));
        Ok::<_, LlmError>(LlmResponse::complete(
            Head::new(request.model().clone()),
            answer,
        ))
    });
    let shelf = Shelf::default();
    let layer = || with(&shelf).build().expect("sensible");
    let ask = || LlmRequest::embed("e", ["one", "two"]);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let service = tower::Layer::layer(&layer(), model);
        let answer = send(&service, ask()).await.expect("an answer");
        settle().await;
        let completion = answer.completion().expect("whole");
        let embeddings = completion.as_embed().expect("embeddings").clone();
        answers.push((answer.head.origin, embeddings.data, embeddings.usage));
    }
    assert_eq!(answers[1].0, Origin::Cache);
    assert_eq!(
        (&answers[0].1, &answers[0].2),
        (&answers[1].1, &answers[1].2)
    );
    let _ = Message::user("");
}

/// Both looked when nothing was kept; the second has heard so from the store when the first has been
/// answered.
#[tokio::test(start_paused = true)]
async fn whoever_was_late_is_answered_by_who_was_before() {
    let model = ScriptedLlm::new("Hello!").then("Not again!");
    let (mut service, handle) = around(&model, with(&Shelf::default()));
    let (first, second) = (service.call(ask("Hi")), service.call(ask("Hi")));
    let first = first.await.expect("an answer");
    assert_eq!(first.head.origin, Origin::Upstream);
    let second = second.await.expect("an answer");
    assert_eq!(second.head.origin, Origin::Cache);
    let texts = (first.text().await, second.text().await);
    assert_eq!(texts.0.expect("whole"), texts.1.expect("whole"));
    assert_eq!(model.count(), 1);
    assert_eq!(
        (handle.misses(), handle.late_hits(), handle.hits()),
        (2, 1, 0)
    );
}
