//! A gateway: several providers behind one OpenAI- and Anthropic-compatible address, with retry,
//! timeouts and failover between them.
//!
//! ```console
//! cargo run --release --example gateway [-- --config FILE] [--listen ADDR]
//! ```
//!
//! Without a file, the keys in the environment make the routes; without any key, two scripted
//! providers do, of which the first fails now and then. See `docs/gateway.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::{error::Error, net::SocketAddr, process::ExitCode};

use donjon::serve::server;
use donjon_examples::gateway::{Config, Gateway};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let config = match &options.config {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            Config::from_toml(&text).map_err(|e| format!("{file}: {e}"))?
        }
        None => Config::from_environment(),
    };
    let service = Gateway::build(&config)?.service()?;
    let listener = server::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    server::serve(listener, service, tokio::signal::ctrl_c()).await;
    Ok(())
}

struct Options {
    config: Option<String>,
    listen: SocketAddr,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            config: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{name}` needs a value"));
            match name.as_str() {
                "--config" => options.config = Some(value()?),
                "--listen" => {
                    let address = value()?;
                    options.listen = address.parse().map_err(|_| {
                        format!("`--listen`: `{address}` is no address with a port")
                    })?;
                }
                _ => {
                    return Err(format!(
                        "`{name}` is not known; usage: gateway [--config FILE] [--listen ADDR]"
                    )
                    .into());
                }
            }
        }
        Ok(options)
    }
}
