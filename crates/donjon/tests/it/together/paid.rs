//! Every attempt is paid for once, wherever the account stands.

use donjon::{
    BoxLlmService, ErrorKind, NanoUsd, TimeoutClock, Usage,
    budget::{Budgets, Price, PriceTable},
};
use donjon_testkit::{Script, ScriptedLlm};
use tower::Layer;

use super::{
    MILLI, SECOND, after_a_second, ask, built, cut, model, request, resuming, whole, words,
};

/// The loser of the hedge, the stream that broke and the one that went on are paid for, once each, wherever the
/// account stands.
#[tokio::test(start_paused = true)]
async fn every_attempt_is_paid_for_once() {
    for outside in [false, true] {
        let mut prices = PriceTable::empty();
        let price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(10));
        prices.set("home", "m", price).expect("sensible");
        let budgets = Budgets::builder().prices(prices).build().expect("sensible");
        let accounts =
            |service| BoxLlmService::new(budgets.layer().provider("home").layer(service));
        let told = whole(SECOND / 2).usage(Usage::new(90, 70));
        let models = [model(told), model(cut(SECOND / 2))];
        models[0].push(whole(9 * SECOND));
        let inner = models.clone().map(|model| {
            let model = BoxLlmService::new(model);
            if outside { model } else { accounts(model) }
        });
        let hedged = BoxLlmService::new(built(after_a_second()).layer(resuming(&inner)));
        let service = if outside { accounts(hedged) } else { hedged };
        let (text, error) = ask(&service, request()).await;
        assert_eq!((text, error.map(|e| e.kind())), (words(60), None));
        let output = words(40).len().div_ceil(4) as i64 + 70;
        let due = NanoUsd::from_nanos((100 + 100 + 90) * 1_000 + output * 10_000);
        assert_eq!(budgets.handle().report().total().cost, due, "{outside}");
        assert_eq!(budgets.handle().admitted(), budgets.handle().settled());
    }
}

/// So it is where the account stands between a failover and whoever hedges, or fails over, at one of its targets.
#[tokio::test(start_paused = true)]
async fn every_attempt_of_a_driver_further_in_is_paid_for() {
    let told = |wait| whole(wait).usage(Usage::new(90, 70));
    let hedge = |model: ScriptedLlm| BoxLlmService::new(built(after_a_second()).layer(model));
    let both = |model: ScriptedLlm| BoxLlmService::new(resuming(&[model.clone(), model]));
    let late = Script::fail(ErrorKind::Timeout(TimeoutClock::FirstToken));
    type Driver<'a> = &'a dyn Fn(ScriptedLlm) -> BoxLlmService;
    let cases: [(Driver<'_>, [Script; 2], i64); 4] = [
        (&hedge, [told(9 * SECOND), told(SECOND)], 100 + 90),
        (&hedge, [told(3 * SECOND / 2), told(9 * SECOND)], 100 + 90),
        (&hedge, [told(MILLI), told(MILLI)], 90),
        (&both, [late, told(MILLI)], 100 + 90),
    ];
    for (driver, scripts, input) in cases {
        let mut prices = PriceTable::empty();
        let price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(10));
        prices.set("home", "m", price).expect("sensible");
        let budgets = Budgets::builder().prices(prices).build().expect("sensible");
        let model = model("more");
        scripts.into_iter().for_each(|script| model.push(script));
        let paid = budgets.layer().provider("home").layer(driver(model));
        let (text, error) = ask(&resuming(&[BoxLlmService::new(paid)]), request()).await;
        assert_eq!((text, error.map(|e| e.kind())), (words(60), None));
        let due = NanoUsd::from_nanos(input * 1_000 + 70 * 10_000);
        assert_eq!(budgets.handle().report().total().cost, due);
    }
}
