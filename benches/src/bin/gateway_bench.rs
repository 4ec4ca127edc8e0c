//! A gateway beside the direct upstream and the least proxy, in one run:
//! `gateway_bench [--gateway PROGRAM] [--config FILE] [--rounds N] [--scale F] [--gap-us N]`.
//!
//! Starts `upstream` and `proxy`, which must lie beside this program (`cargo build --release -p donjon-benches` puts them
//! there), and the gateway, which is given `--config FILE --listen 127.0.0.1:0` and says `listening on http://ADDR` first. In
//! each round every server gets every kind of load in turn. `FILE` is a template in which `{upstream}` stands for the base URL;
//! without it, one OpenAI provider serves every model. Prints the medians of the rounds, then what the gateway needs for one of
//! the proxy's. Ends by itself and takes its servers along.
#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use donjon_benches::args::Args;
use donjon_benches::child::Server;
use donjon_benches::load::{Load, Target, local};
use donjon_benches::process::{Cpu, memory};
use donjon_benches::report::Table;
use donjon_benches::stats::{least, median};

const DEFAULT_CONFIG: &str = r#"
[providers.main]
kind = "openai"
base_url = "{upstream}"
api_key = "bench"

[[routes]]
model = "*"
targets = [{ provider = "main" }]
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::from_env(&[])?;
    let plan = Plan {
        gateway: args.get("gateway")?,
        config: args
            .get::<PathBuf>("config")?
            .map_or_else(|| Ok(DEFAULT_CONFIG.to_owned()), fs::read_to_string)?,
        rounds: args.or("rounds", 7)?,
        scale: args.or("scale", 1.0)?,
        gap: args.or("gap-us", 0)?,
    };
    local(run(&plan))?
}

struct Plan {
    gateway: Option<PathBuf>,
    config: String,
    rounds: usize,
    scale: f64,
    gap: u64,
}

/// A kind of load.
#[derive(Clone, Copy)]
struct Kind {
    stream: bool,
    connections: usize,
    calls: u64,
}

const KINDS: [Kind; 6] = [
    Kind {
        stream: false,
        connections: 1,
        calls: 3_000,
    },
    Kind {
        stream: false,
        connections: 16,
        calls: 10_000,
    },
    Kind {
        stream: false,
        connections: 64,
        calls: 10_000,
    },
    Kind {
        stream: true,
        connections: 1,
        calls: 1_000,
    },
    Kind {
        stream: true,
        connections: 16,
        calls: 2_000,
    },
    Kind {
        stream: true,
        connections: 64,
        calls: 2_000,
    },
];

/// What one server showed under one kind of load, a value for each round.
#[derive(Default)]
struct Samples {
    cpu: Vec<f64>,
    rate: Vec<f64>,
    first: [Vec<f64>; 2],
    last: [Vec<f64>; 2],
    errors: u64,
}

