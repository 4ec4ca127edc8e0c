//! Who is out and who is asked, call by call, as a naive model of health says.

use std::time::Duration;

use donjon_core::ErrorKind;
use donjon_failover::{HealthPolicy, TargetStatus};
use donjon_testkit::Script;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::{NAMES, ask, builder, counts, model, request};

const SECOND: Duration = Duration::from_secs(1);
const OUT_FOR: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// What a target answers from now on.
#[derive(Clone, Copy, Debug)]
enum Does {
    Serve,
    Fail,
    /// It has too much to do, for so many seconds.
    Refuse(u64),
    /// A mistake that is no fault of it.
    TooLong,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    /// So many seconds pass.
    Wait(u64),
    Turns(usize, Does),
    Enable(usize, bool),
}

/// One target as the naive model keeps it. Times are seconds.
#[derive(Clone, Debug)]
struct Naive {
    does: Does,
    enabled: bool,
    out_until: Option<u64>,
    streak: u32,
    level: u32,
    returned_at: Option<u64>,
    asked: usize,
    ejections: u64,
}

impl Naive {
    fn is_out(&self, now: u64) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    fn serves(&self, now: u64) -> bool {
        self.enabled && !self.is_out(now)
    }
}

struct World {
    targets: Vec<Naive>,
    now: u64,
    in_a_row: u32,
    most_out: f64,
}

impl World {
    fn may_take_out(&self, at: usize) -> bool {
        let enabled = self.targets.iter().filter(|t| t.enabled).count();
        let others = self.targets.iter().enumerate();
        let left = others
            .filter(|(i, t)| *i != at && t.serves(self.now))
            .count();
        #[expect(clippy::cast_precision_loss, reason = "there are five")]
        let most = (enabled as f64 * self.most_out).ceil();
        #[expect(clippy::cast_precision_loss, reason = "there are five")]
        let out = (enabled.saturating_sub(left)) as f64;
        left > 0 && out <= most
    }

    fn take_out(&mut self, at: usize, hint: Option<u64>) {
        if !self.may_take_out(at) {
            return;
        }
        let now = self.now;
        let target = &mut self.targets[at];
        let out_for = hint.unwrap_or_else(|| {
            let longest = LONGEST.as_secs();
            if target.returned_at.is_some_and(|at| now - at >= longest) {
                target.level = 0;
            }
            let out_for = OUT_FOR.as_secs() << target.level;
            target.level = (target.level + 1).min(20);
            out_for.min(longest)
        });
        target.out_until = Some(now + out_for);
        target.streak = 0;
        target.ejections += 1;
    }

    fn fault(&mut self, at: usize, hint: Option<u64>) {
        let hint = hint.map(|hint| hint.min(LONGEST.as_secs()));
        let now = self.now;
        let target = &mut self.targets[at];
        match target.out_until {
            Some(until) if now < until => {
                // It was asked for want of a better one.
                if let Some(hint) = hint {
                    target.out_until = Some(until.max(now + hint));
                }
            }
            // Its trial.
            Some(_) => self.take_out(at, hint),
            None => {
                target.streak += 1;
                if hint.is_some() || target.streak >= self.in_a_row {
                    self.take_out(at, hint);
                }
            }
        }
    }

    /// A call: whether somebody served.
    fn call(&mut self) -> bool {
        let now = self.now;
        let mut tried = vec![false; self.targets.len()];
        loop {
            let places = || 0..self.targets.len();
            let open = |at: &usize| !tried[*at] && self.targets[*at].enabled;
            let good = places().find(|at| open(at) && !self.targets[*at].is_out(now));
            let bad = places()
                .filter(open)
                .min_by_key(|at| self.targets[*at].out_until);
            let Some(at) = good.or(bad) else {
                return false;
            };
            tried[at] = true;
            let target = &mut self.targets[at];
            target.asked += 1;
            match target.does {
                Does::Serve => {
                    if target.out_until.is_some_and(|until| now >= until) {
                        target.out_until = None;
                        target.returned_at = Some(now);
                    }
                    target.streak = 0;
                    return true;
                }
                Does::Fail => self.fault(at, None),
                Does::Refuse(seconds) => self.fault(at, Some(seconds)),
                Does::TooLong => {}
            }
        }
    }
}

