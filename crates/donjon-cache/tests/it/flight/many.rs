//! Many who ask the same at the same time.

use donjon_core::Origin;
use donjon_testkit::{Script, ScriptedLlm, probe::poll_once};
use futures_util::future::join_all;
use tower::Service;

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