async fn run(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let here = std::env::current_exe()?
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default();
    let upstream = Server::start(
        &here.join("upstream"),
        ["--gap-us".to_owned(), plan.gap.to_string()],
    )
    .await?;
    let base = format!("http://{}/v1", upstream.address());
    let proxy = Server::start(&here.join("proxy"), ["--upstream", &base]).await?;
    let mut servers = vec![("direct", upstream), ("proxy", proxy)];
    let config = std::env::temp_dir().join(format!("gateway-bench-{}.toml", std::process::id()));
    if let Some(gateway) = &plan.gateway {
        fs::write(&config, plan.config.replace("{upstream}", &base))?;
        let args = [
            "--config".as_ref(),
            config.as_os_str(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
        ];
        let started = Server::start(gateway, args).await;
        fs::remove_file(&config)?;
        servers.push(("gateway", started?));
    }
    for (name, server) in &servers {
        check(name, server).await?;
    }
    let mut samples: Vec<[Samples; KINDS.len()]> =
        servers.iter().map(|_| Default::default()).collect();
    for _ in 0..plan.rounds {
        for (index, kind) in KINDS.iter().enumerate() {
            for ((_, server), samples) in servers.iter().zip(&mut samples) {
                measure(server, *kind, plan.scale, &mut samples[index]).await?;
            }
        }
    }
    let names: Vec<_> = servers.iter().map(|(name, _)| *name).collect();
    print(&names, &samples);
    println!();
    for (name, server) in servers {
        let memory = memory(server.pid())?;
        server.stop().await?;
        println!(
            "{name}: resident memory {:.1} MB, at most {:.1} MB",
            megabytes(memory.resident),
            megabytes(memory.peak)
        );
    }
    Ok(())
}

/// Shows that a server answers as the upstream does, before anything is timed.
async fn check(name: &str, server: &Server) -> Result<(), Box<dyn Error>> {
    for stream in [false, true] {
        let answer = Load::open(target(server, stream), 0).await?.probe().await;
        let answer = answer.map_err(|error| format!("{name} (stream: {stream}): {error}"))?;
        let text = String::from_utf8_lossy(&answer);
        let events = text.matches("data: ").count();
        if stream {
            println!(
                "{name}: a stream is {} bytes in {events} events",
                answer.len()
            );
        } else {
            println!("{name}: an answer is {} bytes", answer.len());
        }
    }
    Ok(())
}

async fn measure(
    server: &Server,
    kind: Kind,
    scale: f64,
    samples: &mut Samples,
) -> Result<(), Box<dyn Error>> {
    let mut load = Load::open(target(server, kind.stream), kind.connections).await?;
    let calls = scaled(kind.calls, scale);
    load.run(calls.div_ceil(5)).await;
    let before = Cpu::of(server.pid())?;
    let report = load.run(calls).await;
    let spent = Cpu::of(server.pid())?.since(&before);
    samples
        .cpu
        .push(spent.as_secs_f64() * 1_000.0 / whole(report.calls));
    samples.rate.push(report.rate());
    for (index, quantile) in [0.5, 0.99].into_iter().enumerate() {
        samples.first[index].push(whole(report.first.value_at_quantile(quantile)) / 1e6);
        samples.last[index].push(whole(report.last.value_at_quantile(quantile)) / 1e6);
    }
    samples.errors += report.errors;
    Ok(())
}

fn target(server: &Server, stream: bool) -> Target {
    Target {
        address: server.address(),
        path: "/v1/chat/completions".to_owned(),
        stream,
    }
}

fn print(names: &[&str], samples: &[[Samples; KINDS.len()]]) {
    let mut table = Table::new([
        "load",
        "server",
        "CPU s / 1,000 calls",
        "(least)",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "first chunk p50 ms",
        "first chunk p99 ms",
        "errors",
    ]);
    for (index, kind) in KINDS.iter().enumerate() {
        for (name, samples) in names.iter().zip(samples) {
            let Samples {
                cpu,
                rate,
                first,
                last,
                errors,
            } = &samples[index];
            let [first50, first99] = first
                .each_ref()
                .map(|values| format!("{:.3}", median(values)));
            let [last50, last99] = last
                .each_ref()
                .map(|values| format!("{:.3}", median(values)));
            let dash = |cell: String| {
                if kind.stream {
                    cell
                } else {
                    String::from("–")
                }
            };
            table.row([
                kind.to_string(),
                (*name).to_owned(),
                format!("{:.4}", median(cpu)),
                format!("{:.4}", least(cpu)),
                format!("{:.0}", median(rate)),
                last50,
                last99,
                dash(first50),
                dash(first99),
                errors.to_string(),
            ]);
        }
    }
    println!("\n{}", table.render());
    let [_, proxy, gateway] = samples else { return };
    let mut table = Table::new([
        "load",
        "gateway / proxy: CPU",
        "CPU (least)",
        "p99",
        "first chunk p99",
    ]);
    for (index, kind) in KINDS.iter().enumerate() {
        let (gateway, proxy) = (&gateway[index], &proxy[index]);
        let ratio = |of: fn(&Samples) -> f64| format!("{:.2} ×", of(gateway) / of(proxy));
        let cells = [
            ratio(|samples| median(&samples.cpu)),
            ratio(|samples| least(&samples.cpu)),
            ratio(|samples| median(&samples.last[1])),
            if kind.stream {
                ratio(|samples| median(&samples.first[1]))
            } else {
                String::from("–")
            },
        ];
        table.row([kind.to_string()].into_iter().chain(cells));
    }
    println!("{}", table.render());
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} connections",
            if self.stream { "streamed" } else { "unary" },
            self.connections
        )
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few thousand calls, times a small factor"
)]
fn scaled(calls: u64, scale: f64) -> u64 {
    (whole(calls) * scale).max(1.0) as u64
}

fn megabytes(kibibytes: u64) -> f64 {
    whole(kibibytes) / 1_024.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nothing counted here comes near 2^52"
)]
fn whole(value: u64) -> f64 {
    value as f64
}