fn script(does: Does) -> Script {
    match does {
        Does::Serve => Script::from("hi"),
        Does::Fail => Script::fail(ErrorKind::ServerError),
        Does::Refuse(seconds) => {
            Script::fail(ErrorKind::RateLimited).retry_after(Duration::from_secs(seconds))
        }
        Does::TooLong => Script::fail(ErrorKind::ContextLength),
    }
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => Just(Does::Serve),
        4 => Just(Does::Fail),
        2 => (1..90_u64).prop_map(Does::Refuse),
        1 => Just(Does::TooLong),
    ]
}

fn step(targets: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => Just(Step::Call),
        3 => (1..30_u64).prop_map(Step::Wait),
        4 => (0..targets, does()).prop_map(|(at, does)| Step::Turns(at, does)),
        1 => (0..targets, prop::bool::weighted(0.7)).prop_map(|(at, on)| Step::Enable(at, on)),
    ]
}

fn scripts() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (1..=NAMES.len()).prop_flat_map(|targets| {
        (
            Just(targets),
            proptest::collection::vec(step(targets), 1..80),
        )
    })
}

proptest! {
    #[test]
    fn health_is_that_of_a_naive_model(
        (count, steps) in scripts(),
        in_a_row in 1..4_u32,
        most_out in prop::sample::select(vec![0.0, 0.2, 0.5, 1.0]),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let models: Vec<_> = (0..count).map(|_| model("hi")).collect();
            let policy = HealthPolicy::new()
                .consecutive_failures(in_a_row)
                .failure_rate(None)
                .out_for(OUT_FOR)
                .longest(LONGEST)
                .most_out(most_out)
                .return_over(Duration::ZERO);
            let failover = builder(&models).health(policy).build().expect("good");
            let handle = failover.handle();
            let fresh = Naive {
                does: Does::Serve,
                enabled: true,
                out_until: None,
                streak: 0,
                level: 0,
                returned_at: None,
                asked: 0,
                ejections: 0,
            };
            let mut world = World { targets: vec![fresh; count], now: 0, in_a_row, most_out };
            let began = Instant::now();
            for step in steps {
                match step {
                    Step::Wait(seconds) => {
                        sleep(Duration::from_secs(seconds)).await;
                        world.now = began.elapsed().as_secs();
                    }
                    Step::Turns(at, does) => {
                        models[at].set_otherwise(script(does));
                        world.targets[at].does = does;
                    }
                    Step::Enable(at, on) => {
                        let turn = if on { handle.enable(NAMES[at]) } else { handle.disable(NAMES[at]) };
                        turn.expect("it is there");
                        world.targets[at].enabled = on;
                    }
                    Step::Call => {
                        let someone_before = world.targets.iter().any(|t| t.serves(world.now));
                        let served = ask(&failover, request()).await.is_ok();
                        prop_assert_eq!(served, world.call());
                        // Whatever calls say, somebody is left.
                        let someone = world.targets.iter().any(|t| t.serves(world.now));
                        prop_assert!(someone || !someone_before);
                    }
                }
                let asked: Vec<_> = world.targets.iter().map(|t| t.asked).collect();
                prop_assert_eq!(counts(&models), asked);
                for (target, naive) in handle.targets().iter().zip(&world.targets) {
                    let expected = match naive.out_until {
                        _ if !naive.enabled => TargetStatus::Disabled,
                        Some(until) if world.now < until => TargetStatus::Out {
                            left: SECOND * u32::try_from(until - world.now).expect("a minute"),
                        },
                        Some(_) => TargetStatus::Trial,
                        None => TargetStatus::Up,
                    };
                    prop_assert_eq!(target.status, expected);
                    prop_assert_eq!(target.ejections, naive.ejections);
                    let is_up = matches!(expected, TargetStatus::Up | TargetStatus::Disabled);
                    prop_assert_eq!(target.reason.is_some(), !is_up);
                }
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
