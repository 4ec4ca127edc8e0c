//! Members who do not share what the first one gets, and how many are woken.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use donjon_cache::{
    CacheKey,
    flight::{FlightEvent, Flights, SingleFlightLayer},
};
use donjon_core::{
    ChatCompletion, ErrorKind, Head, Heard, Identity, LlmError, LlmRequest, LlmResponse, Origin,
    Scope,
};
use donjon_testkit::{Script, ScriptedLlm, probe::CountingWaker};
use futures_util::future::join_all;
use tower::{Layer, Service};

use super::{SECOND, around, request, send};
use crate::ask;

/// Two questions that have the same key by chance, or by somebody's design, are two calls.
#[tokio::test(start_paused = true)]
async fn another_question_under_the_same_key_is_called_apart() {
    let key = CacheKey::from([7; 32]);
    let others = [
        ask("something else"),
        request().with_model("other"),
        ask("something else").streamed(),
    ];
    for other in others {
        let model = ScriptedLlm::new(Script::words(3).first_token_after(SECOND)).commits();
        let flights = Flights::default();
        let mut events = flights.events().listen();
        let first = match other.is_stream() {
            true => request().streamed(),
            false => request(),
        };
        let mut same = ask("Hi");
        same.delivery = first.delivery;
        let first = flights.call(key, first, model.clone());
        let other = flights.call(key, other, model.clone());
        let same = flights.call(key, same, model.clone());
        let (first, other, same) = tokio::join!(first, other, same);
        let origin = |answer: Result<LlmResponse, LlmError>| answer.expect("an answer").head.origin;
        assert_eq!(origin(first), Origin::Upstream);
        assert_eq!(origin(other), Origin::Upstream);
        assert_eq!(origin(same), Origin::Coalesced);
        assert_eq!((model.count(), flights.mismatched()), (2, 1));
        let told = Heard::Event(FlightEvent::Mismatched { key });
        assert_eq!(events.try_next(), Some(told));
    }
}

/// What the first one alone is refused says nothing to the others, of whom one asks again. Who asks on
/// the same behalf would be refused too.
#[tokio::test(start_paused = true)]
async fn what_the_first_is_refused_is_asked_again_by_another() {
    let model = ScriptedLlm::from_fn(|request| {
        let refused = LlmError::new(ErrorKind::OverBudget, "spent").with_scope(Scope::Caller);
        match request.identity().user.as_deref() {
            Some("poor") => Script::fail(refused).head_after(SECOND),
            _ => Script::words(3).first_token_after(SECOND),
        }
    });
    let of = |user: &str| {
        let identity = Identity::builder().tenant("acme").user(user).build();
        request().on_behalf_of(identity)
    };
    let (service, flights) = around(&model);
    let calls = ["poor", "poor", "rich", "mean"].map(|user| send(&service, of(user)));
    let answers = join_all(calls).await;
    let origins: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map(|answer| answer.head.origin))
        .map(|answer| answer.map_err(|error| error.kind()))
        .collect();
    assert_eq!(origins[..2], [Err(ErrorKind::OverBudget); 2]);
    assert!(origins[2..].contains(&Ok(Origin::Upstream)), "{origins:?}");
    assert!(origins[2..].contains(&Ok(Origin::Coalesced)), "{origins:?}");
    assert_eq!((model.count(), flights.asked_again()), (2, 2));
}

/// A call that is driven from outside.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, usize, Option<Waker>)>>);

impl Gate {
    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut gate = self.0.lock().expect("no panic");
        gate.1 += 1;
        gate.2 = Some(waker.clone());
        if gate.0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Wakes it, and tells how often it was polled so far.
    fn wake(&self, open: bool) -> usize {
        let mut gate = self.0.lock().expect("no panic");
        gate.0 = open;
        let (polls, waker) = (gate.1, gate.2.take());
        drop(gate);
        waker.expect("it was polled").wake();
        polls
    }
}

/// A call that wakes is driven by one of those who wait. Two are woken for it, not a thousand, and all
/// of them once when there is an answer.
#[tokio::test(start_paused = true)]
async fn no_stampede() {
    const MEMBERS: usize = 1_000;
    let gate = Gate::default();
    let polled = gate.clone();
    let model = tower::service_fn(move |_: LlmRequest| {
        let gate = polled.clone();
        async move {
            poll_fn(|cx| gate.poll(cx.waker())).await;
            let answer = ChatCompletion::text("m", "hi");
            Ok::<_, LlmError>(LlmResponse::complete(Head::new("m"), answer))
        }
    });
    let mut service = SingleFlightLayer::default().layer(model);
    let mut members: Vec<_> = (0..MEMBERS)
        .map(|_| (Box::pin(service.call(request())), CountingWaker::new(), 0))
        .collect();
    let mut answered = 0;
    for (call, wakes, _) in &mut members {
        let waker = wakes.waker();
        assert!(
            call.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    for round in 0..51 {
        let open = round == 50;
        let polls = gate.wake(open);
        let mut woken = 0;
        // Those who were woken are polled, until nobody is woken any more.
        loop {
            let before = woken;
            for (call, wakes, seen) in &mut members {
                if wakes.count() == *seen {
                    continue;
                }
                woken += wakes.count() - *seen;
                *seen = wakes.count();
                let waker = wakes.waker();
                if call
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {
                    answered += 1;
                }
            }
            if woken == before {
                break;
            }
        }
        let most = if open { MEMBERS + 1 } else { 2 };
        assert!((1..=most).contains(&woken), "{woken} in round {round}");
        assert_eq!(gate.0.lock().expect("no panic").1, polls + 1, "one drives");
    }
    assert_eq!(answered, MEMBERS);
}
