//! Targets that are looked at, whether calls go to them or not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{ErrorKind, LlmError};
use donjon_failover::{Failover, Probes, Target, TargetStatus};
use tokio::time::sleep;

use crate::{ask, health::status, model, request, served};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_has_failed_and_is_asked_again() {
    let panics = Arc::new(AtomicBool::new(true));
    let probe = {
        let panics = panics.clone();
        move || {
            let panics = panics.load(Relaxed);
            async move {
                assert!(!panics, "a probe panics");
                Ok::<_, LlmError>(())
            }
        }
    };
    let failover = Failover::builder()
        .target(Target::new("a", model("one")).probe(probe))
        .target(Target::new("b", model("two")))
        .probes(Probes::every(SECOND).down_after(2).up_after(1))
        .build()
        .expect("a good configuration");
    sleep(10 * SECOND).await;
    assert_eq!(status(&failover, "a"), TargetStatus::Down);
    panics.store(false, Relaxed);
    sleep(2 * SECOND).await;
    assert_ne!(status(&failover, "a"), TargetStatus::Down);
}

#[tokio::test(start_paused = true)]
async fn probes_take_a_target_out_let_it_back_and_end_with_the_failover() {
    let works = Arc::new(AtomicBool::new(true));
    let looked = Arc::new(AtomicUsize::new(0));
    let probe = {
        let (works, looked) = (works.clone(), looked.clone());
        move || {
            looked.fetch_add(1, Relaxed);
            let works = works.load(Relaxed);
            async move {
                match works {
                    true => Ok(()),
                    false => {
                        // It says nothing for longer than it may take.
                        sleep(60 * SECOND).await;
                        Err(LlmError::new(ErrorKind::Connect, ""))
                    }
                }
            }
        }
    };
    let models = [model("one"), model("two")];
    let [a, b] = models.clone();
    let probes = Probes::every(10 * SECOND)
        .timeout(SECOND)
        .down_after(2)
        .up_after(2);
    let failover = Failover::builder()
        .target(Target::new("a", a).probe(probe))
        .target(Target::new("b", b))
        .probes(probes)
        .build()
        .expect("a good configuration");
    sleep(50 * SECOND).await;
    assert!((5..=6).contains(&looked.load(Relaxed)));
    assert_eq!(served(&ask(&failover, request()).await), "a");
    works.store(false, Relaxed);
    sleep(30 * SECOND).await;
    assert_eq!(status(&failover, "a"), TargetStatus::Down);
    assert_eq!(served(&ask(&failover, request()).await), "b");
    works.store(true, Relaxed);
    sleep(30 * SECOND).await;
    assert!(matches!(
        status(&failover, "a"),
        TargetStatus::Returning { .. }
    ));
    sleep(31 * SECOND).await;
    assert_eq!(served(&ask(&failover, request()).await), "a");
    let handle = failover.handle();
    drop(failover);
    sleep(SECOND).await;
    let before = looked.load(Relaxed);
    sleep(100 * SECOND).await;
    assert_eq!(looked.load(Relaxed), before, "they have ended");
    drop(handle);
}
