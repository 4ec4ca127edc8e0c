//! A closed-loop load generator: `load --url URL [--connections N] [--calls M] [--warm-up W] [--stream] [--pid P]`.
//!
//! `URL` is `http://IP:PORT/v1/chat/completions`. With `--pid` it also prints what that process used meanwhile.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::error::Error;

use donjon_benches::args::Args;
use donjon_benches::load::{Load, Target, local};
use donjon_benches::process::{Cpu, memory};
use hdrhistogram::Histogram;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::from_env(&["stream"])?;
    let target = Target::parse(&args.required::<String>("url")?, args.flag("stream"))?;
    let (connections, calls) = (args.or("connections", 16)?, args.or("calls", 10_000)?);
    let warm_up = args.or("warm-up", calls / 10)?;
    let pid: Option<u32> = args.get("pid")?;
    local(run(target, connections, calls, warm_up, pid))?
}

async fn run(
    target: Target,
    connections: usize,
    calls: u64,
    warm_up: u64,
    pid: Option<u32>,
) -> Result<(), Box<dyn Error>> {
    let stream = target.stream;
    let mut load = Load::open(target, connections).await?;
    load.run(warm_up).await;
    let before = pid.map(Cpu::of).transpose()?;
    let report = load.run(calls).await;
    println!(
        "calls            {} in {:.2?}, {:.0}/s",
        report.calls,
        report.elapsed,
        report.rate()
    );
    println!(
        "errors           {} {}",
        report.errors,
        report.first_error.as_deref().unwrap_or_default()
    );
    if stream {
        println!("to first chunk   {}", quantiles(&report.first));
    }
    println!("to last byte     {}", quantiles(&report.last));
    if let (Some(pid), Some(before)) = (pid, before) {
        let spent = Cpu::of(pid)?.since(&before).as_secs_f64();
        let memory = memory(pid)?;
        println!(
            "processor time   {:.4} s for 1,000 calls",
            spent * 1_000.0 / whole(report.calls)
        );
        println!(
            "resident memory  {:.1} MB, at most {:.1} MB",
            whole(memory.resident) / 1_024.0,
            whole(memory.peak) / 1_024.0
        );
    }
    Ok(())
}

fn quantiles(latencies: &Histogram<u64>) -> String {
    let at = |quantile| whole(latencies.value_at_quantile(quantile)) / 1e6;
    format!(
        "p50 {:.3} ms  p90 {:.3} ms  p99 {:.3} ms",
        at(0.5),
        at(0.9),
        at(0.99)
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nothing counted here comes near 2^52"
)]
fn whole(value: u64) -> f64 {
    value as f64
}
