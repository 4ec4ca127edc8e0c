//! The ring against a map of every sub-window.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Ring, SLOTS};

const LIMIT: u64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    Turn(u64),
    Reserve(u64),
    /// At a sub-window so many before the newest.
    Force(u64, u64),
    Refund(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Around a whole turn of the ring, and far beyond it.
    let ahead = prop_oneof![8 => 0..3_u64, 2 => 60..70_u64, 1 => 70..2_000_u64];
    let behind = || prop_oneof![4 => 0..4_u64, 1 => 60..70_u64];
    prop_oneof![
        ahead.prop_map(Step::Turn),
        (0..400_u64).prop_map(Step::Reserve),
        (0..400_u64, behind()).prop_map(|(n, ago)| Step::Force(n, ago)),
        (0..400_u64, behind()).prop_map(|(n, ago)| Step::Refund(n, ago)),
    ]
}

proptest! {
    #[test]
    fn holds_what_a_map_holds(steps in prop::collection::vec(step(), 1..200)) {
        let mut head = 1_000_u64;
        let ring = Ring::new(head);
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Turn(ahead) => {
                    head += ahead;
                    ring.turn(head);
                    model = model.split_off(&(head - SLOTS));
                }
                Step::Reserve(n) => {
                    let fits = model.values().sum::<u64>() + n <= LIMIT;
                    prop_assert_eq!(ring.reserve(n, LIMIT, head), fits.then_some(head));
                    if fits {
                        *model.entry(head).or_default() += n;
                    }
                }
                Step::Force(n, ago) => {
                    ring.force_at(n, head - ago);
                    if ago <= SLOTS {
                        *model.entry(head - ago).or_default() += n;
                    }
                }
                Step::Refund(n, ago) => {
                    ring.refund(n, head - ago);
                    if ago <= SLOTS && let Some(held) = model.get_mut(&(head - ago)) {
                        *held = held.saturating_sub(n);
                    }
                }
            }
            let mut held = BTreeMap::new();
            ring.held(|slot, amount| { held.insert(slot, amount); });
            model.retain(|_, amount| *amount > 0);
            prop_assert_eq!(&held, &model);
            prop_assert_eq!(ring.used(), model.values().sum::<u64>());
        }
    }
}
