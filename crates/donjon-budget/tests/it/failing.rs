//! A store that fails, and calls meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use donjon_budget::{
    BudgetEvent, BudgetHandle, BudgetsBuilder, Closed, Journal, Limit, Record, Store, StoreError,
    WhenUnkept,
};
use donjon_core::{Heard, Key, NanoUsd, Snapshot, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::task::JoinSet;

use crate::{around, builder, expecting, passes, refused, send, standing, tokens};

fn model() -> ScriptedLlm {
    ScriptedLlm::new(Script::answer("hi").usage(Usage::new(60, 40)).yields(1))
}

fn limit() -> Limit {
    Limit::hard(NanoUsd::from_dollars(1_000))
}

/// A disk that is in memory, and fails as long as it is told to. Its clones are one.
#[derive(Clone, Default)]
struct Disk(Arc<Inside>);

#[derive(Default)]
struct Inside {
    records: Mutex<HashMap<String, Vec<u64>>>,
    journaled: bool,
    current: Mutex<Vec<Vec<u8>>>,
    generation: AtomicU64,
    saves_fail: AtomicBool,
    appends_fail: AtomicBool,
    closes_fail: AtomicBool,
}

impl Disk {
    fn journaled() -> Self {
        Self(Arc::new(Inside {
            journaled: true,
            ..Inside::default()
        }))
    }

    fn fails(&self, fails: bool) {
        self.0.saves_fail.store(fails, SeqCst);
    }

    /// What is left on it if the process is killed now.
    fn killed(&self) -> Self {
        Self(Arc::new(Inside {
            records: Mutex::new(self.0.records.lock().expect("no panic").clone()),
            current: Mutex::new(self.0.current.lock().expect("no panic").clone()),
            generation: self.0.generation.load(SeqCst).into(),
            journaled: true,
            ..Inside::default()
        }))
    }

    /// What it has of the limit and of the report.
    fn calls(&self) -> i64 {
        self.fails(false);
        self.0.appends_fail.store(false, SeqCst);
        self.0.closes_fail.store(false, SeqCst);
        let (_, handle) = around(&model(), kept_by(self));
        let (spent, _) = standing(&handle, &limit(), &Key::Global);
        assert_eq!(handle.report().total().cost, spent);
        spent.nanos() / tokens(100).nanos()
    }
}

fn unless(fails: &AtomicBool) -> Result<(), StoreError> {
    match fails.load(SeqCst) {
        true => Err(StoreError::new("no space left")),
        false => Ok(()),
    }
}

impl Store for Disk {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let records = self.0.records.lock().expect("no panic");
        let record = |(id, figures): (&String, &Vec<u64>)| Record {
            id: id.clone(),
            figures: figures.clone(),
        };
        Ok(records.iter().map(record).collect())
    }

    fn save(&mut self, changed: &[Record]) -> Result<(), StoreError> {
        unless(&self.0.saves_fail)?;
        let mut records = self.0.records.lock().expect("no panic");
        for record in changed {
            records.insert(record.id.clone(), record.figures.clone());
        }
        Ok(())
    }

    fn forget(&mut self, ids: &[String]) -> Result<(), StoreError> {
        let mut records = self.0.records.lock().expect("no panic");
        records.retain(|id, _| !ids.contains(id));
        Ok(())
    }

    fn journal(&mut self) -> Option<Arc<dyn Journal>> {
        self.0
            .journaled
            .then(|| Arc::new(self.clone()) as Arc<dyn Journal>)
    }
}

/// Its generations go when they are closed: what they have is saved, or in the memory of who closed them.
impl Journal for Disk {
    fn append(&self, entry: &[u8]) -> Result<(), StoreError> {
        unless(&self.0.appends_fail)?;
        self.0
            .current
            .lock()
            .expect("no panic")
            .push(entry.to_vec());
        Ok(())
    }

    fn close(&self, above: u64) -> Result<Closed, StoreError> {
        unless(&self.0.closes_fail)?;
        let mut current = self.0.current.lock().expect("no panic");
        let mut closed = Closed::default();
        if !current.is_empty() {
            let generation = self.0.generation.load(SeqCst).max(above) + 1;
            self.0.generation.store(generation, SeqCst);
            closed.generation = Some(generation);
            closed.entries = std::mem::take(&mut *current);
        }
        Ok(closed)
    }

