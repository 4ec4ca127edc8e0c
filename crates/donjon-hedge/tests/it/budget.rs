//! Hedges stay within their share of the traffic.

use donjon_core::{Figure, Snapshot};
use donjon_hedge::Suppressed;
use donjon_testkit::ScriptedLlm;
use futures_util::future::join_all;
use tower::Layer;

use crate::{SECOND, after_a_second, ask, layer, request, slow};

/// All calls are slow at once: hedges would double the load of whoever has too much already.
#[tokio::test(start_paused = true)]
async fn a_storm_stays_within_the_budget() {
    let model = ScriptedLlm::new(slow("late", 30 * SECOND)).commits();
    let built = layer(after_a_second().budget(0.05).burst(10));
    let service = built.layer(model.clone());
    for round in 1..=10_u64 {
        join_all((0..200).map(|_| ask(&service, request()))).await;
        let calls = 200 * round;
        let most = 10 + calls / 20;
        let hedges = built.handle().hedges();
        assert!(hedges <= most, "{hedges} hedges for {calls} calls");
        assert_eq!(model.count() as u64, calls + hedges);
    }
    let handle = built.handle();
    // What is kept is lost beyond the burst, and nothing else is.
    assert!(handle.hedges() >= 100, "{}", handle.hedges());
    assert_eq!(
        handle.suppressed(Suppressed::Budget),
        2000 - handle.hedges()
    );
    assert_eq!(handle.calls(), 2000);
}

#[tokio::test(start_paused = true)]
async fn the_figures_tell_what_was_done() {
    let model = ScriptedLlm::new(slow("late", 5 * SECOND)).commits();
    let built = layer(after_a_second().burst(1).budget(0.001));
    for _ in 0..3 {
        ask(&built.layer(model.clone()), request())
            .await
            .expect("late");
    }
    let figures = built.handle().figures();
    let of = |name: &str, label: &str| {
        let found = figures.iter().find(|figure: &&Figure| {
            figure.name == name && figure.labels.iter().all(|(_, value)| value == label)
        });
        found.unwrap_or_else(|| panic!("no {name} {label}")).value
    };
    assert_eq!(built.handle().layer(), "hedge");
    for (name, label, value) in [
        ("calls", "", 3.0),
        ("hedges", "slow", 1.0),
        ("hedges", "failed", 0.0),
        ("won", "first", 1.0),
        ("won", "hedge", 0.0),
        ("suppressed", "budget", 2.0),
        ("suppressed", "limits", 0.0),
        ("suppressed", "attempts", 0.0),
        ("delay_seconds", "stream", 1.0),
        ("paused_seconds", "", 0.0),
    ] {
        assert!((of(name, label) - value).abs() < 1e-9, "{name} {label}");
    }
}
