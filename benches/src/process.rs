//! What another process has used, as Linux tells it under `/proc`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::time::Duration;

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now (`VmRSS`).
    pub resident: u64,
    /// At most so far (`VmHWM`).
    pub peak: u64,
}

/// Processor time, user and system, that a process had used at some moment.
#[derive(Clone, Debug)]
pub struct Cpu {
    total: Duration,
    threads: HashMap<OsString, Duration>,
}

impl Cpu {
    /// What process `pid` has used so far.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let total = ticks(&stat)
            .map(|ticks| {
                Duration::from_nanos(
                    ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second(),
                )
            })
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("/proc/{pid}/stat: {stat}"),
                )
            })?;
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            // A thread may end between the two reads.
            let spent = fs::read_to_string(thread.path().join("schedstat")).ok();
            let spent = spent.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
            threads.extend(spent.map(|spent| (thread.file_name(), Duration::from_nanos(spent))));
        }
        Ok(Self { total, threads })
    }

    /// What was used since `before`: to the nanosecond from `schedstat`, unless a thread ended meanwhile and took its figure
    /// along; then from `stat`, in clock ticks (10 ms).
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        let fine = !before.threads.is_empty()
            && before
                .threads
                .keys()
                .all(|thread| self.threads.contains_key(thread));
        let sum = |cpu: &Self| {
            if fine {
                cpu.threads.values().sum()
            } else {
                cpu.total
            }
        };
        sum(self).saturating_sub(sum(before))
    }
}

/// Resident memory of process `pid`.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name| {
        kibibytes(&status, name).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, name))
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// `utime` and `stime`, the 14th and 15th field; the 2nd is the name in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 3 4 20 0 2 0 9 8 7";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_is_resident() {
        let memory = memory(std::process::id()).expect("this process exists");
        assert!(
            memory.resident > 0 && memory.peak >= memory.resident,
            "{memory:?}"
        );
    }

    #[test]
    fn work_is_seen_and_rest_is_not_less() {
        let before = Cpu::of(std::process::id()).expect("this process exists");
        let start = crate::clock::cpu();
        while crate::clock::cpu() - start < Duration::from_millis(30) {
            std::hint::black_box(vec![0_u8; 64]);
        }
        let after = Cpu::of(std::process::id()).expect("this process exists");
        assert!(
            after.since(&before) >= Duration::from_millis(10),
            "{before:?} {after:?}"
        );
        assert_eq!(before.since(&before), Duration::ZERO);
    }
}
