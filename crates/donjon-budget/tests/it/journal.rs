//! What the journal has when the process is killed, at each point at which it can be.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use donjon_budget::{BudgetHandle, BudgetsBuilder, FileStore, Limit};
use donjon_core::{ErrorKind, Figure, Key, NanoUsd, Snapshot, Usage};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{around, builder, expecting, passes, send, standing, tokens};

const NEVER: Duration = Duration::from_secs(3_600);

fn limit() -> Limit {
    Limit::hard(NanoUsd::from_dollars(1_000))
}

fn model() -> ScriptedLlm {
    ScriptedLlm::new(Script::answer("hi").usage(Usage::new(60, 40)))
}

/// Folds when it is asked to, and at the end.
fn opened(path: &Path) -> BudgetsBuilder {
    let store = FileStore::open(path).expect("it opens");
    // Without a sample all calls are alike, and so are their entries.
    let builder = builder().limit(limit()).sample_one_in(0);
    builder.store(store).flush_every(NEVER)
}

/// A folder with a store of the name `budget`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("budget")
    }

    fn journal(&self, number: u64) -> PathBuf {
        self.0.path().join(format!("budget.journal-{number}"))
    }

    /// As it would be if the process were killed now.
    fn killed(&self) -> Self {
        let copy = Self::new();
        for file in fs::read_dir(self.0.path()).expect("it is there") {
            let file = file.expect("a file");
            fs::copy(file.path(), copy.0.path().join(file.file_name())).expect("there is room");
        }
        copy
    }

    fn journals(&self) -> usize {
        let files = fs::read_dir(self.0.path()).expect("it is there");
        files.count() - 1
    }

    /// How many calls of 100 tokens are in the store, in the limit as in the report, and how many bytes of
    /// the journal were damaged. After that there is no journal, and it says the same once more.
    fn calls(&self) -> (i64, f64) {
        let read = || {
            let (_, handle) = around(&model(), opened(&self.store()));
            let (spent, _) = standing(&handle, &limit(), &Key::Global);
            assert_eq!(handle.report().total().cost, spent);
            (spent.nanos() / tokens(100).nanos(), damaged(&handle))
        };
        let (calls, damaged) = read();
        assert_eq!(self.journals(), 0);
        assert_eq!(read(), (calls, 0.0));
        (calls, damaged)
    }
}

fn damaged(handle: &BudgetHandle) -> f64 {
    let figures = handle.figures();
    let named = |figure: &&Figure| figure.name == "journal_damaged_bytes";
    let figure = figures.iter().find(named).expect("it is there");
    figure.value
}

/// The folder of a process that was killed after so many calls, of which none was folded.
async fn killed_after(calls: usize) -> Folder {
    let folder = Folder::new();
    let (service, _handle) = around(&model(), opened(&folder.store()));
    for _ in 0..calls {
        passes(&service, expecting(100, 100)).await;
    }
    folder.killed()
}

#[tokio::test]
async fn what_was_settled_is_there_after_a_kill() {
    let folder = killed_after(5).await;
    assert_eq!(folder.journals(), 1);
    assert_eq!(folder.calls(), (5, 0.0));
}

#[tokio::test]
async fn a_clean_end_leaves_no_journal() {
    let folder = Folder::new();
    let (service, handle) = around(&model(), opened(&folder.store()));
    passes(&service, expecting(100, 100)).await;
    drop((service, handle));
    assert_eq!(folder.journals(), 0);
    assert_eq!(folder.calls(), (1, 0.0));
}

/// The end of each entry.
fn ends(journal: &[u8], entries: usize) -> Vec<usize> {
    let length = journal.len() / entries;
    assert_eq!(journal.len() % entries, 0);
    (0..=entries).map(|entry| entry * length).collect()
}

