//! What was spent outlives the process, however it ends.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use donjon_budget::{Budgets, FileStore, Limit, Record, Store, StoreError, WhenUnkept};
use donjon_core::{Key, KeyBy, NanoUsd, Snapshot, Usage};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{around, builder, expecting, passes, refused, standing, tokens};

fn model() -> ScriptedLlm {
    ScriptedLlm::new(Script::answer("hi").usage(Usage::new(60, 40)))
}

fn limit() -> Limit {
    Limit::hard(NanoUsd::from_dollars(1_000_000))
}

fn rolling() -> Limit {
    limit()
        .rolling(Duration::from_secs(86_400))
        .key_by(KeyBy::Model)
}

fn opened(path: &Path) -> donjon_budget::BudgetsBuilder {
    let store = FileStore::open(path).expect("it opens");
    builder().limit(limit()).limit(rolling()).store(store)
}

fn spent(path: &Path) -> NanoUsd {
    let budgets: Budgets = opened(path).build().expect("it is read");
    let handle = budgets.handle();
    let (spent, reserved) = standing(&handle, &limit(), &Key::Global);
    assert_eq!(reserved, NanoUsd::ZERO);
    let of_model = standing(&handle, &rolling(), &Key::name("m")).0;
    let report = handle.report().total();
    assert_eq!(report.cost.nanos() % tokens(100).nanos(), 0, "whole calls");
    assert_eq!(
        report.cost,
        tokens(100 * i64::try_from(report.attempts).expect("few"))
    );
    // They are read one after another, so one may be a call ahead of another.
    let apart =
        |one: NanoUsd, other: NanoUsd| (one.nanos() - other.nanos()).abs() <= tokens(100).nanos();
    assert!(
        apart(report.cost, spent) && apart(of_model, spent),
        "{report:?} {spent} {of_model}"
    );
    spent
}

#[tokio::test]
async fn what_was_spent_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("budget");
    for round in 1..4 {
        let (service, handle) = around(&model(), opened(&path));
        for _ in 0..5 {
            passes(&service, expecting(100, 100)).await;
        }
        if round == 2 {
            handle.flush().await.expect("it is kept");
        }
        drop((service, handle));
        assert_eq!(spent(&path), tokens(500 * round));
    }
}

/// Not a test of its own: what is killed. It says after each call how many calls are kept for sure.
#[tokio::test]
async fn child_that_spends() {
    let Some(path) = env::var_os("DONJON_BUDGET_CHILD").map(PathBuf::from) else {
        return;
    };
    let (service, handle) = around(&model(), opened(&path));
    let mut out = std::io::stderr();
    loop {
        writeln!(out, "begun").expect("somebody reads");
        passes(&service, expecting(100, 100)).await;
        handle.flush().await.expect("it is kept");
        writeln!(out, "kept").expect("somebody reads");
    }
}

/// Kills the child so many times, at any moment, and compares the store with what the child said.
#[expect(clippy::print_stdout, reason = "a long run says what it saw")]
fn kill(times: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("budget");
    let (mut begun, mut kept) = (0_i64, 0_i64);
    for round in 0..times {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "kept::child_that_spends", "--nocapture"])
            .env("DONJON_BUDGET_CHILD", &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut count = |line: String| match &*line {
            "begun" => begun += 1,
            "kept" => kept += 1,
            other => panic!("{other}"),
        };
        // Some are killed while they open the file, most a few calls later.
        if round % 8 != 7 {
            for _ in 0..1 + round % 9 {
                count(said.next().expect("it lives").expect("text"));
            }
        }
        std::hint::black_box((0..(round * 7_919) % 400_000).sum::<u64>());
        child.kill().expect("it lives");
        child.wait().expect("it is gone");
        for line in said {
            count(line.expect("text"));
        }
        // The store is read by a process of its own in the next round; here now and then.
        if round % 5 == 4 || round + 1 == times {
            let spent = spent(&path);
            assert!(
                tokens(100 * kept) <= spent,
                "{spent} but {kept} calls were kept"
            );
            assert!(
                spent <= tokens(100 * begun),
                "{spent} but {begun} calls were begun"
            );
        }
    }
    assert!(
        kept > i64::try_from(times).expect("few") / 2,
        "{kept} calls were kept"
    );
    println!(
        "{times} kills, {begun} calls begun, {kept} told to be kept, {} in the store",
        spent(&path)
    );
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_charged_twice() {
    kill(40);
}

#[test]
#[ignore = "takes minutes: cargo test -p donjon-budget --features file-store --test it -- --ignored thousand --nocapture"]
fn a_thousand_kills() {
    kill(1_000);
}

/// A disk that fails until it is told not to.
struct Broken(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Store for Broken {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn save(&mut self, _: &[Record]) -> Result<(), StoreError> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(StoreError::new("no space left")),
            false => Ok(()),
        }
    }

    fn forget(&mut self, _: &[String]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_refuses_if_it_is_to() {
    for when in [WhenUnkept::Pass, WhenUnkept::Refuse] {
        let broken = std::sync::Arc::new(true.into());
        let builder = builder()
            .limit(limit())
            .store(Broken(std::sync::Arc::clone(&broken)))
            .when_unkept(when);
        let (service, handle) = around(&model(), builder.flush_every(Duration::from_secs(3_600)));
        let mut events = handle.events().listen();
        passes(&service, expecting(100, 100)).await;
        assert!(handle.flush().await.is_err());
        assert!(events.try_next().is_some() && handle.health().is_err());
        match when {
            WhenUnkept::Refuse => drop(refused(&service, expecting(100, 100)).await),
            _ => passes(&service, expecting(100, 100)).await,
        }
        broken.store(false, std::sync::atomic::Ordering::SeqCst);
        handle.flush().await.expect("it works again");
        assert!(handle.health().is_ok());
        passes(&service, expecting(100, 100)).await;
    }
}
