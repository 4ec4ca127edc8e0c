//! Many who ask the same at the same time.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use donjon_cache::flight::SingleFlightLayer;
use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Origin};
use donjon_testkit::{Script, ScriptedLlm, probe::poll_once};
use futures_util::future::join_all;
use tower::{Layer, Service};

use super::{SECOND, around, request, send};
use crate::{ask, plain};

#[tokio::test(start_paused = true)]
async fn a_thousand_make_one_call() {
    for streamed in [false, true] {
        let model = ScriptedLlm::new(Script::words(5).first_token_after(SECOND).gap(SECOND));
        let (service, flights) = around(&model);
        let one = || async {
            let request = match streamed {
                true => request().streamed(),
                false => request(),
            };
            let answer = send(&service, request).await.expect("an answer");
            let origin = answer.head.origin;
            (answer.text().await.expect("whole"), origin)
        };
        let all = join_all((0..1_000).map(|_| one())).await;
        assert_eq!(model.count(), 1);
        assert_eq!((flights.led(), flights.joined()), (1, 999));
        assert!(all.iter().all(|(text, _)| *text == all[0].0));
        let upstream = all.iter().filter(|(_, origin)| *origin == Origin::Upstream);
        assert_eq!(upstream.count(), 1, "one of them is billed");
        assert_eq!(flights.in_the_air(), 0);
    }
}

