//! The journal in files: one for each generation, beside the file of the store.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redb::Database;

use super::{Closed, Journal, StoreError, frame};

/// The files of a journal. Each entry is one `write` to a file that is open for appending, so that
/// many write at once and nobody waits for anybody of ours.
#[derive(Debug)]
pub(crate) struct Generations {
    /// The path that the numbers are put behind.
    path: PathBuf,
    current: ArcSwapOption<Generation>,
    /// Those that are closed and still there, in ascending order.
    closed: Mutex<Vec<u64>>,
    /// Held, so that nobody else opens the store and takes away what is still written to.
    _store: Arc<Database>,
}

#[derive(Debug)]
struct Generation {
    number: u64,
    file: File,
    /// Something may stand in it.
    used: AtomicBool,
}

impl Generations {
    /// Those beside the `store` at `path`.
    pub(crate) fn beside(path: &Path, store: Arc<Database>) -> Result<Self, StoreError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".journal-");
        // The process may go to another folder meanwhile.
        let path = std::path::absolute(name)
            .map_err(|error| StoreError::new("no absolute path").with_source(error))?;
        let mut closed = found(&path).map_err(|error| {
            StoreError::new("the journal's folder cannot be read").with_source(error)
        })?;
        closed.sort_unstable();
        Ok(Self {
            path,
            current: ArcSwapOption::empty(),
            closed: Mutex::new(closed),
            _store: store,
        })
    }

    fn path(&self, number: u64) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(number.to_string());
        path.into()
    }

    fn begin(&self, number: u64) -> Result<Arc<Generation>, StoreError> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.path(number))
            .map_err(|error| StoreError::new("no journal can be begun").with_source(error))?;
        let used = AtomicBool::new(false);
        Ok(Arc::new(Generation { number, file, used }))
    }
}

impl Journal for Generations {
    #[inline]
    fn append(&self, entry: &[u8]) -> Result<(), StoreError> {
        let current = self.current.load();
        let Some(current) = &*current else {
            return Err(StoreError::new("no journal was begun"));
        };
        if !current.used.load(Relaxed) {
            current.used.store(true, Release);
        }
        let frame = frame::around(entry);
        loop {
            return match (&current.file).write(&frame) {
                Ok(written) if written == frame.len() => Ok(()),
                // The rest cannot follow: another's entry may stand there. What was written is no entry.
                Ok(_) => Err(StoreError::new("the journal took a part of an entry")),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    Err(StoreError::new("the journal cannot be written").with_source(error))
                }
            };
        }
    }

    fn close(&self, above: u64) -> Result<Closed, StoreError> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let last = current.as_ref().map(|current| current.number);
        if current.is_none_or(|current| current.used.load(Acquire)) {
            let last = last.or(closed.last().copied()).unwrap_or(0);
            let next = self.begin(last.max(above) + 1)?;
            if let Some(mut old) = self.current.swap(Some(next)) {
                closed.push(old.number);
                // Nobody finds it any more; those who had, write for some microseconds.
                while let Err(shared) = Arc::try_unwrap(old) {
                    old = shared;
                    thread::park_timeout(Duration::from_micros(50));
                }
            }
        }
        let mut read = Vec::new();
        for (at, number) in closed.iter().enumerate() {
            if *number <= above {
                continue;
            }
            match fs::read(self.path(*number)) {
                Ok(bytes) => read.push(bytes),
                Err(error) => {
                    if error.kind() == ErrorKind::NotFound {
                        // Somebody has removed it. It is told once, and the others are read next time.
                        closed.remove(at);
                    }
                    return Err(StoreError::new("the journal cannot be read").with_source(error));
                }
            }
        }
        let mut all = Closed {
            generation: closed.last().copied(),
            ..Closed::default()
        };
        for bytes in &read {
            let damaged = frame::read(bytes, |entry| all.entries.push(entry.to_vec()));
            all.damaged_bytes += damaged as u64;
        }
        Ok(all)
    }

    fn forget(&self, up_to: u64) -> Result<(), StoreError> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        closed.retain(|number| {
            if *number > up_to {
                return true;
            }
            match fs::remove_file(self.path(*number)) {
                Ok(()) => false,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => {
                    result =
                        Err(StoreError::new("an old journal cannot be removed").with_source(error));
                    true
                }
            }
        });
        result
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // One without entries is of no use to whoever comes next.
        if let Some(current) = self.current.swap(None)
            && !current.used.load(Acquire)
        {
            let _ = fs::remove_file(self.path(current.number));
        }
    }
}

/// The numbers behind `path` that there are files for.
fn found(path: &Path) -> std::io::Result<Vec<u64>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Some(prefix) = path.file_name() else {
        return Ok(Vec::new());
    };
    let mut numbers = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let bytes = name.as_encoded_bytes();
        let number = bytes.strip_prefix(prefix.as_encoded_bytes());
        let number = number.and_then(|number| std::str::from_utf8(number).ok());
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}
