//! One table, one row a layer: nanoseconds and allocations for each call and chunk, beside the nearest peers, in one run.
//!
//! `cargo bench -p donjon-benches --bench layers -- [--rounds N] [PART-OF-A-NAME …]`; leaves are always measured. Run without
//! `--bench` (as `cargo test --benches` does) it takes one round, to show that every row works.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

mod breaker_rows;
mod budget_rows;
mod donjon;
mod failover_rows;
mod hedge_rows;
mod leaf;
mod liter_llm_rows;
mod pool_rows;
mod rate_limit_rows;
mod token_count_rows;
mod tower_resilience_rows;
mod tower_rows;

use donjon_benches::alloc::Counting;
use donjon_benches::args::Args;
use donjon_benches::{meter, report};
use donjon_core::{Chunk, LlmError, LlmRequest, LlmResponse};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), String> {
    let args = Args::from_env(&["bench"])?;
    let rounds = args.or("rounds", if args.flag("bench") { 100 } else { 1 })?;
    let mut rows = Vec::new();
    rows.extend(donjon::rows());
    rows.extend(breaker_rows::rows());
    rows.extend(rate_limit_rows::rows());
    rows.extend(pool_rows::rows());
    rows.extend(budget_rows::rows());
    rows.extend(failover_rows::rows());
    rows.extend(hedge_rows::rows());
    rows.extend(token_count_rows::rows());
    rows.extend(tower_rows::rows());
    rows.extend(tower_resilience_rows::rows());
    rows.extend(liter_llm_rows::rows());
    if !args.words().is_empty() {
        rows.retain(|row| {
            row.is_leaf() || args.words().iter().any(|part| row.name().contains(part))
        });
    }
    println!(
        "LlmRequest {} bytes, LlmResponse {}, Chunk {}, LlmError {}\n",
        size_of::<LlmRequest>(),
        size_of::<LlmResponse>(),
        size_of::<Chunk>(),
        size_of::<LlmError>(),
    );
    println!("{}", report::layers(&meter::measure(rows, rounds)));
    Ok(())
}