/// Whoever leaves, and whenever: the others have one call, which goes on while there is one of them.
#[tokio::test(start_paused = true)]
async fn however_many_leave_there_is_one_call() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let model = ScriptedLlm::new(Script::words(8).first_token_after(SECOND).gap(SECOND));
        let (service, flights) = around(&model);
        let stays = random.usize(0..100);
        let calls = (0..100).map(|n| {
            let service = service.clone();
            let patience = SECOND.mul_f64(random.f64() * 9.0);
            let streamed = random.bool();
            async move {
                let request = if streamed {
                    request().streamed()
                } else {
                    request()
                };
                let whole = async {
                    let answer = send(&service, request).await.expect("an answer");
                    answer.text().await.expect("whole")
                };
                if n == stays {
                    return Some(whole.await);
                }
                tokio::time::timeout(patience, whole).await.ok()
            }
        });
        let all = join_all(calls).await;
        let text = all[stays].clone().expect("the one who stays has it");
        assert!(all.iter().flatten().all(|other| *other == text));
        // A unary call cannot become a stream; both kinds may be in the air.
        assert!(model.count() <= 2, "{} calls", model.count());
        assert!(model.peak() <= 2);
        assert_eq!((flights.in_the_air(), model.in_progress()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_who_leaves_ends_the_call_at_once() {
    for streamed in [false, true] {
        let model = ScriptedLlm::new(Script::hang());
        let (mut service, flights) = around(&model);
        let mut calls: Vec<_> = (0..3)
            .map(|_| {
                let request = request();
                Box::pin(service.call(if streamed {
                    request.streamed()
                } else {
                    request
                }))
            })
            .collect();
        for call in &mut calls {
            assert!(poll_once(call).is_pending());
        }
        while let Some(call) = calls.pop() {
            assert_eq!((model.in_progress(), model.cancelled()), (1, 0));
            drop(call);
        }
        assert_eq!((model.in_progress(), model.cancelled()), (0, 1));
        assert_eq!((flights.abandoned(), flights.in_the_air()), (1, 0));
    }
}

/// Who asked first and is not polled, or not any more, has a call that the others drive.
#[tokio::test(start_paused = true)]
async fn who_asked_first_need_not_be_polled() {
    for (polled, dropped) in [(false, false), (false, true), (true, false), (true, true)] {
        let model = ScriptedLlm::new(Script::words(3).first_token_after(SECOND));
        let (mut service, flights) = around(&model);
        let mut first = Some(Box::pin(service.call(request())));
        if let (true, Some(first)) = (polled, &mut first) {
            assert!(poll_once(first).is_pending());
        }
        let second = service.call(request());
        if dropped {
            first = None;
        }
        let answer = second.await.expect("an answer");
        assert_eq!(answer.head.origin, Origin::Coalesced);
        if let Some(first) = first {
            let answer = first.await.expect("an answer");
            assert_eq!(answer.head.origin, Origin::Upstream);
        }
        assert_eq!((model.count(), flights.led(), flights.joined()), (1, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn other_questions_tenants_and_models_fly_apart() {
    let model = ScriptedLlm::new(Script::answer("hi").first_token_after(SECOND));
    let (service, flights) = around(&model);
    let requests = [
        request(),
        ask("another"),
        request().with_model("other"),
        crate::of_tenant(request(), "acme"),
    ];
    join_all(requests.map(|request| send(&service, request))).await;
    assert_eq!((model.count(), flights.joined()), (4, 0));
}

/// The answer is kept although the one who asked first has left.
#[tokio::test(start_paused = true)]
async fn what_a_flight_brings_is_kept_whoever_leaves() {
    let model = ScriptedLlm::new(Script::words(4).first_token_after(SECOND).gap(SECOND));
    let (service, handle) = crate::around(&model.clone().commits(), plain());
    let mut first = Box::pin(send(&service, request().streamed()));
    assert!(poll_once(&mut first).is_pending());
    let second = tokio::spawn({
        let service = service.clone();
        async move {
            send(&service, request().streamed())
                .await
                .expect("an answer")
                .text()
                .await
        }
    });
    tokio::time::sleep(SECOND / 2).await;
    drop(first);
    let text = second.await.expect("no panic").expect("whole");
    assert_eq!(
        crate::hear(&service, request()).await,
        (text, Origin::Cache)
    );
    assert_eq!((model.count(), handle.stored()), (1, 1));
    assert_eq!(handle.single_flight().expect("on").joined(), 1);
}

/// A model that lets somebody join while it is polled for the first time, and answers when it is let.
#[derive(Clone, Default)]
struct LetsJoin(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    join: Option<Box<dyn FnOnce() + Send>>,
    released: bool,
    waker: Option<Waker>,
}

impl Service<LlmRequest> for LetsJoin {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Pin<Box<dyn Future<Output = Result<LlmResponse, LlmError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        let inside = self.0.clone();
        Box::pin(poll_fn(move |cx| {
            let join = inside.lock().expect("no panic").join.take();
            if let Some(join) = join {
                join();
            }
            let mut inside = inside.lock().expect("no panic");
            if inside.released {
                let answer = ChatCompletion::text("m", "Hello!");
                return Poll::Ready(Ok(LlmResponse::complete(Head::new("m"), answer)));
            }
            inside.waker = Some(cx.waker().clone());
            Poll::Pending
        }))
    }
}

/// The call then has the waker of the one who was alone, who need not be polled any more.
#[test]
fn who_joins_while_another_drives_the_call_is_asked_to_drive_it_on() {
    let model = LetsJoin::default();
    let service = SingleFlightLayer::default().layer(model.clone());
    let joined = Arc::new(Mutex::new(None));
    let join = {
        let (mut service, joined) = (service.clone(), joined.clone());
        move || {
            let mut second = tokio_test::task::spawn(service.call(request()));
            assert!(second.poll().is_pending());
            *joined.lock().expect("no panic") = Some(second);
        }
    };
    model.0.lock().expect("no panic").join = Some(Box::new(join));
    let mut first = tokio_test::task::spawn(service.clone().call(request()));
    assert!(first.poll().is_pending());
    let mut second = joined.lock().expect("no panic").take().expect("it joined");
    assert!(second.is_woken(), "the call is to be driven on");
    assert!(second.poll().is_pending());
    let waker = {
        let mut inside = model.0.lock().expect("no panic");
        inside.released = true;
        inside.waker.take().expect("it waits")
    };
    waker.wake();
    // The first is there, and is not polled.
    assert!(second.is_woken(), "a wake-up was lost");
    let Poll::Ready(Ok(answer)) = second.poll() else {
        panic!("the answer is there");
    };
    assert_eq!(answer.head.origin, Origin::Coalesced);
    drop(first);
}
