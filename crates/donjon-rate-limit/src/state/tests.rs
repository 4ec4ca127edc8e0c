//! Who is woken.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::{Wake, Waker},
};

use super::*;
use crate::meter::Settled;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Has no room, and says whether it took some for a moment.
struct Full {
    disturbed: bool,
}

impl Meter for Full {
    type Charges = ();

    fn reserve(&self, _: &[u64], _: u64) -> Result<(), Obstacle> {
        Err(Obstacle {
            disturbed: self.disturbed,
            ..Obstacle::new(Obstructs::Spacing, Some(1))
        })
    }

    fn settle(&self, (): (), _: impl Fn(&Unit) -> Option<u64>, _: impl FnOnce() -> u64) -> Settled {
        Settled::default()
    }

    fn fits_at(&self, _: &[u64], _: u64, _: u64) -> Obstacle {
        Obstacle::new(Obstructs::Spacing, Some(1))
    }

    fn used(&self, _: usize, _: u64) -> u64 {
        0
    }

    fn allowed(&self, _: usize, _: u64) -> Option<u64> {
        None
    }

    fn learn(&self, _: usize, _: Told, _: u64) {}
}

fn account(disturbed: bool) -> Account<Full> {
    Account {
        common: Arc::new(Common {
            quotas: Arc::new(Quotas::new(Vec::new(), Duration::ZERO)),
            clock: Clock::start(),
            figures: Figures::default(),
            events: Events::new(1),
            classifier: Classifier::default(),
            when_full: WhenFull::default(),
        }),
        stopped_until: AtomicU64::new(0),
        queue: Queue::default(),
        meter: Full { disturbed },
        key: Key::Global,
    }
}

/// Whoever is first may just have been refused for what another one took for a moment.
#[tokio::test(start_paused = true)]
async fn the_first_in_line_looks_again_after_a_charge_was_taken_back() {
    for (disturbed, is_first, woken) in [(true, false, 1), (true, true, 0), (false, false, 0)] {
        let account = account(disturbed);
        let need = Need::new();
        let entered = account.queue.enter(&need, 1, |_, _| (), |_, _| Ok(()));
        let wakes = Arc::new(Count::default());
        let waker: Waker = wakes.clone().into();
        assert!(account.queue.is_first(entered.expect("room"), &waker));
        assert!(account.take(&need, is_first, 0).is_err());
        let what = format!("{disturbed} {is_first}");
        assert_eq!(wakes.0.load(SeqCst), woken, "{what}");
    }
}
