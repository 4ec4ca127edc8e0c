//! What was spent outlives the process, however it ends.

use std::{
    env,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use donjon_budget::{Budgets, FileStore, Limit};
use donjon_core::{Key, KeyBy, NanoUsd, Usage};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{Clock, around, builder, expecting, passes, send, standing, tokens};

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
    // One entry of the journal has all of a settlement.
    assert_eq!((report.cost, of_model), (spent, spent));
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

/// Periods are numbered each in its own way: what was kept by the days of a limit says nothing of its months.
#[tokio::test]
async fn a_limit_that_changes_its_period_begins_anew() {
    let hour = Duration::from_secs(3_600);
    let named = || Limit::hard(tokens(250)).name("team");
    let periods = [
        named().per_week(),
        named().per_day(),
        named().per_month(),
        named().rolling(hour * 24),
        named().rolling(hour),
        named().per_day(),
        named().per_day(),
    ];
    for journaled in [true, false] {
        for pair in periods.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("budget");
            let open = |limit: &Limit, clock: &Clock| {
                let store = FileStore::open(&path).expect("it opens");
                let builder = builder().clock(clock.wall()).limit(limit.clone());
                around(&model(), builder.store(store).journal(journaled))
            };
            let clock = Clock::new();
            let spent = |handle: &donjon_budget::BudgetHandle| {
                let standing = handle.standing("team", &Key::Global);
                standing.expect("there is such a limit").spent
            };
            let (service, handle) = open(before, &clock);
            passes(&service, expecting(50, 50)).await;
            passes(&service, expecting(50, 50)).await;
            drop((service, handle));
            let (service, handle) = open(after, &clock);
            let same = before.period() == after.period();
            let kept = if same { tokens(200) } else { tokens(0) };
            assert_eq!(spent(&handle), kept, "{before} {after}");
            assert_eq!(handle.report().total().cost, tokens(200));
            // A new period comes when it should.
            clock.forward(40 * 24 * 3_600);
            passes(&service, expecting(50, 50)).await;
            drop((service, handle));
            let (_, handle) = open(after, &clock);
            assert_eq!(spent(&handle), tokens(100), "{before} {after}");
        }
    }
}

/// While a call is under way nobody else has the file: what it has used would be written where nobody reads it.
#[tokio::test]
async fn the_file_is_open_until_the_last_call_is_settled() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("budget");
    let model = ScriptedLlm::new(Script::words(3).usage(Usage::new(60, 40)).model("served"));
    let (service, handle) = around(&model, opened(&path));
    let dollar = NanoUsd::from_dollars(1);
    let price = donjon_budget::Price::new(dollar, dollar);
    handle.set_price("p", "served", price).expect("a price");
    let request = expecting(100, 100).streamed();
    let answer = send(&service, request).await.expect("it passes");
    drop((service, handle));
    FileStore::open(&path).expect_err("a stream is still read");
    answer.collect().await.expect("a whole answer");
    assert_eq!(spent(&path), tokens(100));
}

/// Each names the other as the model that served; nothing of them is left behind.
#[tokio::test]
async fn models_that_serve_for_each_other_let_go_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("budget");
    let served = |name| Script::answer("hi").usage(Usage::new(60, 40)).model(name);
    let model = ScriptedLlm::new(served("m")).then(served("twin"));
    let (service, handle) = around(&model, opened(&path));
    let dollar = NanoUsd::from_dollars(1);
    let price = donjon_budget::Price::new(dollar, dollar);
    handle.set_price("p", "twin", price).expect("a price");
    passes(&service, expecting(100, 100)).await;
    passes(&service, expecting(100, 100).with_model("twin")).await;
    assert_eq!(handle.report().by_model().len(), 2);
    drop((service, handle));
    FileStore::open(&path).expect("nobody has it");
}

/// How many tasks of the child spend at once.
const SPENDERS: u64 = 3;

/// Not a test of its own: what is killed. It tells before each call that it begins one, and after it, without
/// waiting for anything, that it was settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn child_that_spends() {
    let Some(path) = env::var_os("DONJON_BUDGET_CHILD").map(PathBuf::from) else {
        return;
    };
    // Some fold all the time, so that they are killed in the midst of it.
    let every = env::var("DONJON_BUDGET_FOLD").expect("how often");
    let every = Duration::from_millis(every.parse().expect("a number"));
    let (service, _handle) = around(&model(), opened(&path).flush_every(every));
    let spenders = (0..SPENDERS).map(|_| {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                tell(b"b");
                passes(&service, expecting(100, 100)).await;
                tell(b"s");
            }
        })
    });
    futures_util::future::join_all(spenders.collect::<Vec<_>>()).await;
}

/// To the parent, which lives on.
fn tell(what: &[u8]) {
    std::io::stderr().write_all(what).expect("somebody reads");
}

/// Kills the child so many times, at any moment, and compares the store with what the child said.
#[expect(clippy::print_stdout, reason = "a long run says what it saw")]
fn kill(times: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("budget");
    let mut random = fastrand::Rng::with_seed(times);
    let (mut begun, mut settled) = (0_i64, 0_i64);
    // Since the store was looked at last: so few are uncertain at a time that none can hide.
    let mut known = (0, 0, 0);
    for round in 0..times {
        let fold = [1, 1, 3, 50][random.usize(..4)];
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "kept::child_that_spends", "--nocapture"])
            .env("DONJON_BUDGET_CHILD", &path)
            .env("DONJON_BUDGET_FOLD", fold.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = child.stderr.take().expect("a pipe");
        let mut said = BufReader::with_capacity(16, said).bytes();
        let before = (begun, settled);
        let mut count = |byte: std::io::Result<u8>| match byte.expect("a byte") {
            b'b' => begun += 1,
            b's' => settled += 1,
            other => panic!("{}", char::from(other)),
        };
        // Some are killed while they open the file, most some hundred calls later.
        if random.u8(..8) > 0 {
            for _ in 0..1 + random.usize(..1_500) {
                count(said.next().expect("it lives"));
            }
        }
        std::hint::black_box((0..random.u64(..400_000)).sum::<u64>());
        child.kill().expect("it lives");
        child.wait().expect("it is gone");
        said.for_each(&mut count);
        let open = (begun - before.0) - (settled - before.1);
        assert!((0..=3).contains(&open), "{open} were under way");
        // The store is read by a process of its own in the next round; here now and then.
        if round % 5 == 4 || round + 1 == times {
            let calls = spent(&path).nanos() / tokens(100).nanos();
            let more = (settled - known.0, calls - known.1, begun - known.2);
            assert!(
                more.0 <= more.1,
                "{more:?}: some that were settled are lost"
            );
            assert!(more.1 <= more.2, "{more:?}: some were charged twice");
            known = (settled, calls, begun);
        }
    }
    assert!(
        settled > i64::try_from(times).expect("few") * 100,
        "{settled} calls were settled"
    );
    println!(
        "{times} kills, {begun} calls begun, {settled} told to be settled, {} of them in the store",
        spent(&path).nanos() / tokens(100).nanos()
    );
}

#[test]
fn killed_at_any_moment_nothing_settled_is_lost_or_charged_twice() {
    kill(24);
}

#[test]
#[ignore = "takes minutes: cargo test -p donjon-budget --features file-store --test it -- --ignored thousand --nocapture"]
fn a_thousand_kills() {
    kill(1_000);
}
