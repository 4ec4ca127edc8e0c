//! Programs under measurement, started and ended with their owner.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// A server that has said where it listens. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    pid: u32,
    child: Child,
    // Kept open: a program that prints to a closed pipe ends.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `program` and waits, for at most ten seconds, for its first line: `listening on http://ADDR`.
    ///
    /// # Errors
    /// When it cannot be started, ends, or says something else first.
    pub async fn start(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::other(format!("{}: {what}", program.display()));
        let mut command = Command::new(program);
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| wrong(&error.to_string()))?;
        let pid = child.id().ok_or_else(|| wrong("ended at once"))?;
        let mut output = BufReader::new(child.stdout.take().ok_or_else(|| wrong("has no output"))?);
        let mut line = String::new();
        timeout(Duration::from_secs(10), output.read_line(&mut line))
            .await
            .map_err(|_| wrong("does not say where it listens"))??;
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| {
                wrong(&format!(
                    "began with {line:?}, not with `listening on http://ADDR`"
                ))
            })?;
        Ok(Self {
            address,
            pid,
            child,
            _output: output,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }
    /// Ends it and waits until it has ended.
    ///
    /// # Errors
    /// When it had ended by itself and cannot be waited for.
    pub async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}