#[tokio::test]
async fn a_torn_tail_is_no_entry_and_is_told() {
    let folder = killed_after(3).await;
    let journal = fs::read(folder.journal(1)).expect("it is there");
    let ends = ends(&journal, 3);
    // Around each end, and now and then between.
    let near =
        |cut: &usize| ends.iter().any(|end| cut.abs_diff(*end) < 2) || cut.is_multiple_of(131);
    for cut in (0..=journal.len()).filter(near) {
        let folder = folder.killed();
        fs::write(folder.journal(1), &journal[..cut]).expect("there is room");
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let torn = (cut - ends[whole]) as f64;
        let whole = i64::try_from(whole).expect("few");
        assert_eq!(folder.calls(), (whole, torn), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_damaged_entry_costs_no_other_and_is_told() {
    let folder = killed_after(5).await;
    let journal = fs::read(folder.journal(1)).expect("it is there");
    let ends = ends(&journal, 5);
    // The mark, the length, the checksum, a name, the last byte.
    for at in [ends[1], ends[1] + 5, ends[1] + 9, ends[1] + 40, ends[2] - 1] {
        let folder = folder.killed();
        let mut journal = journal.clone();
        journal[at] ^= 0x10;
        fs::write(folder.journal(1), journal).expect("there is room");
        assert_eq!(folder.calls(), (4, ends[1] as f64), "damaged at {at}");
    }
}

/// Killed between the save of the sums and the removal of the file.
#[tokio::test]
async fn what_was_folded_is_not_read_again() {
    let folder = Folder::new();
    let (service, handle) = around(&model(), opened(&folder.store()));
    for _ in 0..5 {
        passes(&service, expecting(100, 100)).await;
    }
    let journal = fs::read(folder.journal(1)).expect("it is there");
    handle.flush().await.expect("it is kept");
    let killed = folder.killed();
    fs::write(killed.journal(1), &journal).expect("there is room");
    assert_eq!(killed.calls(), (5, 0.0));
    // The same, and another generation was written to.
    passes(&service, expecting(100, 100)).await;
    let killed = folder.killed();
    fs::write(killed.journal(1), &journal).expect("there is room");
    assert_eq!(killed.journals(), 2);
    assert_eq!(killed.calls(), (6, 0.0));
}

/// Killed after a generation was closed and before its sums were saved.
#[tokio::test]
async fn two_generations_are_both_read() {
    let folder = killed_after(5).await;
    fs::copy(folder.journal(1), folder.journal(2)).expect("there is room");
    assert_eq!(folder.calls(), (10, 0.0));
    // An empty one, and a number that is far ahead.
    let folder = killed_after(2).await;
    fs::write(folder.journal(2), []).expect("there is room");
    fs::copy(folder.journal(1), folder.journal(1_000)).expect("there is room");
    assert_eq!(folder.calls(), (4, 0.0));
}

/// Who writes no journal any more reads the one that there is.
#[tokio::test]
async fn without_a_journal_what_stands_in_one_is_read() {
    let folder = killed_after(5).await;
    {
        let (service, handle) = around(&model(), opened(&folder.store()).journal(false));
        passes(&service, expecting(100, 100)).await;
        assert_eq!(folder.killed().calls(), (5, 0.0), "nothing is written down");
        handle.flush().await.expect("it is kept");
        assert_eq!(folder.killed().calls(), (6, 0.0));
    }
    assert_eq!(folder.calls(), (6, 0.0));
}

/// So does who was killed again before anything was folded.
#[tokio::test]
async fn kills_one_after_another_lose_nothing() {
    let mut folder = Folder::new();
    for round in 1..6 {
        let killed = {
            let (service, _handle) = around(&model(), opened(&folder.store()));
            passes(&service, expecting(100, 100)).await;
            folder.killed()
        };
        assert_eq!(killed.killed().calls(), (round, 0.0));
        folder = killed;
    }
}

#[tokio::test]
async fn a_reset_outlives_a_kill() {
    let folder = Folder::new();
    let (service, handle) = around(&model(), opened(&folder.store()));
    for _ in 0..5 {
        passes(&service, expecting(100, 100)).await;
    }
    handle.flush().await.expect("it is kept");
    handle
        .reset(&limit().to_string(), &Key::Global)
        .expect("it is there");
    handle.reset_report();
    passes(&service, expecting(100, 100)).await;
    assert_eq!(folder.killed().calls(), (1, 0.0));
}

#[tokio::test]
async fn attempts_that_are_not_billed_are_kept_too() {
    let folder = Folder::new();
    let failing = ScriptedLlm::new(Script::fail(ErrorKind::ServerError));
    let (service, handle) = around(&failing, opened(&folder.store()));
    send(&service, expecting(100, 100))
        .await
        .expect_err("it fails");
    let unbilled = handle.report().total();
    assert_eq!(unbilled.unbilled, 1);
    let (_, handle) = around(&model(), opened(&folder.killed().store()));
    assert_eq!(handle.report().total(), unbilled);
}

/// Many write while generations are closed under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_generations_are_closed() {
    let folder = Folder::new();
    let path = folder.store();
    let store = FileStore::open(&path).expect("it opens");
    let builder = builder().limit(limit()).store(store);
    let (service, handle) = around(&model(), builder.flush_every(Duration::from_millis(1)));
    let spend = || {
        let service = service.clone();
        tokio::spawn(async move {
            for _ in 0..500 {
                passes(&service, expecting(100, 100)).await;
            }
        })
    };
    let spenders: Vec<_> = (0..4).map(|_| spend()).collect();
    for _ in 0..20 {
        handle.flush().await.expect("it is kept");
    }
    for spender in spenders {
        spender.await.expect("no panic");
    }
    drop((service, handle));
    assert_eq!(folder.calls(), (2_000, 0.0));
}

/// What writing down costs: the least of some batches of calls, one after another.
#[tokio::test]
#[ignore = "a measurement: cargo test --release -p donjon-budget --features file-store --test it -- --ignored costs --nocapture"]
async fn what_a_settlement_costs_with_a_journal_and_without() {
    const CALLS: u32 = 10_000;
    for journaled in [false, true] {
        let folder = Folder::new();
        let store = FileStore::open(folder.store()).expect("it opens");
        let builder = builder().limit(limit()).store(store).journal(journaled);
        let (service, _handle) = around(&model(), builder);
        let mut least = Duration::MAX;
        for _ in 0..20 {
            let start = tokio::time::Instant::now();
            for _ in 0..CALLS {
                passes(&service, expecting(100, 100)).await;
            }
            least = least.min(start.elapsed() / CALLS);
        }
        say(&format!(
            "a call with a store, journal {journaled}: {least:?}"
        ));
    }
}

#[expect(clippy::print_stdout, reason = "a measurement says what it found")]
fn say(what: &str) {
    println!("{what}");
}
