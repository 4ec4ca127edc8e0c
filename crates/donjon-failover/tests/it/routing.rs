//! Who is chosen, in simulations.

use std::time::Duration;

use donjon_core::{ErrorKind, Estimate, Identity, KeyBy, LlmRequest, Message, Name, NanoUsd, Part};
use donjon_failover::{
    Capability, Failover, LeastBusy, LeastLatency, LowestCost, RoundRobin, Route, Sticky, Target,
    Weighted,
};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{ask, builder, counts, model, reasons, request, served};

fn routed(models: &[ScriptedLlm], route: impl Route + 'static) -> Failover<ScriptedLlm> {
    let built = builder(models).route(route).build();
    built.expect("a good configuration")
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn priority_goes_before_order() {
    let models = [model("one"), model("two"), model("three")];
    let [a, b, c] = models.clone();
    let failover = Failover::builder()
        .target(Target::new("a", a).priority(2))
        .target(Target::new("b", b).priority(1))
        .target(Target::new("c", c).priority(1))
        .build()
        .expect("a good configuration");
    assert_eq!(served(&ask(&failover, request()).await), "b");
    models[1].set_otherwise(ErrorKind::Overloaded);
    assert_eq!(served(&ask(&failover, request()).await), "c");
    models[2].set_otherwise(ErrorKind::Overloaded);
    assert_eq!(served(&ask(&failover, request()).await), "a");
    failover.handle().set_priority("a", 0).expect("it is there");
    assert_eq!(served(&ask(&failover, request()).await), "a");
    assert_eq!(counts(&models), [2, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn each_gets_its_share_by_weight_within_two_percent_and_spread() {
    let models = [model("one"), model("two"), model("three")];
    let failover = routed(&models, Weighted);
    let handle = failover.handle();
    for (name, weight) in [("a", 5), ("b", 1), ("c", 1)] {
        handle.set_weight(name, weight).expect("it is there");
    }
    let mut order = String::new();
    for _ in 0..7 {
        order += served(&ask(&failover, request()).await);
    }
    assert_eq!(order, "aabacaa");
    for (name, weight) in [("a", 1), ("b", 3), ("c", 6)] {
        handle.set_weight(name, weight).expect("it is there");
    }
    let before = counts(&models);
    for _ in 0..10_000 {
        ask(&failover, request()).await.expect("it serves");
    }
    for ((now, before), share) in { counts(&models) }
        .iter()
        .zip(before)
        .zip([1_000, 3_000, 6_000])
    {
        let got = now - before;
        assert!(got.abs_diff(share) <= share / 50, "{got} of {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn round_robin_goes_round_those_that_may_be_asked() {
    let models = [model("one"), model("two"), model("three")];
    let failover = routed(&models, RoundRobin::new());
    for _ in 0..9 {
        ask(&failover, request()).await.expect("it serves");
    }
    assert_eq!(counts(&models), [3, 3, 3]);
    failover.handle().disable("b").expect("it is there");
    for _ in 0..10 {
        ask(&failover, request()).await.expect("it serves");
    }
    assert_eq!(counts(&models), [8, 3, 8]);
}

#[tokio::test(start_paused = true)]
async fn least_latency_leaves_a_target_that_turns_slow_and_comes_back() {
    fastrand::seed(7);
    let quick = || Script::words(2).first_token_after(ms(100));
    let slow = || Script::words(2).first_token_after(ms(4_000));
    let models = [model(quick()), model(quick()), model(quick())];
    let failover = routed(&models, LeastLatency);
    let call = async || {
        let answer = ask(&failover, request().streamed())
            .await
            .expect("it serves");
        answer.text().await.expect("it is whole");
        tokio::time::sleep(ms(100)).await;
    };
    for _ in 0..30 {
        call().await;
    }
    assert!(counts(&models).iter().all(|count| *count > 3), "all serve");
    models[0].set_otherwise(slow());
    let before = models[0].count();
    for _ in 0..10 {
        call().await;
    }
    let left = models[0].count();
    assert!(left <= before + 1, "one slow answer is enough");
    for _ in 0..100 {
        call().await;
    }
    assert!(models[0].count() <= left + 1, "it is left alone for long");
    models[0].set_otherwise(quick());
    let before = models[0].count();
    for _ in 0..600 {
        call().await;
    }
    let got = models[0].count() - before;
    assert!(got > 100, "it came back and gets its share: {got}");
}

#[tokio::test(start_paused = true)]
async fn whole_answers_and_streams_are_measured_apart() {
    let models = [model(Script::words(2).head_after(ms(700)))];
    let failover = routed(&models, LeastLatency);
    ask(&failover, request()).await.expect("it serves");
    let stats = failover.handle().targets().remove(0);
    assert_eq!(stats.first_token, None, "a whole answer has no first token");
    ask(&failover, request().streamed())
        .await
        .expect("it serves");
    let stats = failover.handle().targets().remove(0);
    let latency = stats.first_token.expect("it was measured");
    assert!((0.69..0.71).contains(&latency.as_secs_f64()), "{latency:?}");
}

#[tokio::test(start_paused = true)]
async fn least_busy_goes_by_calls_in_progress_and_streams_count_to_their_end() {
    let models = [model(Script::words(2)), model(Script::words(2))];
    let failover = routed(&models, LeastBusy::new());
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(
            ask(&failover, request().streamed())
                .await
                .expect("it serves"),
        );
    }
    assert_eq!(counts(&models), [3, 3]);
    let is_a = |answer: &donjon_core::LlmResponse| answer.head.target.as_deref() == Some("a");
    open.retain(|answer| !is_a(answer));
    for _ in 0..3 {
        open.push(
            ask(&failover, request().streamed())
                .await
                .expect("it serves"),
        );
    }
    assert_eq!(counts(&models), [6, 3]);
}

#[tokio::test(start_paused = true)]
async fn lowest_cost_asks_the_cheapest_whose_price_is_known() {
    let models = [model("one"), model("two"), model("three")];
    // `a` is unknown; `b` has cheap input, `c` cheap output.
    let prices = |target: Name, model: &str, tokens: Estimate| {
        assert_eq!(model, "asked");
        let (input, output) = match target.as_str() {
            "b" => (1, 10),
            "c" => (5, 2),
            _ => return None,
        };
        let nanos = tokens.input * input + tokens.output * output;
        Some(NanoUsd::from_nanos(i64::try_from(nanos).expect("a little")))
    };
    let failover = routed(&models, LowestCost::new(prices));
    let mut long = request();
    long.call.estimate = Some(Estimate::new(10_000, 10));
    assert_eq!(served(&ask(&failover, long).await), "b");
    assert_eq!(
        served(&ask(&failover, request()).await),
        "c",
        "a long answer"
    );
    for model in &models[1..] {
        model.set_otherwise(ErrorKind::Overloaded);
    }
    assert_eq!(served(&ask(&failover, request()).await), "a");
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_where_it_is_and_only_those_of_a_target_that_leaves_move() {
    let models: Vec<_> = (0..5).map(|_| model("hi")).collect();
    let failover = routed(&models, Sticky::by(KeyBy::Tenant));
    let homes = async || {
        let mut homes = Vec::new();
        for key in 0..1_000 {
            let who = Identity::builder().tenant(format!("tenant-{key}")).build();
            let answer = ask(&failover, request().on_behalf_of(who)).await;
            homes.push(String::from(served(&answer)));
        }
        homes
    };
    let before = homes().await;
    assert_eq!(homes().await, before);
    for name in crate::NAMES {
        let count = before.iter().filter(|home| *home == name).count();
        assert!((150..=250).contains(&count), "{name} has {count}");
    }
    failover.handle().disable("b").expect("it is there");
    let after = homes().await;
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    let of_b = before.iter().filter(|home| *home == "b").count();
    assert_eq!(moved.clone().count(), of_b, "no other key moves");
    assert!(moved.clone().all(|(old, _)| old == "b"));
    assert!(moved.count() <= 250);
    failover.handle().enable("b").expect("it is there");
    assert_eq!(homes().await, before);
    // One that gets more weight takes keys from all others, and no others move.
    failover.handle().set_weight("b", 2).expect("it is there");
    let after = homes().await;
    let moved = || before.iter().zip(&after).filter(|(old, new)| old != new);
    assert!(moved().all(|(_, new)| new == "b"));
    let of_b = after.iter().filter(|home| *home == "b").count();
    assert!((280..=390).contains(&of_b), "two of six parts: {of_b}");
}

#[tokio::test(start_paused = true)]
async fn calls_without_a_key_go_round_and_a_common_beginning_stays() {
    let models = [model("one"), model("two")];
    let failover = routed(&models, Sticky::by(KeyBy::Tenant));
    for _ in 0..4 {
        ask(&failover, request()).await.expect("it serves");
    }
    assert_eq!(counts(&models), [2, 2]);
    let failover = routed(&models, Sticky::by_first_message());
    let mut homes = Vec::new();
    for more in ["a", "b", "c", "d", "e", "f"] {
        let messages = [Message::system("Be brief."), Message::user(more)];
        let answer = ask(&failover, LlmRequest::chat("m", messages)).await;
        homes.push(String::from(served(&answer)));
    }
    assert!(homes.iter().all(|home| *home == homes[0]));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_do_what_is_needed_is_passed_over_and_the_reason_kept() {
    let models = [model("one"), model("two"), model("three")];
    let [a, b, c] = models.clone();
    let failover = Failover::builder()
        .target(Target::new("a", a).without(Capability::Vision))
        .target(Target::new("b", b).context_window(100))
        .target(Target::new("c", c))
        .build()
        .expect("a good configuration");
    let handle = failover.handle();
    let image = || {
        let shown = Message::user(vec![Part::image_url("https://example.org/a.png")]);
        let mut request = LlmRequest::chat("asked", [shown]);
        request.call.estimate = Some(Estimate::new(200, 10));
        request
    };
    assert_eq!(served(&ask(&failover, request()).await), "a");
    assert_eq!(served(&ask(&failover, image()).await), "c");
    assert_eq!(counts(&models), [1, 0, 1]);
    let incapable = |name| handle.target(name).expect("it is there").incapable;
    assert_eq!((incapable("a"), incapable("b"), incapable("c")), (1, 1, 0));
    models[2].set_otherwise(ErrorKind::Overloaded);
    let error = ask(&failover, image()).await.expect_err("nobody can");
    assert_eq!(
        reasons(&error),
        [
            ("c", ErrorKind::Overloaded),
            ("a", ErrorKind::Unsupported),
            ("b", ErrorKind::ContextLength)
        ]
    );
    assert_eq!(
        error.attempts()[1].error.message(),
        "the target has no vision"
    );
    handle
        .set_capability("a", Capability::Vision, true)
        .expect("it is there");
    assert_eq!(served(&ask(&failover, image()).await), "a");
}

#[tokio::test(start_paused = true)]
async fn a_target_never_has_more_calls_than_it_may() {
    let models = [
        model(Script::words(1).yields(3)),
        model(Script::words(1).yields(3)),
    ];
    let [a, b] = models.clone();
    let failover = Failover::builder()
        .target(Target::new("a", a).max_in_flight(2))
        .target(Target::new("b", b).max_in_flight(3))
        .build()
        .expect("a good configuration");
    let calls = (0..10).map(|_| ask(&failover, request()));
    let answers = futures_util::future::join_all(calls).await;
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(served, 5);
    let error = answers
        .into_iter()
        .find_map(Result::err)
        .expect("some are refused");
    assert_eq!(
        reasons(&error),
        [("a", ErrorKind::QueueFull), ("b", ErrorKind::QueueFull)]
    );
    assert_eq!((models[0].peak(), models[1].peak()), (2, 3));
    ask(&failover, request())
        .await
        .expect("places are free again");
}
