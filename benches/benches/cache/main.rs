//! What a call costs that is answered from a cache, beside the bare table, the bare hash and other layers, in one run.
//!
//! `cargo bench -p donjon-benches --bench cache -- [--rounds N] [PART-OF-A-NAME …]`. Requests are made beforehand and not
//! measured. A figure is the processor time of a batch for each of its calls, the median of rounds that go over all rows in an
//! order shuffled anew each time; allocations are counted in a batch of their own.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

mod bare;
mod donjon;
mod peers;
mod row;

use donjon_benches::alloc::Counting;
use donjon_benches::args::Args;
use donjon_benches::report::Table;
use donjon_benches::stats::{least, median};
use row::{Row, Take};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bytes the text of a prompt takes.
const SIZES: [(&str, usize); 3] = [("50 B", 50), ("1 KB", 1 << 10), ("100 KB", 100 << 10)];

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let rounds: usize = args.or("rounds", if args.flag("bench") { 200 } else { 1 })?;
    let mut rows = Vec::new();
    for size in SIZES {
        rows.extend(bare::rows(size));
        rows.extend(donjon::rows(size));
        rows.extend(peers::rows(size));
    }
    let words = args.words();
    rows.retain(|row| words.is_empty() || words.iter().any(|part| row.name().contains(part)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    println!("{}", measure(&mut rows, rounds, &runtime));
    Ok(())
}

fn measure(rows: &mut [Row], rounds: usize, runtime: &tokio::runtime::Runtime) -> String {
    const UNCOUNTED: usize = 3;
    let mut random = fastrand::Rng::with_seed(1);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut times = vec![Vec::new(); rows.len()];
    for round in 0..UNCOUNTED + rounds {
        random.shuffle(&mut order);
        for &row in &order {
            let time = rows[row].take(Take::Time, runtime);
            if round >= UNCOUNTED {
                times[row].push(time);
            }
        }
    }
    let mut table = Table::new(["", "ns a call", "least", "allocations", "GB/s"]);
    for (row, times) in rows.iter_mut().zip(&times) {
        let ns = median(times);
        let allocations = row.take(Take::Allocations, runtime);
        let speed = row.hashed().map(|bytes| format!("{:.2}", bytes / ns));
        table.row([
            row.name().to_owned(),
            format!("{ns:.0}"),
            format!("{:.0}", least(times)),
            format!("{allocations:.1}"),
            speed.unwrap_or_default(),
        ]);
    }
    table.render()
}