    fn forget(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

fn kept_by(disk: &Disk) -> BudgetsBuilder {
    let builder = builder().limit(limit()).store(disk.clone());
    builder.flush_every(Duration::from_secs(3_600))
}

/// How often it was told.
fn told(handle: &BudgetHandle) -> impl FnMut() -> usize + use<> {
    let mut events = handle.events().listen();
    move || {
        let heard = std::iter::from_fn(|| events.try_next());
        let failed =
            heard.filter(|heard| matches!(heard, Heard::Event(BudgetEvent::StoreFailed { .. })));
        failed.count()
    }
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_refuses_if_it_is_to() {
    for disk in [Disk::default(), Disk::journaled()] {
        for when in [WhenUnkept::Pass, WhenUnkept::Refuse] {
            let (service, handle) = around(&model(), kept_by(&disk).when_unkept(when));
            let mut told = told(&handle);
            disk.fails(true);
            passes(&service, expecting(100, 100)).await;
            assert!(handle.flush().await.is_err());
            assert!(told() == 1 && handle.health().is_err());
            match when {
                WhenUnkept::Refuse => drop(refused(&service, expecting(100, 100)).await),
                _ => passes(&service, expecting(100, 100)).await,
            }
            disk.fails(false);
            handle.flush().await.expect("it works again");
            assert!(handle.health().is_ok());
            passes(&service, expecting(100, 100)).await;
        }
        // Two and three.
        assert_eq!(disk.calls(), 5);
    }
}

/// The store comes and goes under calls of several threads: whatever passed is kept in the end, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_what_passes_is_kept_in_the_end() {
    for disk in [Disk::default(), Disk::journaled()] {
        for when in [WhenUnkept::Pass, WhenUnkept::Refuse] {
            let before = disk.calls();
            let builder = kept_by(&disk).when_unkept(when);
            let builder = builder.flush_every(Duration::from_millis(1));
            let (service, handle) = around(&model(), builder);
            let mut tasks = JoinSet::new();
            for _ in 0..8 {
                let service = service.clone();
                tasks.spawn(async move {
                    let mut passed = 0_i64;
                    for _ in 0..250 {
                        passed += i64::from(send(&service, expecting(100, 100)).await.is_ok());
                        tokio::task::yield_now().await;
                    }
                    passed
                });
            }
            // At least once each way, whatever the threads do.
            for round in 0..20 {
                disk.fails(round % 2 == 0);
                disk.0.appends_fail.store(round % 3 == 0, SeqCst);
                disk.0.closes_fail.store(round % 5 == 1, SeqCst);
                let _ = handle.flush().await;
            }
            disk.fails(false);
            disk.0.appends_fail.store(false, SeqCst);
            disk.0.closes_fail.store(false, SeqCst);
            let _ = handle.flush().await;
            let mut passed = 0;
            while let Some(task) = tasks.join_next().await {
                passed += task.expect("no panic");
            }
            assert_eq!(u64::try_from(passed), Ok(handle.settled()));
            if when == WhenUnkept::Pass {
                assert_eq!(passed, 2_000);
            }
            assert_eq!(passed + refusals(&handle), 2_000);
            handle.flush().await.expect("it works again");
            drop((service, handle));
            assert_eq!(disk.calls(), before + passed);
        }
    }
}

fn refusals(handle: &BudgetHandle) -> i64 {
    let figures = handle.figures();
    let of_store = figures.iter().find(|figure| {
        figure.name == "refused" && figure.labels.iter().any(|(_, reason)| reason == "store")
    });
    let count = of_store.expect("it is there").value.to_string();
    count.parse().expect("a whole number")
}

/// What cannot be written down is kept in mind, told once, and saved with the next sums.
#[tokio::test]
async fn what_the_journal_does_not_take_is_saved_all_the_same() {
    let disk = Disk::journaled();
    let (service, handle) = around(&model(), kept_by(&disk).when_unkept(WhenUnkept::Pass));
    let mut told = told(&handle);
    passes(&service, expecting(100, 100)).await;
    disk.0.appends_fail.store(true, SeqCst);
    for _ in 0..3 {
        passes(&service, expecting(100, 100)).await;
    }
    assert_eq!(told(), 1);
    assert!(handle.health().is_err());
    handle.flush().await.expect("sums can be saved");
    assert!(handle.health().is_ok());
    passes(&service, expecting(100, 100)).await;
    assert_eq!(told(), 1);
    drop((service, handle));
    assert_eq!(disk.calls(), 5);
}

/// With a journal that fails and a store that does not, one call passes between two saves.
#[tokio::test]
async fn a_journal_that_fails_refuses_if_it_is_to() {
    let disk = Disk::journaled();
    let (service, handle) = around(&model(), kept_by(&disk).when_unkept(WhenUnkept::Refuse));
    disk.0.appends_fail.store(true, SeqCst);
    passes(&service, expecting(100, 100)).await;
    refused(&service, expecting(100, 100)).await;
    handle.flush().await.expect("sums can be saved");
    passes(&service, expecting(100, 100)).await;
    refused(&service, expecting(100, 100)).await;
    drop((service, handle));
    assert_eq!(disk.calls(), 2);
}

/// What a reset took off was in memory alone, and the reset is written down: nobody is owed anything.
#[tokio::test]
async fn a_reset_of_what_was_never_written_down_leaves_nothing() {
    let disk = Disk::journaled();
    let (service, handle) = around(&model(), kept_by(&disk));
    passes(&service, expecting(100, 100)).await;
    disk.0.appends_fail.store(true, SeqCst);
    passes(&service, expecting(100, 100)).await;
    disk.0.appends_fail.store(false, SeqCst);
    let name = limit().to_string();
    handle.reset(&name, &Key::Global).expect("it is there");
    handle.reset_report();
    let killed = disk.killed();
    assert_eq!(killed.calls(), 0);
    let (service, handle) = around(&model(), kept_by(&killed));
    passes(&service, expecting(100, 100)).await;
    assert_eq!(handle.report().total().attempts, 1);
    drop((service, handle));
    assert_eq!(killed.calls(), 1);
}
