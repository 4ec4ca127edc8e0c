//! Members with deadlines of their own.

use donjon_core::{ErrorKind, TimeoutClock};
use donjon_testkit::{Script, ScriptedLlm};
use futures_util::future::join_all;
use tokio::time::Instant;
use tower::Layer;

use super::{SECOND, around, request, send};
use donjon_cache::flight::SingleFlightLayer;

#[tokio::test(start_paused = true)]
async fn each_has_its_own_and_none_ends_that_of_another() {
    for streamed in [false, true] {
        let model = ScriptedLlm::new(Script::answer("hi").first_token_after(10 * SECOND));
        let (service, _) = around(&model.clone().commits());
        let began = Instant::now();
        let calls = [3, 20, 7, 60].map(|secs| {
            let service = service.clone();
            let request = request().with_timeout(secs * SECOND);
            let request = if streamed {
                request.streamed()
            } else {
                request
            };
            async move { (send(&service, request).await.map(drop), began.elapsed()) }
        });
        let all = join_all(calls).await;
        let late = |at: usize| all[at].0.as_ref().map_err(|error| error.kind());
        for (at, secs) in [(0, 3), (2, 7)] {
            assert_eq!(late(at), Err(ErrorKind::Timeout(TimeoutClock::Total)));
            assert_eq!(all[at].1.as_secs(), secs);
        }
        for at in [1, 3] {
            assert_eq!(late(at), Ok(&()));
            assert_eq!(all[at].1.as_secs(), 10);
        }
        assert_eq!(model.count(), 1);
    }
}

/// When all are late, so is the call.
#[tokio::test(start_paused = true)]
async fn when_the_time_of_all_is_up_the_call_is_over() {
    let model = ScriptedLlm::new(Script::hang());
    let layer = SingleFlightLayer::default();
    let service = layer.layer(model.clone());
    let calls = [2, 4].map(|secs| send(&service, request().with_timeout(secs * SECOND)));
    let began = Instant::now();
    for call in join_all(calls).await {
        let error = call.expect_err("late");
        assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
    }
    assert_eq!(began.elapsed().as_secs(), 4);
    assert_eq!((model.in_progress(), layer.handle().in_the_air()), (0, 0));
}
