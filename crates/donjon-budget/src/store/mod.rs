//! Keeping what was spent across restarts.

pub(crate) mod entry;
#[cfg(feature = "file-store")]
mod file;
#[cfg(feature = "file-store")]
mod frame;
#[cfg(feature = "file-store")]
mod generations;
pub(crate) mod journal;
pub(crate) mod keeper;
pub(crate) mod records;
mod sums;

use std::{error::Error, fmt, sync::Arc};

#[cfg(feature = "file-store")]
pub use file::FileStore;

/// Where what was spent is kept. It is called from a thread of its own, so it may block.
///
/// What is kept are sums: each record says what a figure *is* and not by how much it grew. So it does
/// not matter if one is saved twice, and nothing can be charged twice.
pub trait Store: Send + 'static {
    /// All records.
    ///
    /// # Errors
    ///
    /// They cannot be read; the budgets are not built then.
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Puts these records in the place of those that have the same `id`: all of them or none, and so that
    /// they last once this returns.
    ///
    /// # Errors
    ///
    /// They may not last. They are saved again, with what was spent since, until that succeeds.
    fn save(&mut self, records: &[Record]) -> Result<(), StoreError>;

    /// Forgets these records, which nobody will ask for: their periods are past.
    ///
    /// # Errors
    ///
    /// They may still be there.
    fn forget(&mut self, ids: &[String]) -> Result<(), StoreError>;

    /// The journal beside it, asked for once, after [`load`](Self::load); default none. Without one, what was
    /// settled since the last `save` is lost if the process is killed.
    fn journal(&mut self) -> Option<Arc<dyn Journal>> {
        None
    }
}

/// Where each settlement is written down before it returns, so that it outlives the process from then on.
///
/// Entries stand in generations, numbered in ascending order. Now and then the thread that keeps the store closes the current one, adds up
/// what its entries say, saves the sums together with the number of the generation in one
/// [`Store::save`], and then has it forgotten. Whatever of this is missing when the process is
/// killed is done when the store is opened again, and nothing twice: the number says what the sums have.
pub trait Journal: Send + Sync + 'static {
    /// Writes `entry` down, all of it or nothing that would be read. Whoever settles a call calls this and waits for it; many do at
    /// once.
    ///
    /// # Errors
    ///
    /// It is not written. It is kept in memory then and saved with the next sums, and
    /// [`WhenUnkept`](crate::WhenUnkept) says what becomes of calls.
    fn append(&self, entry: &[u8]) -> Result<(), StoreError>;

    /// Closes the current generation once nobody writes to it, begins the next, and reads those that are
    /// closed and above `generation`. A current generation without entries may go on. The next one's number is above
    /// `generation` and above all that there are.
    ///
    /// It is called once before the first entry.
    ///
    /// # Errors
    ///
    /// They cannot be read, or none can be begun. It will be called again.
    fn close(&self, generation: u64) -> Result<Closed, StoreError>;

    /// Forgets the closed generations up to this one.
    ///
    /// # Errors
    ///
    /// They may still be there.
    fn forget(&self, generation: u64) -> Result<(), StoreError>;
}

/// What stands in the closed generations of a [`Journal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The number of the newest; `None` if there is none.
    pub generation: Option<u64>,
    /// Their entries, in any order.
    pub entries: Vec<Vec<u8>>,
    /// How many bytes belong to no entry: a process was killed while it wrote, or the file was damaged.
    pub damaged_bytes: u64,
}

/// What is kept of one sum, or of some that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of what: a JSON text.
    pub id: String,
    /// How much.
    pub figures: Vec<u64>,
}

/// What is spent cannot be kept, or cannot be read.
#[derive(Clone)]
pub struct StoreError {
    what: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error that says `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// Sets its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for StoreError {}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "budget store: {}", self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static))
    }
}
